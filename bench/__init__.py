"""Benchmarks: palaver compared with a bare relay in the same run on the same machine (``make bench``, ``make soak``).

The measured server has one CPU to itself; the model's endpoint, the callers and PostgreSQL share another. The bench
knows how to start palaver and how to call it, but nothing of its internals.
"""
