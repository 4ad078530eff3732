"""Bytes that may be too many for memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class ByteSource(Protocol):
    """Bytes that need not be in memory, with their SHA-256; ``pieces`` begins anew at each call."""

    @property
    def size(self) -> int: ...

    @property
    def digest(self) -> bytes: ...

    def pieces(self, size: int) -> Iterator[bytes]: ...
