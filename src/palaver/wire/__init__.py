"""The contract between HTTP and a dialect: what a call is, what an answer may be, how bytes are framed,
what a row of a dialect's manifest is.

Knows core and nothing else; in particular no socket, no web framework and no vendor.
"""
