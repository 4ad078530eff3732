"""The product: agents, conversations, messages, runs and what may be done with them.

Knows no socket, no driver and no vendor; what it needs from outside are the Protocols of ``ports``. Imports nothing
of palaver but itself.
"""
