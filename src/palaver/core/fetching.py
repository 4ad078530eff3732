"""What stands at an address that somebody names, and why it could not be had."""

from __future__ import annotations

from typing import Literal, Protocol

from palaver.core.types import Value


class Fetched(Value, frozen=True, kw_only=True):
    """What stood at an address. ``url`` is the last one after redirects, ``name`` the file's as far as it was said."""

    url: str
    content: bytes
    media_type: str
    name: str


UnfetchedReason = Literal["url", "address", "name", "connection", "time", "size", "redirects", "status"]
"""Not a URL that can be fetched; an address that must not be; a name nobody knows; no connection; too slow; too
large; too many redirects; an answer that is no success."""


class Unfetched(Exception):  # noqa: N818  told to whoever named the address, not an error of ours
    """Why nothing was fetched. ``detail`` may be shown to whoever named the address."""

    def __init__(self, reason: UnfetchedReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: UnfetchedReason = reason
        self.detail = detail


class Fetch(Protocol):
    async def get(self, url: str) -> Fetched:
        """What stands at ``url``, which is somebody else's word. Raises ``Unfetched``."""
        ...
