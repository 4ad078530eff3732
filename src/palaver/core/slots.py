"""Slots that limit the concurrent runs of a process: in total, per application and per credential."""

from __future__ import annotations

from collections import Counter
from math import ceil

APPLICATION_SHARE = 7 / 8
CREDENTIAL_SHARE = 3 / 4
"""Default shares of all slots, so that no single application or credential can use them all."""


class RunSlots:
    """Counts the runs of a process against ``capacity`` slots. A run holds a slot from before it is stored until its
    end is stored, including while it is queued."""

    def __init__(self, capacity: int, *, per_application: int | None = None, per_credential: int | None = None) -> None:
        self._capacity = capacity
        self._per_application = per_application or ceil(capacity * APPLICATION_SHARE)
        self._per_credential = per_credential or ceil(capacity * CREDENTIAL_SHARE)
        self._in_use = Counter[tuple[int, ...]]()

    def acquire(self, app_id: int, credential: int, credential_limit: int | None = None) -> bool:
        """Take a slot without waiting. Returns whether one was free. ``credential_limit`` overrides
        ``per_credential``."""
        limits = {
            (): self._capacity,
            (app_id,): self._per_application,
            (app_id, credential): self._per_credential if credential_limit is None else credential_limit,
        }
        if any(self._in_use[scope] >= limit for scope, limit in limits.items()):
            return False
        self._in_use.update(limits.keys())
        return True

    @property
    def free(self) -> int:
        """The number of free slots."""
        return max(0, self._capacity - self._in_use[()])

    def take(self, app_id: int, credential: int) -> None:
        """Take a slot for a run that another process accepted, whatever the limits."""
        self._in_use.update(((), (app_id,), (app_id, credential)))

    def release(self, app_id: int, credential: int) -> None:
        for scope in ((), (app_id,), (app_id, credential)):
            self._in_use[scope] -= 1
            if not self._in_use[scope]:
                del self._in_use[scope]
