"""``palaver audit``: what commands changed."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from palaver.app import Core
from palaver.cli.command import AnyApp, Json, on_core
from palaver.cli.terminal import moment, print_json, table


def add_to(cli: typer.Typer) -> None:
    cli.command("audit")(audit)


@on_core
async def audit(
    core: Core,
    *,
    app: AnyApp = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Maximum number of entries.")] = 50,
    json: Json = False,
) -> None:
    """Show the audit log of changes made by commands: time, actor, action and outcome."""
    entries = await core.store.audit.list_newest(limit, application=app)
    if json:
        print_json(entries)
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
        nothing="No changes recorded yet.",
    )
