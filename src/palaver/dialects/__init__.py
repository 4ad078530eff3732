"""One package per vendor API. A package registers itself by being here.

A dialect does no I/O of its own: the time and the trace id arrive with the request. It imports ``wire`` and ``core``,
but no other dialect, clock, socket or database.
"""
