"""What palaver reaches out for on somebody else's word: the address of a file, and what agents use beside their model.

``guard`` is the one way out: an HTTP client that goes nowhere an operator would not want it to. ``targets`` reads a URL
into what is to be reached, ``addresses`` says which addresses are public and which others an operator allows,
``naming`` says what a fetched file is called and is. Everything but ``guard`` is pure.

Knows of palaver nothing but core: no dialect, no database, no model, and not where its settings come from. The
endpoints of models are the operator's own word; they are reached by ``models``, not from here.
"""
