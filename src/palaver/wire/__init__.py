"""The interface between HTTP and the dialects: requests, responses, framing, and a dialect's requirements.

Imports only core; in particular no sockets, no web framework and no vendor.
"""
