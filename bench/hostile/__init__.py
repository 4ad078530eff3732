"""Attacks on a server that has 512 MiB of memory, with a healthy caller beside them: ``python -m bench.hostile``."""
