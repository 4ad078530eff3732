"""What stands at an address that somebody names, and why it could not be had."""

from __future__ import annotations

from typing import Literal, Protocol

from palaver.core.types import Value


class FetchedFile(Value, frozen=True, kw_only=True):
    """What stood at an address. ``url`` is the last one after redirects, ``name`` the file's as far as it was said."""

    url: str
    content: bytes
    media_type: str
    name: str


FetchErrorReason = Literal["url", "address", "name", "connection", "time", "size", "redirects", "status"]
"""Not a URL that can be fetched; an address that must not be; a name nobody knows; no connection; too slow; too
large; too many redirects; an answer that is no success."""


class FetchError(Exception):
    """Why nothing was fetched. ``detail`` may be shown to whoever named the address."""

    def __init__(self, reason: FetchErrorReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: FetchErrorReason = reason
        self.detail = detail


class Fetcher(Protocol):
    async def get(self, url: str) -> FetchedFile:
        """What stands at ``url``, which is somebody else's word. Raises ``FetchError``."""
        ...
