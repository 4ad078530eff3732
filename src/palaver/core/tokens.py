"""What core needs from outside to keep tokens."""

from __future__ import annotations

from typing import Protocol

from palaver.core.types import Token


class Tokens(Protocol):
    """Every look-up gives a token only while its credential is enabled, and of the token's generation."""

    async def issue(self, token: Token, secret: str, *, under: str | None = None) -> bool:
        """Keep a token under its secret text. False, and nothing is kept, where ``under``, the text of the one that it
        comes from, has been revoked."""
        ...

    async def find(self, secret: str, kind: str) -> Token | None:
        """An unexpired token by its secret text."""
        ...

    async def use(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        """The same for what is good once. Using it again within ``remember_s`` seconds gives nothing, and revokes its
        family."""
        ...

    def sign(self, token: Token) -> str:
        """A text that is the token itself; nothing is stored."""
        ...

    async def signed(self, text: str) -> Token | None:
        """The unexpired token that ``sign`` gave the text of."""
        ...
