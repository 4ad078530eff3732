"""Attacks on a server with 512 MiB of memory that also has a healthy caller: ``python -m bench.hostile``."""
