"""The domain and its use cases: agents, conversations, messages and runs.

Independent of sockets, drivers and vendors; external dependencies are the Protocols in ``ports``. Imports no other
package of palaver.
"""
