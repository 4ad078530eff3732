"""Tokens and codes, found by a keyed hash of their text: who reads the database cannot use them.

A token is worth something while its credential is enabled and has the generation in which the token was issued.
"""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime

import msgspec

from palaver.core.types import Token
from palaver.store.database import Database, Row
from palaver.store.quotas import Quotas
from palaver.store.secrets import SecretBox

LONGEST = 4096
"""Characters of a signed token."""

_STANDS = """
c.enabled AND (t.generation = c.generation OR (t.generation = c.previous_generation AND c.previous_until > now()))"""
_GOOD = f"""
t.hash = $1 AND t.kind = $2 AND NOT t.used AND t.expires > now()
    AND c.app = t.app AND c.number = t.credential AND {_STANDS}"""

_ISSUE = """
INSERT INTO token (app, credential, generation, family, hash, kind, end_user, scopes, redirect, expires)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
WHERE $11::bytea IS NULL OR EXISTS (SELECT FROM token WHERE app = $1 AND hash = $11 FOR KEY SHARE)
RETURNING 1"""
_FIND = f"SELECT t.* FROM token t, credential c WHERE {_GOOD}"
_USE = f"""
UPDATE token t SET used = true, expires = greatest(t.expires, now() + make_interval(secs => $3))
FROM credential c WHERE {_GOOD} RETURNING t.*"""
_SIGNED = f"""
SELECT 1 FROM (VALUES ($3::integer)) AS t (generation), credential c WHERE c.app = $1 AND c.number = $2 AND {_STANDS}"""


class TokenTable:
    def __init__(self, db: Database, box: SecretBox, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas
        self._box = box

    async def issue(self, token: Token, secret: str, *, under: str | None = None) -> bool:
        kind = "codes" if token.kind == "code" else "tokens"
        await self._quotas.want_room(kind, token.app, token.credential)
        row = await self._db.fetchrow(
            _ISSUE,
            token.app,
            token.credential,
            token.generation,
            token.family,
            self._box.fingerprint(secret),
            token.kind,
            token.user,
            list(token.scopes),
            token.redirect,
            token.expires,
            None if under is None else self._box.fingerprint(under),
        )
        if row is not None:
            self._quotas.note(kind, token.app, token.credential)
        return row is not None

    async def find(self, secret: str, kind: str) -> Token | None:
        row = await self._db.fetchrow(_FIND, self._box.fingerprint(secret), kind)
        return None if row is None else _token(row)

    async def redeem(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        mark = self._box.fingerprint(secret)
        row = await self._db.fetchrow(_USE, mark, kind, remember_s)
        if row is None:
            await self._revoke(mark)
        return None if row is None else _token(row)

    async def _revoke(self, mark: bytes) -> None:
        """Remove all that came from a token that was used before. What is being issued holds the one it comes from:
        the first statement waits for it, the second one may be too early to see it, the third one does."""
        used = await self._db.fetchrow("SELECT app, family FROM token WHERE hash = $1 AND used", mark)
        if used is None:
            return
        family = ("DELETE FROM token WHERE app = $1 AND family = $2", (used["app"], used["family"]))
        await self._db.together([("DELETE FROM token WHERE hash = $1", (mark,)), family, family])

    async def forget(self) -> None:
        """Remove what has run out."""
        await self._db.execute("DELETE FROM token WHERE expires <= now()")

    # Signed tokens: nothing of them is stored, so that a page may have one for each of its pictures -------------------

    def sign(self, token: Token) -> str:
        body = _text(msgspec.json.encode(token))
        return f"{body}.{_text(self._box.signature(body))}"

    async def signed(self, text: str) -> Token | None:
        body, _, signature = text.partition(".")
        if len(text) > LONGEST or not hmac.compare_digest(
            _text(self._box.signature(body)).encode(), signature.encode()
        ):
            return None
        token = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Token)
        if token.expires <= datetime.now(UTC):
            return None
        row = await self._db.fetchrow(_SIGNED, token.app, token.credential, token.generation)
        return None if row is None else token


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(row: Row) -> Token:
    return Token(
        app=row["app"],
        credential=row["credential"],
        generation=row["generation"],
        family=row["family"],
        kind=row["kind"],
        user=row["end_user"],
        scopes=tuple(row["scopes"]),
        redirect=row["redirect"],
        expires=row["expires"],
    )
