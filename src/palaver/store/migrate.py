"""Numbered plain SQL files, applied in order: all that are missing in one transaction, under one advisory lock.

The lock is the transaction's, so that it ends with it also where a pooler keeps the session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from importlib.resources import files

import structlog

import palaver
from palaver.core.problems import Internal
from palaver.store.driver import Connection, Row, connected

LOCK = 0x70616C61766572
"""Advisory lock of whoever migrates: the word "palaver"."""
OLDEST = 15
"""The first version of PostgreSQL that will do."""
PATIENCE = 300.0
"""Seconds to wait for another process that migrates."""
IDLE = 10.0
"""Seconds after which a session that does nothing, and has the lock, was left behind."""

log = structlog.get_logger("palaver.store")

_HOLDER = """
SELECT l.pid, a.application_name AS name, coalesce(a.state, '') AS state,
    coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8 AS since
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::bigint = $1 AND l.objid::bigint = $2
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration shipped, in order."""
    found = [
        (int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("palaver.store").joinpath("schema").iterdir()
        if (match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name))
    ]
    return sorted(found)


async def migrate(url: str, *, upgrade: bool = True) -> list[str]:
    """Bring the database at ``url`` up to date; the names of the migrations applied. Any number of processes may
    do it at once. With ``upgrade`` false an empty database is set up, an older one refused.

    Raises ``Internal(reason="database")``, also for a database that is newer than this palaver, or will not do.
    """
    async with connected(url, timeout=10) as connection:
        version, encoding = await server(connection)
        if (unfit := unfitness(version, encoding)) is not None:
            raise Internal(reason="database", detail=": ".join(unfit))
        if not await _missing(connection, upgrade=upgrade):
            return []
        async with connection.transaction():
            await _take_lock(connection)
            missing = await _missing(connection, upgrade=upgrade)
            for number, name, sql in missing:
                await connection.execute(sql)
                await connection.execute("INSERT INTO migration (number, name) VALUES ($1, $2)", number, name)
                log.info("migrated", migration=name)
            await _sign(connection)
        return [name for _, name, _ in missing]


async def server(connection: Connection) -> tuple[str, str]:
    """(version, encoding of the database)."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding", timeout=5
    )
    assert row is not None
    return row["version"], row["encoding"]


def unfitness(version: str, encoding: str) -> tuple[str, str] | None:
    """Why palaver cannot work with such a database, and what would be right."""
    if int(re.split(r"\D", version, maxsplit=1)[0]) < OLDEST:
        return f"PostgreSQL {version} is too old", f"use version {OLDEST} or newer"
    if encoding != "UTF8":
        remedy = "name another one, made with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
        return f"its encoding is {encoding}, which does not have every character", remedy
    return None


async def applied(connection: Connection) -> set[int]:
    """Numbers of the migrations that the database has; none when it is empty."""
    if await connection.fetchval("SELECT to_regclass('migration') IS NULL", timeout=5):
        return set()
    return {row["number"] for row in await connection.fetch("SELECT number FROM migration", timeout=5)}


async def newer_than(connection: Connection, shipped: Collection[int]) -> str | None:
    """What the database has that is not among ``shipped``, in words."""
    if newer := sorted(await applied(connection) - set(shipped)):
        by: str | None = await connection.fetchval("SELECT value FROM meta WHERE name = 'palaver_version'", timeout=5)
        whose = "" if by is None else f" (palaver {by} did that)"
        return f"the database has migration {newer[-1]}, which this palaver does not know{whose}"
    return None


async def _missing(connection: Connection, *, upgrade: bool) -> list[tuple[int, str, str]]:
    shipped = migrations()
    if (newer := await newer_than(connection, [number for number, _, _ in shipped])) is not None:
        raise Internal(reason="database", detail=f"{newer}: install a newer one")
    done = await applied(connection)
    missing = [migration for migration in shipped if migration[0] not in done]
    if missing and done and not upgrade:
        names = ", ".join(name for _, name, _ in missing)
        detail = (
            f"it is of an older palaver than this one ({palaver.__version__}) and lacks {names}; make a backup, then do"
            " 'palaver migrate' (the next start of 'palaver serve' does it too), or use the older one"
        )
        raise Internal(reason="database", detail=detail)
    return missing


async def _sign(connection: Connection) -> None:
    """Leave this palaver's version, for the messages of older ones."""
    await connection.execute(
        "INSERT INTO meta (name, value) VALUES ('palaver_version', $1)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        palaver.__version__,
    )


# The lock -----------------------------------------------------------------------------------------------------------


async def _take_lock(connection: Connection) -> None:
    """Take the lock for the rest of the transaction, and make the table of migrations if there is none."""
    clock = asyncio.get_running_loop().time
    begun = told = clock()
    while not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", LOCK):
        holder = await lock_holder(connection)
        waited = clock() - begun
        if holder is not None and (waited > PATIENCE or left_behind(holder)):
            raise Internal(reason="database", detail=f"{held_by(holder)}; {END_IT.format(holder['pid'])}")
        if holder is not None and clock() - told > 1:
            told = clock() + 30
            log.warning("waiting for another process that migrates", holder=held_by(holder))
        await asyncio.sleep(0.1)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL,"
        " applied timestamptz NOT NULL DEFAULT now())"
    )


END_IT = "if no palaver migrates, end that session: SELECT pg_terminate_backend({})"


async def lock_holder(connection: Connection) -> Row | None:
    """Whoever has the lock: pid, name, state, and the seconds since it is in that state."""
    return await connection.fetchrow(_HOLDER, LOCK >> 32, LOCK & 0xFFFFFFFF, timeout=5)


def left_behind(holder: Row) -> bool:
    """Whether the lock is that of a session which does nothing any more: a pooler kept it when its client went."""
    return holder["state"] == "idle" and holder["since"] > IDLE


def held_by(holder: Row) -> str:
    return (
        f"PostgreSQL's process {holder['pid']} ({holder['name'] or 'without a name'}, {holder['state'] or 'not shown'}"
        f" for {holder['since']:.0f} s) has the lock of migrations"
    )
