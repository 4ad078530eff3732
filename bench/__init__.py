"""What palaver costs, measured beside a bare relay in one run on one machine: ``make bench``, and ``make soak``.

The server under measurement has one CPU to itself; the model's endpoint, the callers and PostgreSQL have the other.
A bench measures: it knows how palaver is started and how its callers write, and nothing of how palaver works inside.
"""
