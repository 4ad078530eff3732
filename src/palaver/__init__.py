"""palaver: one agent server behind several vendors' documented chat APIs."""

__version__ = "0.1.0"
