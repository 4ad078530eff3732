"""Limits on the concurrent runs of a process: in total, per application and per credential."""

from __future__ import annotations

from collections import Counter
from math import ceil

APPLICATION_SHARE = 7 / 8
CREDENTIAL_SHARE = 3 / 4
"""Default shares of all slots, so that no single application or credential can use them all."""


class RunSlots:
    """A run holds a slot from before it is stored until its end is stored, including while it is queued."""

    def __init__(self, total: int, *, application: int | None = None, credential: int | None = None) -> None:
        self._total = total
        self._application = application or ceil(total * APPLICATION_SHARE)
        self._credential = credential or ceil(total * CREDENTIAL_SHARE)
        self._taken = Counter[tuple[int, ...]]()

    def acquire(self, app: int, credential: int, own: int | None = None) -> bool:
        """Take a slot. Returns whether one was free; ``own`` overrides the limit per credential."""
        limits = {
            (): self._total,
            (app,): self._application,
            (app, credential): self._credential if own is None else own,
        }
        if any(self._taken[name] >= limit for name, limit in limits.items()):
            return False
        self._taken.update(limits.keys())
        return True

    def release(self, app: int, credential: int) -> None:
        for name in ((), (app,), (app, credential)):
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]
