"""``palaver migrate``: the database itself, without what is in it."""

from __future__ import annotations

import typer

from palaver.app import migrated
from palaver.cli.session import Data, DatabaseUrl, Json, run, settings_for
from palaver.cli.terminal import say, say_json


def add_to(cli: typer.Typer) -> None:
    cli.command()(migrate)


def migrate(*, data: Data = None, database: DatabaseUrl = None, json: Json = False) -> None:
    """Bring the database up to this version of palaver; an empty one is set up."""
    applied = run(migrated(settings_for(data, database)))
    if json:
        say_json({"applied": applied})
        return
    for name in applied:
        say(f"Applied {name}.")
    if not applied:
        say("The database is up to date.")
