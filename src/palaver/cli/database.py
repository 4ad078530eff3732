"""``palaver migrate`` and ``palaver database``: migration, dump and restore of the whole database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palaver.cli.command import Data, DatabaseUrl, Json, run, settings_for
from palaver.cli.terminal import print_json, print_line, print_note
from palaver.core.problems import Conflict
from palaver.installation import dump_database, locate_database, migrate_database, restore_database

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
    _report(run(migrate_database(settings_for(data, database))), json=json)


def _report(applied: list[str], *, json: bool) -> None:
    if json:
        print_json({"applied": applied})
        return
    for name in applied:
        print_line(f"Applied {name}.")
    if not applied:
        print_line("The database is up to date.")


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
    size = run(dump_database(settings_for(data, database), file.absolute(), lambda table: print_note(f"{table} …")))
    if json:
        print_json({"file": str(file), "bytes": size})
    else:
        print_line(f"{file}: {size} bytes. Its secrets cannot be read without the master key.")


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
    applied = run(restore_database(settings, file.absolute(), lambda table: print_note(f"{table} …"), force=force))
    if json:
        print_json({"file": str(file), "applied": applied})
        return
    print_line(f"Restored {file}.")
    for name in applied:
        print_line(f"Applied {name}.")


@group.command()
def url(*, data: Data = None, database: DatabaseUrl = None) -> None:
    """Print the database URL for psql, including the password. The embedded database is up only while palaver runs."""
    settings = settings_for(data, database)

    async def address() -> str:
        async with locate_database(settings) as (url, _):
            return settings.database_direct_url or url

    print_line(run(address()))
