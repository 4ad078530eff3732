"""Binary content that may not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class ByteSource(Protocol):
    """Bytes that need not be in memory, and their SHA-256. Each call of ``pieces`` starts from the beginning."""

    @property
    def size(self) -> int: ...

    @property
    def digest(self) -> bytes: ...

    def pieces(self, size: int) -> Iterator[bytes]: ...
