"""The data of an installation: its database, embedded or external, and its master key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from palaver.config import Settings, SettingsError
from palaver.store.dump import dump, read_dump_info, restore
from palaver.store.embedded import EmbeddedPostgres
from palaver.store.migrate import migrate
from palaver.store.secrets import SecretBox, load_or_create_master_key, parse_master_key, replace_master_key_file

log = structlog.get_logger("palaver")

PENDING_MASTER_KEY = "master.key.new"
"""Stays next to the current key's file if a rotation fails halfway."""


@asynccontextmanager
async def locate_database(settings: Settings) -> AsyncGenerator[tuple[str, EmbeddedPostgres | None]]:
    """The URL of the database, and the embedded server if it is one; that runs for the duration of the block."""
    if settings.database_url:
        yield settings.database_url, None
        return
    embedded = EmbeddedPostgres(settings.data_folder)
    try:
        yield await _start_embedded(embedded), embedded
    finally:
        await asyncio.to_thread(embedded.release)


async def _start_embedded(embedded: EmbeddedPostgres) -> str:
    """Start the server and return its URL. A cancelled caller still waits for the start: a server that came up later
    would never be stopped."""
    starting = asyncio.create_task(asyncio.to_thread(embedded.start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        raise


async def migrate_database(settings: Settings) -> list[str]:
    """Initialize the database, or migrate one of an older palaver. Returns the names of the applied migrations."""
    async with locate_database(settings) as (url, _):
        return await migrate(settings.database_direct_url or url)


async def dump_database(settings: Settings, file: Path, progress: Callable[[str], None]) -> int:
    """Dump the database to ``file``. Returns its size in bytes."""
    async with locate_database(settings) as (url, _):
        return await dump(settings.database_direct_url or url, file, progress)


async def restore_database(
    settings: Settings, file: Path, progress: Callable[[str], None], *, force: bool
) -> list[str]:
    """Restore the database from ``file``, whose secrets must be encrypted with this installation's master key. Returns
    the names of the migrations applied afterwards. Raises ``Internal`` and ``SettingsError``."""
    fingerprint = (await read_dump_info(file)).master_key
    if fingerprint is not None and fingerprint != _current_fingerprint(settings):
        raise SettingsError(
            "master_key: the dump's secrets are sealed with another master key than this installation has: set"
            f" PALAVER_MASTER_KEY to that one, or put it into {settings.data_folder / 'master.key'}, and restore again"
        )
    async with locate_database(settings) as (url, _):
        return await restore(settings.database_direct_url or url, file, force=force, progress=progress)


def _current_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the master key, or ``None`` if there is no key yet."""
    if settings.master_key is None and not (settings.data_folder / "master.key").exists():
        return None
    return SecretBox(master_key(settings)).key_id


def master_key(settings: Settings) -> bytes:
    try:
        if settings.master_key is not None:
            return parse_master_key(settings.master_key)
        settings.data_folder.mkdir(parents=True, exist_ok=True)
        return load_or_create_master_key(settings.data_folder / "master.key")
    except (ValueError, OSError) as error:
        raise SettingsError(f"master_key: {error}") from error


@contextmanager
def pending_master_key(settings: Settings, master: bytes) -> Generator[Path | None]:
    """Store a new master key before the block encrypts anything with it, so that it cannot be lost: next to the file of
    the current one, which it replaces if the block succeeds. Yields that file; ``None``, with nothing stored, if the
    key is set in the environment or a settings file."""
    if settings.master_key is not None:
        yield None
        return
    file = settings.data_folder / "master.key"
    pending = file.with_name(PENDING_MASTER_KEY)
    replace_master_key_file(pending, master)
    yield file
    pending.replace(file)


def keep_master_key(settings: Settings, master: bytes) -> bool:
    """Replace the stored master key. Returns False if it is set in the environment or a settings file instead."""
    if settings.master_key is not None:
        return False
    replace_master_key_file(settings.data_folder / "master.key", master)
    return True
