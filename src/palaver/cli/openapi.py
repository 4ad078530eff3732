"""``palaver openapi``: the OpenAPI document, without a server."""

from __future__ import annotations

from typing import Annotated

import typer

from palaver.app import all_dialects
from palaver.cli.key import dialect_named
from palaver.cli.terminal import print_json
from palaver.http.openapi import build_document
from palaver.wire.contract import Dialect


def add_to(cli: typer.Typer) -> None:
    cli.command()(openapi)


def openapi(
    *,
    dialect: Annotated[
        Dialect | None,
        typer.Option(parser=dialect_named, metavar="DIALECT", help="Only this dialect.", show_default=False),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Base URL at which callers reach the server.")
    ] = None,
) -> None:
    """Print the OpenAPI document that a server serves at /openapi.json."""
    content = build_document(all_dialects() if dialect is None else (dialect,))
    servers = {} if server is None else {"servers": [{"url": server}]}
    print_json({**content, **servers})
