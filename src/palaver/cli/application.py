"""``palaver app``: applications, the owners of everything else."""

from __future__ import annotations

from typing import Annotated

import typer

from palaver.cli.command import Json, Yes, on_admin
from palaver.cli.terminal import print_json, print_line, table
from palaver.core.admin.admin import Admin

group = typer.Typer(
    name="app",
    help="Applications: each owns credentials, agents, documents and conversations.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@group.command("list")
@on_admin
async def list_(admin: Admin, *, json: Json = False) -> None:
    """List the applications."""
    apps = await admin.applications.list_all()
    if json:
        print_json([{"id": app.id, "name": app.name, "created": app.created} for app in apps])
        return
    table(
        ("ID", "NAME", "CREATED"),
        [(str(app.id), app.name, f"{app.created:%Y-%m-%d %H:%M}") for app in apps],
        nothing="No applications yet; create one with 'palaver app create NAME' or 'palaver demo'.",
    )


@group.command()
@on_admin
async def create(admin: Admin, name: Name, *, json: Json = False) -> None:
    """Create an application; no error if it exists."""
    app = await admin.applications.get_or_create(name)
    if json:
        print_json({"name": app.name, "created": app.created})
    else:
        print_line(f"The application {app.name!r} exists.")


@group.command()
@on_admin
async def delete(admin: Admin, name: Name, *, yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  its callback prompts
    """Delete an application with its credentials, agents, documents and conversations."""
    app = await admin.applications.delete(name)
    if json:
        print_json({"name": app.name, "deleted": True})
    else:
        print_line(f"Deleted the application {app.name!r}.")
