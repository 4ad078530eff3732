"""``palaver audit``: the log of changes made by commands."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from palaver.cli.command import AnyApp, Json, on_admin
from palaver.cli.terminal import moment, print_json, table
from palaver.core.admin.admin import Admin


def add_to(cli: typer.Typer) -> None:
    cli.command("audit")(audit)


@on_admin
async def audit(
    admin: Admin,
    *,
    app: AnyApp = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Maximum number of entries.")] = 50,
    json: Json = False,
) -> None:
    """Show the audit log of changes made by commands: time, actor, action and outcome."""
    entries = await admin.audit.list_newest(limit, application=app)
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
