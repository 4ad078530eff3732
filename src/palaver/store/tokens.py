"""The table of tokens and codes, stored as keyed hashes, so that reading the database does not allow to use them.

A token is valid only while its credential is enabled and has the generation in which the token was issued.
"""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from palaver.core.types import Token
from palaver.store.database import Database, Row
from palaver.store.quotas import Quotas
from palaver.store.secrets import SecretBox

MAX_SIGNED_CHARACTERS = 4096
"""Maximum length of a signed token."""

_GENERATION_IS_VALID = """
c.enabled AND (t.generation = c.generation OR (t.generation = c.previous_generation AND c.previous_until > now()))"""
_TOKEN_IS_VALID = f"""
NOT t.used AND t.expires > now() AND c.app = t.app AND c.number = t.credential AND {_GENERATION_IS_VALID}"""

_INSERT = "INSERT INTO token (app, credential, generation, family, hash, kind, end_user, scopes, redirect, expires)"
_ISSUE = f"{_INSERT} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING 1"
_LOCK_PARENT = "SELECT 1 FROM token WHERE app = $1 AND hash = $2 FOR KEY SHARE"
_ISSUE_FROM_PARENT = f"""
{_INSERT}
SELECT app, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM token WHERE app = $1 AND hash = $11 RETURNING 1"""
_FIND = f"SELECT t.* FROM token t, credential c WHERE t.hash = $1 AND t.kind = $2 AND {_TOKEN_IS_VALID}"
_FIND_APP = "SELECT app FROM token WHERE hash = $1"
_USE = f"""
UPDATE token t SET used = true, expires = greatest(t.expires, now() + make_interval(secs => $4))
FROM credential c WHERE t.app = $1 AND t.hash = $2 AND t.kind = $3 AND {_TOKEN_IS_VALID} RETURNING t.*"""
_FIND_GENERATION = f"""
SELECT 1 FROM (VALUES ($3::integer)) AS t (generation), credential c
WHERE c.app = $1 AND c.number = $2 AND {_GENERATION_IS_VALID}"""


class TokenTable:
    """Access tokens, refresh tokens and authorization codes."""

    def __init__(self, db: Database, box: SecretBox, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas
        self._box = box

    async def issue(self, token: Token, secret: str, *, parent: str | None = None) -> bool:
        kind = "codes" if token.kind == "code" else "tokens"
        await self._quotas.require_room(kind, token.app, token.credential)
        values = (
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
        )
        if parent is None:
            rows = await self._db.fetch(_ISSUE, *values)
        else:
            fingerprint = self._box.fingerprint(parent)
            lock = (_LOCK_PARENT, (token.app, fingerprint))
            rows = await self._db.transaction([lock, (_ISSUE_FROM_PARENT, (*values, fingerprint))])
        if rows:
            self._quotas.record_rows(kind, token.app, token.credential)
        return bool(rows)

    async def find(self, secret: str, kind: str) -> Token | None:
        row = await self._db.fetchrow(_FIND, self._box.fingerprint(secret), kind)
        return None if row is None else _token(row)

    async def redeem(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        fingerprint = self._box.fingerprint(secret)
        app_id: int | None = await self._db.fetchval(_FIND_APP, fingerprint)
        if app_id is None:
            return None
        row = await self._db.fetchrow(_USE, app_id, fingerprint, kind, remember_s)
        if row is None:
            await self._revoke(app_id, fingerprint)
        return None if row is None else _token(row)

    async def _revoke(self, app_id: int, fingerprint: bytes) -> None:
        """If the single-use token was used before, delete its family: every token issued from it. Issuing a token locks
        its parent: the first statement waits for that lock, the second one may not see the new token yet, but the third
        one does."""
        sql = "SELECT family FROM token WHERE app = $1 AND hash = $2 AND used"
        family: UUID | None = await self._db.fetchval(sql, app_id, fingerprint)
        if family is None:
            return
        itself = ("DELETE FROM token WHERE app = $1 AND hash = $2", (app_id, fingerprint))
        all_of_it = ("DELETE FROM token WHERE app = $1 AND family = $2", (app_id, family))
        await self._db.transaction([itself, all_of_it, all_of_it])

    async def delete_expired(self) -> None:
        """Delete expired tokens."""
        await self._db.execute("DELETE FROM token WHERE expires <= now()")

    # Signed tokens, which are not stored: a page may need one for each of its pictures --------------------------------

    def sign(self, token: Token) -> str:
        body = _base64url(msgspec.json.encode(token))
        return f"{body}.{_base64url(self._box.sign(body))}"

    async def verify(self, text: str) -> Token | None:
        body, _, signature = text.partition(".")
        if len(text) > MAX_SIGNED_CHARACTERS or not hmac.compare_digest(
            _base64url(self._box.sign(body)).encode(), signature.encode()
        ):
            return None
        token = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Token)
        if token.expires <= datetime.now(UTC):
            return None
        row = await self._db.fetchrow(_FIND_GENERATION, token.app, token.credential, token.generation)
        return None if row is None else token


def _base64url(data: bytes) -> str:
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
