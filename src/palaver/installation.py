"""The data of an installation: its database, embedded or not, and its master key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from palaver.config import Settings, SettingsError
from palaver.store.dump import dump, read_dump_info, restore
from palaver.store.embedded import EmbeddedPostgres
from palaver.store.migrate import migrate
from palaver.store.secrets import SecretBox, load_or_create_master_key, parse_master_key, replace_master_key_file

log = structlog.get_logger("palaver")


@asynccontextmanager
async def locate_database(settings: Settings) -> AsyncGenerator[tuple[str, EmbeddedPostgres | None]]:
    """The address of the database, and the server where it is the embedded one: that runs while the block lasts."""
    if settings.database_url:
        yield settings.database_url, None
        return
    embedded = EmbeddedPostgres(settings.folder)
    try:
        yield await _start_embedded(embedded), embedded
    finally:
        await asyncio.to_thread(embedded.stop)


async def _start_embedded(embedded: EmbeddedPostgres) -> str:
    """The address of the server. Whoever is cancelled meanwhile still waits for it: a server that comes up after
    all were stopped would stay."""
    starting = asyncio.create_task(asyncio.to_thread(embedded.start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        raise


async def migrate_database(settings: Settings) -> list[str]:
    """Set the database up, or bring one of an older palaver up to date; the names of the migrations applied."""
    async with locate_database(settings) as (url, _):
        return await migrate(settings.database_direct_url or url)


async def dump_database(settings: Settings, file: Path, progress: Callable[[str], None]) -> int:
    """Write the database to ``file``; its size."""
    async with locate_database(settings) as (url, _):
        return await dump(settings.database_direct_url or url, file, progress)


async def restore_database(
    settings: Settings, file: Path, progress: Callable[[str], None], *, force: bool
) -> list[str]:
    """Fill the database from ``file``, which was sealed with this installation's master key; the migrations applied
    then. Raises ``Internal`` and ``SettingsError``."""
    sealed_with = (await read_dump_info(file)).master_key
    if sealed_with is not None and sealed_with != _present_fingerprint(settings):
        raise SettingsError(
            "master_key: the dump's secrets are sealed with another master key than this installation has: set"
            f" PALAVER_MASTER_KEY to that one, or put it into {settings.folder / 'master.key'}, and restore again"
        )
    async with locate_database(settings) as (url, _):
        return await restore(settings.database_direct_url or url, file, force=force, progress=progress)


def _present_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the master key, if there is one yet."""
    if settings.master_key is None and not (settings.folder / "master.key").exists():
        return None
    return SecretBox(master_key(settings)).key_id


def master_key(settings: Settings) -> bytes:
    try:
        if settings.master_key is not None:
            return parse_master_key(settings.master_key)
        settings.folder.mkdir(parents=True, exist_ok=True)
        return load_or_create_master_key(settings.folder / "master.key")
    except (ValueError, OSError) as error:
        raise SettingsError(f"master_key: {error}") from error


def keep_master_key(settings: Settings, master: bytes) -> bool:
    """Put another master key where the present one is from; false where that is the environment or a settings file."""
    if settings.master_key is not None:
        return False
    replace_master_key_file(settings.folder / "master.key", master)
    return True
