"""Runs a command: settings, logging, the database, signals, and the options that commands share."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import os
import platform
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import msgspec
import typer

from palaver.app import Core, open_core
from palaver.config import Settings, load
from palaver.core.admin.admin import Admin
from palaver.core.problems import Conflict, NotFound
from palaver.logs import configure_logs
from palaver.server import shutdown_signals

P = ParamSpec("P")
T = TypeVar("T")

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Data folder. Environment: PALAVER_DATA.", show_default=False),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="URL of your own PostgreSQL server. Environment: PALAVER_DATABASE_URL.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON on standard output, for scripts.")]
App = Annotated[str, typer.Option("--app", metavar="NAME", help="Application.")]
OnlyApp = Annotated[
    str | None,
    typer.Option("--app", metavar="NAME", help="Application; required if there are several.", show_default=False),
]
AnyApp = Annotated[str | None, typer.Option("--app", metavar="NAME", help="Only this application.", show_default=False)]


def _confirm(yes: bool) -> bool:
    """Prompt before the event loop runs: within it, Ctrl-C would not end the prompt."""
    if not yes and sys.stdin.isatty():
        typer.confirm("This cannot be undone. Continue?", abort=True, err=True)
    return True


Yes = Annotated[
    bool, typer.Option("--yes", "-y", callback=_confirm, help="Skip the confirmation (scripts are never prompted).")
]

_COMMON = (
    inspect.Parameter("data", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Data),
    inspect.Parameter("database", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DatabaseUrl),
)


def settings_for(data: str | None, database: str | None, **options: Any) -> Settings:
    """The settings of a short-lived command, which logs only errors by default."""
    settings = load(os.environ, {"data": data, "database_url": database, **options})
    if settings.log_level == "info":
        settings = msgspec.structs.replace(settings, log_level="error")
    configure_logs(settings)
    return settings


def on_core(work: Callable[Concatenate[Core, P], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """``work`` as a command: its first parameter is the core, opened with ``--data`` and ``--database``."""
    return _command(work, open_core)


def on_admin(work: Callable[Concatenate[Admin, P], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """``work`` as a command: its first parameter is the operator use cases, for the user of this machine."""
    return _command(work, _open_admin)


@asynccontextmanager
async def _open_admin(settings: Settings) -> AsyncGenerator[Admin]:
    async with open_core(settings) as core:
        yield core.admin(actor())


def _command(
    work: Callable[Concatenate[T, P], Coroutine[Any, Any, None]],
    open_session: Callable[[Settings], AbstractAsyncContextManager[T]],
) -> Callable[..., None]:
    """``work`` with the options ``--data`` and ``--database`` in place of its first parameter."""

    def command(*, data: str | None, database: str | None, **arguments: Any) -> None:
        settings = settings_for(data, database)

        async def session() -> None:
            async with open_session(settings) as first:
                await work(first, **arguments)  # pyright: ignore[reportCallIssue]  typer passes what the signature says

        run(session())

    _, *own = inspect.signature(work, eval_str=True).parameters.values()
    parameters = [*own, *_COMMON]
    command.__name__, command.__doc__ = work.__name__, work.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return command


def actor() -> str:
    """The user and the machine, as the audit log names them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = str(os.geteuid())
    sudo_user = os.environ.get("SUDO_USER")
    return f"{name}@{platform.node()}" + (f" (sudo by {sudo_user})" if sudo_user else "")


def run(work: Coroutine[Any, Any, T], *, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run ``work`` to completion. SIGTERM and closing the terminal cancel it like Ctrl-C: with a graceful shutdown that
    stops the embedded PostgreSQL."""
    with asyncio.Runner(loop_factory=loop) as runner:
        try:
            return runner.run(_cancelled_by_signals(work))
        except asyncio.CancelledError:
            raise typer.Exit(128 + signal.SIGTERM) from None


async def _cancelled_by_signals(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    for name in shutdown_signals():
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    return await work


def assignment(text: str) -> tuple[str, Any]:
    """Parse ``NAME=VALUE``; the value is parsed as JSON if it is JSON, else it is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name.strip(), msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name.strip(), value


async def only_application(admin: Admin, name: str | None) -> str:
    """``name``; without one, the name of the only application. Raises ``NotFound``, ``Conflict``."""
    if name is not None:
        return name
    names = [application.name for application in await admin.applications.list_all()]
    if len(names) > 1:
        detail = f"there are several applications: choose one with --app: {', '.join(names)}"
        raise Conflict(reason="name", detail=detail)
    if not names:
        raise NotFound(noun="application", ref="")
    return names[0]
