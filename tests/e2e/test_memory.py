"""Memory that is free goes back to the system, also where something small keeps the heap from shrinking."""

from __future__ import annotations

import subprocess
import sys

import pytest

from palaver.heap import WORTH, trimmer

pytestmark = pytest.mark.e2e

BLOCKS = 30_000
SIZE = 4_500
PROGRAM = f"""
import asyncio
from palaver.heap import give_back, resident

async def scene():
    giving = asyncio.create_task(give_back())
    await asyncio.sleep(0)
    blocks = [bytes({SIZE}) for _ in range({BLOCKS})]
    most = resident()
    pins = blocks[::100]
    del blocks
    kept = resident()
    until = asyncio.get_running_loop().time() + 20
    while resident() > most // 2 and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.1)
    print(most, kept, resident(), len(pins))
    giving.cancel()

asyncio.run(scene())
"""


@pytest.mark.skipif(trimmer() is None, reason="the C library is not glibc")
def test_what_is_free_goes_back_at_a_quiet_moment() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    most, kept, left, _ = map(int, done.stdout.splitlines()[-1].split())
    assert kept > most - WORTH, "the heap shrinks by itself: this shows nothing"
    assert left <= most // 2
