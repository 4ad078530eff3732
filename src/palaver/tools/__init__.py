"""The tools of agents, and access to URLs that callers name, such as the URL of a file.

``toolbox`` has the tools of an agent.

``guard`` is the only way out: an HTTP client that connects only to permitted addresses. ``targets`` parses URLs,
``addresses`` classifies addresses as public or not and reads the operator's exceptions, ``naming`` determines the name
and the media type of a fetched file. Everything but ``guard`` is pure.

Depends on core alone: no dialect, no database, no model, no settings. The endpoints of models are configured by the
operator; they are called by ``models``, not from here.
"""
