"""Limits how many requests start in one iteration of the event loop.

Thousands of requests that arrive together would all start in the same iteration, and everything else would wait for
every one of them. They start a few at a time instead, in turn for each credential: other callers and health checks
wait only for a few.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

STARTS_PER_ITERATION = 16


class RequestQueue:
    """Requests of one process that have arrived and not started."""

    def __init__(self, starts_per_iteration: int = STARTS_PER_ITERATION) -> None:
        self._starts_per_iteration = starts_per_iteration
        self._started = 0
        """Requests started in this iteration."""
        self._waiting: OrderedDict[bytes, deque[Callable[[], None]]] = OrderedDict()
        """By credential as claimed: the requests that wait, in order; the credential whose turn it is comes first."""
        self._scheduled = False

    def start(self, headers: Iterable[tuple[bytes, bytes]], start: Callable[[], None]) -> None:
        """Call ``start``, now or in a later iteration. ``headers``: those of the request, with names in lower case."""
        if self._waiting or self._started >= self._starts_per_iteration:
            self._waiting.setdefault(_claimed_credential(headers), deque()).append(start)
        else:
            self._started += 1
            start()
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)

    def _start_waiting(self) -> None:
        self._scheduled = False
        self._started = 0
        while self._waiting and self._started < self._starts_per_iteration:
            credential, requests = self._waiting.popitem(last=False)
            start = requests.popleft()
            if requests:
                self._waiting[credential] = requests
            self._started += 1
            start()
        if self._started and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start_waiting)


def _claimed_credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What identifies the credential in the header ``Authorization`` or ``X-…-Authorization``, without a signature;
    empty if there is none. Not verified."""
    value = next((value for name, value in headers if name.endswith(b"authorization")), b"")
    return value.rpartition(b":")[0] or value
