"""Numbered plain SQL files, applied in order, each in a transaction, under one advisory lock."""

from __future__ import annotations

import re
from importlib.resources import files

import structlog

from palaver.core.problems import Internal
from palaver.store.driver import FAILURES, Connection, connect

LOCK = 0x70616C61766572
"""Advisory lock of whoever migrates: the word "palaver"."""

log = structlog.get_logger("palaver.store")


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration shipped, in order."""
    found = [
        (int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("palaver.store").joinpath("schema").iterdir()
        if (match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name))
    ]
    return sorted(found)


async def migrate(url: str) -> list[str]:
    """Bring the database at ``url`` up to date; the names of the migrations applied. Any number of processes may
    do it at once. Raises ``Internal(reason="database")``, also for a database newer than this palaver."""
    connection = await connect(url, timeout=10)
    try:
        return await _apply(connection)
    except FAILURES as error:
        raise Internal(reason="database", detail=f"migration failed: {error}") from error
    finally:
        await connection.close(timeout=5)


async def _apply(connection: Connection) -> list[str]:
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL,"
        " applied timestamptz NOT NULL DEFAULT now())"
    )
    done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
    shipped = migrations()
    if newer := sorted(done - {number for number, _, _ in shipped}):
        raise Internal(
            reason="database",
            detail=f"the database has migration {newer[-1]}, which this palaver does not know: install a newer one",
        )
    applied: list[str] = []
    for number, name, sql in shipped:
        if number in done:
            continue
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute("INSERT INTO migration (number, name) VALUES ($1, $2)", number, name)
        applied.append(name)
        log.info("migrated", migration=name)
    return applied
