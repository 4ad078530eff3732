"""``palaver serve`` and ``palaver demo``."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import structlog
import typer
import uvloop
from rich.panel import Panel
from rich.text import Text

import palaver
from palaver import app, server
from palaver.cli.agent import agent_json
from palaver.cli.command import Data, DatabaseUrl, Json, actor, on_core, run
from palaver.cli.errors import cannot_listen
from palaver.cli.key import credential_json
from palaver.cli.terminal import out, print_error, print_json, print_line, print_note
from palaver.config import Settings, load
from palaver.core.types import ApiKey
from palaver.demo import APP, Demo, address, ensure_demo, recreate_demo, remember_address, sample
from palaver.logs import configure_logs
from palaver.supervisor import receive_start

FIRST = "snail"
"""The dialect of the first example, as in the README."""


def add_to(cli: typer.Typer) -> None:
    cli.command()(serve)
    cli.command(hidden=True)(worker)
    cli.command()(demo)


def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [PALAVER_HOST]", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port to listen on; 0 picks a free one. [PALAVER_PORT]", show_default="8080"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of server processes. [PALAVER_WORKERS]", show_default="1")
    ] = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Run the server. Ctrl-C or SIGTERM shuts down gracefully; a second one stops immediately."""
    options = {"host": host, "port": port, "workers": workers, "data": data, "database_url": database}
    settings = load(os.environ, options)
    configure_logs(settings)
    welcome = Welcome(settings)
    try:
        run(server.serve(settings, prepare=welcome.prepare, announce=welcome.print), loop=uvloop.new_event_loop)
    except OSError as error:
        reason = cannot_listen(error, settings)
        if reason is None:
            raise
        print_error(reason)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:  # before it served
        raise typer.Exit(0) from None
    except typer.Exit:  # SIGTERM before it served
        raise typer.Exit(0) from None


def worker() -> None:
    """A process of 'palaver serve --workers', started and controlled by it through standard input."""
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as end:
        orders = receive_start(end)
        if orders is None:
            raise typer.Exit(0)
        configure_logs(orders.settings)
        structlog.contextvars.bind_contextvars(worker=orders.number)
        try:
            run(server.run_worker(orders, end), loop=uvloop.new_event_loop)
        except typer.Exit:  # SIGTERM before it served
            raise typer.Exit(0) from None


@on_core
async def demo(
    core: app.Core,
    *,
    dialect: Annotated[str | None, typer.Option(metavar="NAME", help="Show only this dialect.")] = None,
    json: Json = False,
) -> None:
    """Show the demo application, its credentials and commands to paste. Missing parts are created."""
    names = {one.name for one in app.all_dialects()}
    if dialect is not None and dialect not in names:
        print_error(f"there is no dialect {dialect!r}; choose one of: {', '.join(sorted(names))}")
        raise typer.Exit(2)
    complete = await recreate_demo(core, app.all_dialects(), actor=actor())
    base_url = await address(core)
    if json:
        print_json(
            {
                "base_url": base_url,
                "app": APP,
                "agent": None if complete.agent is None else agent_json(complete.agent),
                "credentials": {
                    key.dialect: credential_json(APP, key, secret=True)
                    for key in complete.keys
                    if dialect in {None, key.dialect}
                },
            }
        )
        return
    _show(complete, base_url, dialect)


class Welcome:
    """The message of a server that has started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._demo = Demo()
        self._address = ""
        self._model: str | None = None

    async def prepare(self, core: app.Core, address: str) -> None:
        """Before the first connection: create the demo, and store the server's address for other commands."""
        self._address = address
        await remember_address(core, address)
        if self._settings.creates_demo:
            self._demo = await ensure_demo(core, app.all_dialects())
        elif self._settings.demo is None:
            await self._explain_missing_demo(core)

    async def _explain_missing_demo(self, core: app.Core) -> None:
        host = self._settings.host
        print_note(
            f"No demo was created: other machines can reach {host}. Set PALAVER_DEMO=true to create it anyway, or"
            f" PALAVER_DEMO=false to hide this message. Without --host {host}, the demo is local to this machine."
        )
        if any(one.name == APP for one in await core.admin().applications.list_all()):
            print_note(
                f"The demo from an earlier start still exists and is served; delete it with 'palaver app delete {APP}'."
            )

    def print(self) -> None:
        settings = self._settings
        facts = [
            ("address", self._address),
            ("data", settings.data if settings.database_url is None else f"{settings.data} and your own PostgreSQL"),
            ("model", _model(settings)),
            ("stop", "Ctrl-C"),
        ]
        _box(f"palaver {palaver.__version__}", facts)
        if self._demo.agent is None:
            return
        if not out.is_terminal:  # secrets must not get into files and journals
            print_line("demo: 'palaver demo' shows its credentials and commands to paste")
            return
        _show(self._demo, self._address, FIRST)
        others = [key.dialect for key in self._demo.keys if key.dialect != FIRST]
        print_line(f"For another dialect: palaver demo --dialect {'|'.join(others)}\n")


def _model(settings: Settings) -> str:
    if settings.model == "extract":
        return "extract (quotes documents; for a real one: PALAVER_MODEL=openai:NAME, OPENAI_BASE_URL, OPENAI_API_KEY)"
    return settings.model


def _show(demo: Demo, base_url: str, dialect: str | None) -> None:
    """Every credential, or that of one dialect, each with a command to paste."""
    for key in (key for key in demo.keys if dialect in {None, key.dialect}):
        _box(f"{APP}: {key.dialect}", [("id", key.id), ("secret", key.secret), *_state(key)])
        example = sample(demo, key, base_url)
        if example is not None:
            its_dialect = next(one for one in app.all_dialects() if one.name == key.dialect)
            print_line(f"{its_dialect.curl(example)}\n")


def _state(key: ApiKey) -> list[tuple[str, str]]:
    return [] if key.enabled else [("enabled", f"no; enable it with 'palaver key enable {key.id}'")]


def _box(title: str, facts: list[tuple[str, str]]) -> None:
    """A panel on a terminal, one line per fact in a pipe."""
    if not out.is_terminal:
        print_line(title)
        for name, value in facts:
            print_line(f"  {name:<8} {value}")
        return
    lines = [Text.assemble((f"{name:<8} ", "dim"), value) for name, value in facts]
    out.print(Panel(Text("\n").join(lines), title=title, title_align="left", border_style="green", expand=False))
