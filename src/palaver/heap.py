"""What the C library keeps of memory that was freed goes back to the system at a quiet moment.

Many long answers at a time leave their blocks all over the heap. glibc gives back by itself what is free at the heap's
end alone, so that a small block there keeps all that is free before it.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

LOOK_EVERY_S = 2.0
MIN_FREED_BYTES = 33_554_432
"""Bytes of the heap that must have been freed since it was given back last."""
QUIET = 0.5
"""Share of one processor that a quiet process uses less than: giving back holds up whoever wants memory meanwhile."""


class _Figures(ctypes.Structure):
    """What glibc's ``mallinfo2`` says; what is not needed has a letter."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*"abcdefg", "in_use", "free", "at_the_end"))


class Sizes(NamedTuple):
    """Bytes of the heap in use and free, and of memory that the process has."""

    used: int
    free: int
    resident: int


class Heap:
    """The C library's, where that is glibc 2.33 or newer. Raises ``OSError`` where it is another one."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(None)
            self._figures, self._trim = library.mallinfo2, library.malloc_trim
        except (AttributeError, TypeError) as error:
            raise OSError("there is no malloc_trim") from error
        self._figures.restype = _Figures

    def look(self) -> Sizes:
        figures: Any = self._figures()
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        return Sizes(figures.in_use, figures.free, pages * resource.getpagesize())

    def trim(self) -> None:
        self._trim(0)


async def trim_when_quiet() -> None:
    """Give back what is free whenever much was freed and there is little to do. Ends at once where that cannot be."""
    try:
        heap = Heap()
    except OSError:
        return
    most, least = 0, heap.look().resident
    while True:
        worked = time.process_time()
        await asyncio.sleep(LOOK_EVERY_S)
        worked = time.process_time() - worked
        sizes = await asyncio.to_thread(heap.look)
        most, least = max(most, sizes.used), min(least, sizes.resident)
        # What came and went between two looks is free, and is seen by what the process has come to.
        freed = max(most - sizes.used, min(sizes.free, sizes.resident - least))
        if freed >= MIN_FREED_BYTES and worked <= QUIET * LOOK_EVERY_S:
            await asyncio.to_thread(heap.trim)
            most, least = sizes.used, (await asyncio.to_thread(heap.look)).resident
