"""One folder per vendor's API; that a folder is there is its registration.

A dialect is pure at its border: values in, values out, the time and the trace id come with the call. It knows
``wire`` and ``core``, no other dialect, no clock, no socket, no database.
"""
