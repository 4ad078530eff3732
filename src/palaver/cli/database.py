"""``palaver migrate`` and ``palaver database``: the database itself, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palaver.app import dumped, located, migrated, restored
from palaver.cli.session import Data, DatabaseUrl, Json, run, settings_for
from palaver.cli.terminal import note, say, say_json
from palaver.core.problems import Conflict

group = typer.Typer(
    name="database",
    help="Dump and restore the database, for backups and moves.",
    no_args_is_help=True,
)
File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


def add_to(cli: typer.Typer) -> None:
    cli.command()(migrate)
    cli.add_typer(group)


def migrate(*, data: Data = None, database: DatabaseUrl = None, json: Json = False) -> None:
    """Migrate the database to this version of palaver; an empty database is initialized."""
    _tell(run(migrated(settings_for(data, database))), json=json)


def _tell(applied: list[str], *, json: bool) -> None:
    if json:
        say_json({"applied": applied})
        return
    for name in applied:
        say(f"Applied {name}.")
    if not applied:
        say("The database is up to date.")


@group.command()
def dump(
    file: File,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE if it exists.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Dump the database to FILE; the server can keep running. Back up the master key separately: it is not included."""
    if file.exists() and not force:
        raise Conflict(reason="name", detail=f"{file} already exists; overwrite it with --force")
    size = run(dumped(settings_for(data, database), file.absolute(), lambda table: note(f"{table} …")))
    if json:
        say_json({"file": str(file), "bytes": size})
    else:
        say(f"{file}: {size} bytes. Its secrets cannot be read without the master key.")


@group.command()
def restore(
    file: File,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace palaver's existing data in the database.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Restore the database from FILE, completely or not at all. Needs the master key used for the dump."""
    settings = settings_for(data, database)
    applied = run(restored(settings, file.absolute(), lambda table: note(f"{table} …"), force=force))
    if json:
        say_json({"file": str(file), "applied": applied})
        return
    say(f"Restored {file}.")
    for name in applied:
        say(f"Applied {name}.")


@group.command()
def url(*, data: Data = None, database: DatabaseUrl = None) -> None:
    """Print the database URL for psql, including the password. The embedded database is up only while palaver runs."""
    settings = settings_for(data, database)

    async def address() -> str:
        async with located(settings) as (found, _):
            return settings.database_direct_url or found

    say(run(address()))
