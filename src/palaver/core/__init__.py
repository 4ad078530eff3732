"""The product: agents, conversations, messages, runs and what may be done with them.

Knows no socket, no driver, no vendor and no clock of its own making; what it needs from outside are the Protocols
of ``ports``. Imports nothing of palaver but itself.
"""
