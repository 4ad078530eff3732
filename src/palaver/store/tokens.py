"""Tokens and codes, found by a keyed hash of their text: who reads the database cannot use them."""

from __future__ import annotations

from palaver.core.types import Token
from palaver.store.database import Database, Row
from palaver.store.secrets import SecretBox


class Tokens:
    def __init__(self, db: Database, box: SecretBox) -> None:
        self._db = db
        self._box = box

    async def issue(self, token: Token, secret: str) -> None:
        await self._db.execute(
            "INSERT INTO token (app, credential, hash, kind, end_user, scopes, redirect, expires)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            token.app,
            token.credential,
            self._box.fingerprint(secret),
            token.kind,
            token.user,
            list(token.scopes),
            token.redirect,
            token.expires,
        )

    async def find(self, secret: str, kind: str) -> Token | None:
        sql = "SELECT * FROM token WHERE hash = $1 AND kind = $2 AND expires > now()"
        row = await self._db.fetchrow(sql, self._box.fingerprint(secret), kind)
        return None if row is None else _token(row)

    async def use(self, secret: str, kind: str) -> Token | None:
        sql = "DELETE FROM token WHERE hash = $1 AND kind = $2 RETURNING *, expires > now() AS good"
        row = await self._db.fetchrow(sql, self._box.fingerprint(secret), kind)
        return None if row is None or not row["good"] else _token(row)

    async def forget(self) -> None:
        """Remove what has run out."""
        await self._db.execute("DELETE FROM token WHERE expires <= now()")


def _token(row: Row) -> Token:
    return Token(
        app=row["app"],
        credential=row["credential"],
        kind=row["kind"],
        user=row["end_user"],
        scopes=tuple(row["scopes"]),
        redirect=row["redirect"],
        expires=row["expires"],
    )
