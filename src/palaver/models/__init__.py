"""Chat models: turn the request for one step into deltas.

``registry`` resolves a model spec, ``openai`` calls any Chat Completions endpoint, ``extract`` quotes documents
without an endpoint, ``scripted`` plays the script in its instructions. ``sse`` parses event streams.

Depends on core alone: no dialect, no database, no HTTP server, no settings. It knows nothing of runs, callers or the
execution of tool calls, and never retries after it has sent the first delta of an answer.
"""
