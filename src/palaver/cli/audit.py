"""``palaver audit``: what commands changed."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from palaver.app import Core
from palaver.cli.session import AnyApp, Json, on_core
from palaver.cli.terminal import moment, say_json, table


def add_to(cli: typer.Typer) -> None:
    cli.command("audit")(audit)


@on_core
async def audit(
    core: Core,
    *,
    app: AnyApp = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The last ones, so many.")] = 50,
    json: Json = False,
) -> None:
    """List the changes that commands made: when, who, what, and how it ended."""
    entries = await core.store.audit.newest(limit, application=app)
    if json:
        say_json(entries)
        return
    table(
        ("AT", "ACTOR", "ACTION", "APP", "ARGUMENTS", "OUTCOME"),
        [
            (
                *(moment(entry.at), entry.actor, entry.action, entry.application),
                *(msgspec.json.encode(entry.arguments).decode(), entry.outcome or "not known"),
            )
            for entry in entries
        ],
        nothing="No command has changed anything yet.",
    )
