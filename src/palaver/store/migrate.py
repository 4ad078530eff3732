"""Schema migrations: numbered SQL files; the missing ones are applied in one transaction, under an advisory lock.

The lock belongs to the transaction, so it is released even if a pooler keeps the session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from importlib.resources import files

import structlog

import palaver
from palaver.core.problems import Internal
from palaver.store.driver import Connection, Row, connection_to

MIGRATION_LOCK = 0x70616C61766572
"""Advisory lock id of migrations: "palaver" in ASCII."""
MIN_POSTGRES_VERSION = 15
"""The oldest major version of PostgreSQL that is supported."""
LOCK_TIMEOUT_S = 300.0
"""Seconds to wait for the lock."""
ABANDONED_AFTER_S = 10.0
"""Seconds after which an idle session that holds the lock counts as abandoned."""

log = structlog.get_logger("palaver.store")

_HOLDER = """
SELECT l.pid, a.application_name AS name, coalesce(a.state, '') AS state,
    coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8 AS since
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::bigint = $1 AND l.objid::bigint = $2
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration of this version, in order."""
    numbered = [
        (int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("palaver.store").joinpath("schema").iterdir()
        if (match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name))
    ]
    return sorted(numbered)


async def migrate(url: str, *, upgrade: bool = True) -> list[str]:
    """Apply the missing migrations to the database at ``url``. Returns their names. Safe to call concurrently. With
    ``upgrade`` false, an empty database is set up, but an older one is rejected.

    Raises ``Internal(reason="database")``, also for a database that is newer than this version or is unsupported.
    """
    async with connection_to(url, timeout=10) as connection:
        version, encoding = await get_version_and_encoding(connection)
        if (incompatibility := find_incompatibility(version, encoding)) is not None:
            raise Internal(reason="database", detail=": ".join(incompatibility))
        if not await _missing(connection, upgrade=upgrade):
            return []
        async with connection.transaction():
            await _acquire_lock(connection)
            missing = await _missing(connection, upgrade=upgrade)
            for number, name, sql in missing:
                await connection.execute(sql)
                await connection.execute("INSERT INTO migration (number, name) VALUES ($1, $2)", number, name)
                log.info("migrated", migration=name)
            await _store_version(connection)
        return [name for _, name, _ in missing]


async def get_version_and_encoding(connection: Connection) -> tuple[str, str]:
    """(server version, encoding of the database)."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding", timeout=5
    )
    assert row is not None
    return row["version"], row["encoding"]


def find_incompatibility(version: str, encoding: str) -> tuple[str, str] | None:
    """(reason, remedy) if palaver does not support such a database."""
    if int(re.split(r"\D", version, maxsplit=1)[0]) < MIN_POSTGRES_VERSION:
        return f"PostgreSQL {version} is too old", f"use version {MIN_POSTGRES_VERSION} or newer"
    if encoding != "UTF8":
        remedy = "name another one, made with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
        return f"its encoding is {encoding}, which does not have every character", remedy
    return None


async def applied_migrations(connection: Connection) -> set[int]:
    """The numbers of the migrations applied to the database; empty if it has none."""
    if await connection.fetchval("SELECT to_regclass('migration') IS NULL", timeout=5):
        return set()
    return {row["number"] for row in await connection.fetch("SELECT number FROM migration", timeout=5)}


async def describe_unknown_migration(connection: Connection, shipped: Collection[int]) -> str | None:
    """A message about the newest migration of the database that is not among ``shipped``, or ``None``."""
    if newer := sorted(await applied_migrations(connection) - set(shipped)):
        by: str | None = await connection.fetchval("SELECT value FROM meta WHERE name = 'palaver_version'", timeout=5)
        whose = "" if by is None else f" (palaver {by} did that)"
        return f"the database has migration {newer[-1]}, which this palaver does not know{whose}"
    return None


async def _missing(connection: Connection, *, upgrade: bool) -> list[tuple[int, str, str]]:
    shipped = migrations()
    if (newer := await describe_unknown_migration(connection, [number for number, _, _ in shipped])) is not None:
        raise Internal(reason="database", detail=f"{newer}: install a newer one")
    done = await applied_migrations(connection)
    missing = [migration for migration in shipped if migration[0] not in done]
    if missing and done and not upgrade:
        names = ", ".join(name for _, name, _ in missing)
        detail = (
            f"it is of an older palaver than this one ({palaver.__version__}) and lacks {names}; make a backup, then do"
            " 'palaver migrate' (the next start of 'palaver serve' does it too), or use the older one"
        )
        raise Internal(reason="database", detail=detail)
    return missing


async def _store_version(connection: Connection) -> None:
    """Store palaver's version, for the error messages of older versions."""
    await connection.execute(
        "INSERT INTO meta (name, value) VALUES ('palaver_version', $1)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        palaver.__version__,
    )


# Lock ---------------------------------------------------------------------------------------------------------------


async def _acquire_lock(connection: Connection) -> None:
    """Lock for the rest of the transaction, and create the table of migrations if it is missing. Raises
    ``Internal``."""
    clock = asyncio.get_running_loop().time
    started = logged = clock()
    while not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK):
        holder = await find_lock_holder(connection)
        waited = clock() - started
        if holder is not None and (waited > LOCK_TIMEOUT_S or is_abandoned(holder)):
            raise Internal(
                reason="database", detail=f"{describe_holder(holder)}; {TERMINATE_HINT.format(holder['pid'])}"
            )
        if holder is not None and clock() - logged > 1:
            logged = clock() + 30
            log.warning("waiting for another process that migrates", holder=describe_holder(holder))
        await asyncio.sleep(0.1)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL,"
        " applied timestamptz NOT NULL DEFAULT now())"
    )


TERMINATE_HINT = "if no palaver migrates, end that session: SELECT pg_terminate_backend({})"


async def find_lock_holder(connection: Connection) -> Row | None:
    """The session that holds the lock, or ``None``: pid, name, state, and seconds in that state (``since``)."""
    return await connection.fetchrow(_HOLDER, MIGRATION_LOCK >> 32, MIGRATION_LOCK & 0xFFFFFFFF, timeout=5)


def is_abandoned(holder: Row) -> bool:
    """Whether the session is idle for good: a pooler kept it after its client had disconnected."""
    return holder["state"] == "idle" and holder["since"] > ABANDONED_AFTER_S


def describe_holder(holder: Row) -> str:
    return (
        f"PostgreSQL's process {holder['pid']} ({holder['name'] or 'without a name'}, {holder['state'] or 'not shown'}"
        f" for {holder['since']:.0f} s) has the lock of migrations"
    )
