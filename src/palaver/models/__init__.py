"""Chat models: how a request for one step becomes deltas.

``catalog`` finds the model that a spec names, ``openai`` speaks to any endpoint with Chat Completions, ``extract``
quotes documents without any endpoint, ``scripted`` plays what its instructions say. ``sse`` reads event streams.

Knows of palaver nothing but core: no dialect, no database, no HTTP server, and not where its settings come from.
It does not know what a run is, who asks, or what becomes of a tool call; it never tries again once it has said a word.
"""
