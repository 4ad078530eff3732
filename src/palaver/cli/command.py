"""From a command line to core and back: settings, logs, a database, signals."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import os
import platform
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec
import typer

from palaver.app import Core, open_core
from palaver.config import Settings, load
from palaver.core.problems import Conflict, Invalid, NotFound, Problem
from palaver.core.types import Agent, Application, clean
from palaver.logs import configure_logs
from palaver.server import shutdown_signals

P = ParamSpec("P")
T = TypeVar("T")

MAX_NAME = 255

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


def _ask(yes: bool) -> bool:
    """Before the event loop runs, under which a prompt could not be left with Ctrl-C."""
    if not yes and sys.stdin.isatty():
        typer.confirm("This cannot be undone. Go on?", abort=True, err=True)
    return True


Yes = Annotated[
    bool, typer.Option("--yes", "-y", callback=_ask, help="Skip the confirmation (scripts are never prompted).")
]

_COMMON = (
    inspect.Parameter("data", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Data),
    inspect.Parameter("database", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DatabaseUrl),
)


def settings_for(data: str | None, database: str | None, **said: Any) -> Settings:
    """The settings of a command that is over soon: only errors are worth a line of its log."""
    settings = load(os.environ, {"data": data, "database_url": database, **said})
    if settings.log_level == "info":
        settings = msgspec.structs.replace(settings, log_level="error")
    configure_logs(settings)
    return settings


def on_core(work: Callable[Concatenate[Core, P], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """``work`` as a command: with ``--data`` and ``--database`` besides its own parameters, on core."""

    def command(*, data: str | None, database: str | None, **given: Any) -> None:
        settings = settings_for(data, database)

        async def session() -> None:
            async with open_core(settings) as core, _audited(core, getattr(work, "audited", None), given):
                await work(core, **given)  # pyright: ignore[reportCallIssue]  typer passes what the signature says

        run(session())

    _, *own = inspect.signature(work, eval_str=True).parameters.values()
    parameters = [*own, *_COMMON]
    command.__name__, command.__doc__ = work.__name__, work.__doc__
    command.work = work  # pyright: ignore[reportFunctionMemberAccess]  what a test looks at
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return command


def records_audit(action: str, *names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Marks a command that changes something: ``palaver audit`` lists it as ``action``, with the arguments ``names``,
    which are nobody's secrets."""

    def mark(work: Callable[P, T]) -> Callable[P, T]:
        work.audited = AuditSpec(action, names)  # pyright: ignore[reportFunctionMemberAccess]
        return work

    return mark


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """What the audit says of a command: its name, and which of its arguments."""

    action: str
    names: tuple[str, ...]


@asynccontextmanager
async def _audited(core: Core, change: AuditSpec | None, arguments: Mapping[str, Any]) -> AsyncGenerator[None]:
    """The block's beginning and its outcome go into the audit, where the command changes something."""
    if change is None:
        yield
        return
    kept = {name: _plain(arguments[name]) for name in change.names if arguments.get(name) not in (None, False, ())}
    entry = await core.store.audit.begin(
        actor=actor(), action=change.action, application=arguments.get("app"), arguments=kept
    )
    try:
        yield
    finally:
        error = sys.exception()
        outcome = "done" if error is None else f"failed: {str(error) or type(error).__name__}"
        with suppress(Problem):  # the change itself may have taken the audit along: a restored database
            await core.store.audit.end(entry, outcome)


def actor() -> str:
    """Who sits at this machine, as the audit names them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = str(os.geteuid())
    behind = os.environ.get("SUDO_USER")
    return f"{name}@{platform.node()}" + (f" (sudo by {behind})" if behind else "")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in cast("Sequence[Any]", value)]
    return value if isinstance(value, str | int | float) else getattr(value, "name", str(value))


def run(work: Coroutine[Any, Any, T], *, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run ``work`` to its end. SIGTERM ends it as Ctrl-C does: in order, the embedded PostgreSQL stopped. So does the
    closing of the terminal."""
    with asyncio.Runner(loop_factory=loop) as runner:
        try:
            return runner.run(_ending_when_told(work))
        except asyncio.CancelledError:
            raise typer.Exit(128 + signal.SIGTERM) from None


async def _ending_when_told(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    for name in shutdown_signals():
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    return await work


def assignment(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value read as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name.strip(), msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name.strip(), value


# What commands name -------------------------------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """The name of something new. Raises ``Invalid``."""
    name = clean(name).strip()
    if not name or len(name) > MAX_NAME:
        raise Invalid(
            field="name", rule="length", detail=f"a name must have 1 to {MAX_NAME} characters and must not be blank"
        )
    return name


async def the_app(core: Core, name: str) -> Application:
    app = await core.store.applications.get(clean(name).strip())
    if app is None:
        raise NotFound(noun="application", ref=name)
    return app


async def the_only_app(core: Core, name: str | None) -> Application:
    """The application of that name; without one, the only one there is. Raises ``NotFound``, ``Conflict``."""
    if name is not None:
        return await the_app(core, name)
    apps = await core.store.applications.list_all()
    if len(apps) > 1:
        names = ", ".join(app.name for app in apps)
        raise Conflict(reason="name", detail=f"there are several applications: choose one with --app: {names}")
    if not apps:
        raise NotFound(noun="application", ref="")
    return apps[0]


async def only_app(core: Core, name: str | None) -> Application | None:
    return None if name is None else await the_app(core, name)


async def the_agent(core: Core, app: Application, ref: str) -> Agent:
    agent = await core.store.agents.find(app, ref)
    if agent is None:
        raise NotFound(noun="agent", ref=ref)
    return agent
