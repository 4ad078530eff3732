"""Fetching files from caller-supplied URLs, and the errors."""

from __future__ import annotations

from typing import Literal, Protocol

from palaver.core.types import Value


class FetchedFile(Value, frozen=True, kw_only=True):
    """A fetched file. ``url`` is the final URL after redirects, ``name`` the file name, if known."""

    url: str
    content: bytes
    media_type: str
    name: str


FetchErrorReason = Literal["url", "address", "name", "connection", "time", "size", "redirects", "status"]
"""``url``: not fetchable; ``address``: forbidden address; ``name``: host name not resolved; ``connection``: no
connection; ``time``: too slow; ``size``: too large; ``redirects``: too many; ``status``: not a success status."""


class FetchError(Exception):
    """A fetch failed. ``detail`` may be shown to the caller that supplied the URL."""

    def __init__(self, reason: FetchErrorReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: FetchErrorReason = reason
        self.detail = detail


class Fetcher(Protocol):
    async def get(self, url: str) -> FetchedFile:
        """Fetch ``url``, which is untrusted. Raises ``FetchError``."""
        ...
