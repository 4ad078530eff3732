"""Returns memory that was freed to the system when the server is idle.

Many concurrent long answers fragment the heap. By itself, glibc returns only free memory at the end of the heap: one
small block there retains everything before it.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

CHECK_INTERVAL_S = 2.0
MIN_FREED_BYTES = 33_554_432
"""Minimum memory freed since the last trim, in bytes."""
IDLE_CPU_SHARE = 0.5
"""Maximum CPU usage of an idle process, as a share of one processor. A trim blocks threads that allocate memory."""


class _MallInfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``; fields that are not needed have one letter."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*"abcdefg", "uordblks", "fordblks", "keepcost"))


class HeapSizes(NamedTuple):
    """Heap memory in use and free, and the resident set size, in bytes."""

    used: int
    free: int
    resident: int


class Heap:
    """The heap of glibc 2.33 or newer. Raises ``OSError`` with any other C library."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(None)
            self._mallinfo2, self._trim = library.mallinfo2, library.malloc_trim
        except (AttributeError, TypeError) as error:
            raise OSError("there is no malloc_trim") from error
        self._mallinfo2.restype = _MallInfo2

    def sizes(self) -> HeapSizes:
        info: Any = self._mallinfo2()
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        return HeapSizes(info.uordblks, info.fordblks, pages * resource.getpagesize())

    def trim(self) -> None:
        self._trim(0)


async def trim_when_idle() -> None:
    """Trim the heap whenever much memory was freed and the process is idle. Returns at once if the C library cannot."""
    try:
        heap = Heap()
    except OSError:
        return
    peak_used, min_resident = 0, heap.sizes().resident
    while True:
        cpu_s = time.process_time()
        await asyncio.sleep(CHECK_INTERVAL_S)
        cpu_s = time.process_time() - cpu_s
        sizes = await asyncio.to_thread(heap.sizes)
        peak_used, min_resident = max(peak_used, sizes.used), min(min_resident, sizes.resident)
        # Memory allocated and freed between two checks shows only in the resident size.
        freed = max(peak_used - sizes.used, min(sizes.free, sizes.resident - min_resident))
        if freed >= MIN_FREED_BYTES and cpu_s <= IDLE_CPU_SHARE * CHECK_INTERVAL_S:
            await asyncio.to_thread(heap.trim)
            peak_used, min_resident = sizes.used, (await asyncio.to_thread(heap.sizes)).resident
