"""What the C library keeps of memory that was freed goes back to the system at a quiet moment.

Many long answers at a time leave their blocks all over the heap. glibc gives back by itself what is free at the heap's
end alone, so that a small block there keeps all that is free before it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 2.0
WORTH = 33_554_432
"""Bytes by which memory must have grown since it was given back last."""
QUIET = 0.5
"""Share of one processor that a quiet process uses less than: giving back holds up whoever wants memory meanwhile."""
_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def trimmer() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; ``None`` where there is another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


async def give_back() -> None:
    """Give back what is free whenever there is much of it and little to do. Ends at once where that is not possible."""
    trim = trimmer()
    if trim is None or not (least := resident()):
        return
    while True:
        worked = time.process_time()
        await asyncio.sleep(LOOK_EVERY_S)
        worked = time.process_time() - worked
        before = resident()
        least = min(least, before)
        if before - least < WORTH or worked > QUIET * LOOK_EVERY_S:
            continue
        await asyncio.to_thread(trim, 0)
        least = resident()
