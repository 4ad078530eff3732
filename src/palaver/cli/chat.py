"""``palaver chat``: talk to an agent from the terminal.

The turn runs in this process, on the same database, whether or not a server is running. Core has its own thread with
an event loop, so that the main thread can wait for input: there, Ctrl-C interrupts it and stops the turn.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer

from palaver.app import Core, open_core
from palaver.cli.command import App, Data, DatabaseUrl, assignment, settings_for
from palaver.cli.printers import JsonPrinter, PlainPrinter, TerminalPrinter, TurnPrinter
from palaver.cli.terminal import err, out, print_note
from palaver.config import Settings
from palaver.core.chat import NewMessage
from palaver.core.problems import Invalid
from palaver.core.types import Agent, ApiKey, Principal, Ref, RunEnded, Status, Text, clean, parse_uid
from palaver.server import shutdown_signals

T = TypeVar("T")

STOPPED = 128 + signal.SIGINT


def add_to(cli: typer.Typer) -> None:
    cli.command()(chat)


def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Agent name, alias, id or uid.", show_default=False)],
    *,
    app: App = "demo",
    user: Annotated[str, typer.Option("--user", help="The end user to chat as.")] = "me",
    conversation: Annotated[
        str | None,
        typer.Option(
            "--conversation", help="Continue this conversation: id, uid or a name of your choice.", show_default=False
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", help="Send this message and exit after the answer.", show_default=False),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option(
            "--var", metavar="NAME=VALUE", help="Set a variable of the agent; can be repeated.", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per event.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Chat with an agent. Ctrl-C stops an answer; at the prompt, Ctrl-C or Ctrl-D exits.

    Without a terminal the question is read from standard input.
    """
    question = message if message is not None or sys.stdin.isatty() else sys.stdin.read()
    variables = dict(map(assignment, var or ()))
    settings = settings_for(data, database)
    for name in shutdown_signals():
        signal.signal(name, _terminated)
    show: TurnPrinter = JsonPrinter() if json else TerminalPrinter() if out.is_terminal else PlainPrinter()
    with background_core(settings) as core:
        session = core.run(ChatSession.begin(core.core, app, agent, user, conversation, show, variables))
        if question is not None:
            raise typer.Exit(_exit_code(_turn(core, session, question)))
        _converse(core, session)


def _converse(core: BackgroundCore, session: ChatSession) -> None:
    """Prompt for questions and show the answers, until the user exits."""
    with suppress(ImportError):  # some builds of Python lack line editing
        importlib.import_module("readline")
    session.greet()
    while (question := _prompt()) is not None:
        if question.strip():
            _turn(core, session, question)
    session.part()


def _prompt() -> str | None:
    try:
        if out.is_terminal:
            return input("› ")
        err.print("› ", end="")
        return input()
    except (EOFError, KeyboardInterrupt):
        err.print()
        return None


def _turn(core: BackgroundCore, session: ChatSession, question: str) -> RunEnded:
    """Run one turn. Ctrl-C stops the answer; a second one exits."""
    answer = core.begin(session.turn(question))
    try:
        return answer.result()
    except KeyboardInterrupt:
        core.call_soon(session.stop)
        return answer.result()


def _exit_code(ended: RunEnded) -> int:
    match ended.status:
        case Status.COMPLETE:
            return 0
        case Status.STOPPED:
            return STOPPED
        case _:
            return 1


def _terminated(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


# The session --------------------------------------------------------------------------------------------------------


class ChatSession:
    """A conversation at the terminal. The coroutines and ``stop`` run on core's event loop."""

    def __init__(
        self,
        core: Core,
        principal: Principal,
        agent: Agent,
        conversation: Ref | None,
        show: TurnPrinter,
        variables: Mapping[str, Any],
    ) -> None:
        self._core = core
        self._who = principal
        self._agent = agent
        self._conversation = conversation
        self._show = show
        self._variables = variables
        self._run: UUID | None = None
        self._stopping = False

    @classmethod
    async def begin(
        cls,
        core: Core,
        app: str,
        agent: str,
        user: str,
        conversation: str | None,
        show: TurnPrinter,
        variables: Mapping[str, Any],
    ) -> ChatSession:
        """Raises ``NotFound``, ``Invalid``."""
        if not user.strip():
            raise Invalid(field="--user", rule="required", detail="an end user needs a name")
        stored = await core.admin().agents.get(app, agent)
        if not stored.spec.enabled:
            print_note(f"The agent {stored.name!r} is disabled: API callers cannot reach it.")
        if core.models.quotes_only(stored.spec.model):
            print_note("The model 'extract' only quotes documents; run 'palaver doctor' to see how to set another one.")
        principal = operator(stored.app).acting_for(clean(user))
        ref = None if conversation is None else _ref(conversation)
        if isinstance(ref, int | UUID):
            ref = (await core.chat.conversation(principal, ref)).id
        return cls(core, principal, stored, ref, show, variables)

    def greet(self) -> None:
        if self._conversation is None:
            self._show.greeting(self._agent)

    def part(self) -> None:
        if isinstance(self._conversation, int):
            self._show.parting(self._agent, self._conversation)

    async def turn(self, question: str) -> RunEnded:
        """Send a message and show the answer as it arrives. Returns its end. Raises what ``Chat.send`` raises."""
        self._stopping = False
        message = NewMessage(parts=(Text(text=question.strip()),), variables=self._variables, variables_field="--var")
        alias = self._conversation if isinstance(self._conversation, str) else None
        sent = await self._core.chat.send(
            self._who, self._agent, message, conversation=self._conversation, create_as=alias
        )
        self._conversation = sent.conversation.id
        self._run = sent.run_uid
        self._show.begin(sent)
        if self._stopping:
            self.stop()
        try:
            while True:
                for event in sent.reader.take():
                    self._show.event(event)
                    if isinstance(event, RunEnded):
                        return event
                await sent.reader.wait()
        finally:
            self._run = None
            sent.reader.close()

    def stop(self) -> None:
        """Stop the answer in progress, or the one about to start."""
        self._stopping = True
        if self._run is not None:
            self._core.runs.stop(self._run)


def operator(app_id: int) -> Principal:
    """The operator as a caller of the application: without a credential, so without its limits and restrictions."""
    return Principal(key=ApiKey(app=app_id, number=0, dialect="", id="", secret="", enabled=True, settings={}))


def _ref(text: str) -> Ref:
    text = clean(text).strip()
    if not text:
        raise Invalid(
            field="--conversation", rule="required", detail="name the conversation by id, uid or a name of your choice"
        )
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else parse_uid(text) or text


# Core in its own thread ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundCore:
    """Core and its event loop, for use from other threads."""

    core: Core
    loop: asyncio.AbstractEventLoop
    closing: asyncio.Event

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.begin(work).result()

    def call_soon(self, work: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(work)


@contextmanager
def background_core(settings: Settings) -> Generator[BackgroundCore]:
    """Core, open for the duration of the block and then shut down gracefully."""
    ready: Future[Any] = Future()
    with ThreadPoolExecutor(1, thread_name_prefix="core") as pool:
        life: Future[Any] = pool.submit(asyncio.run, _live(settings, ready))
        try:
            wait([ready, life], return_when=FIRST_COMPLETED)
            if not ready.done():
                life.result()
            yield ready.result()
        finally:
            wait([ready, life], return_when=FIRST_COMPLETED)
            if ready.done():
                background: BackgroundCore = ready.result()
                with suppress(RuntimeError):  # the loop has already ended
                    background.call_soon(background.closing.set)
            life.result()


async def _live(settings: Settings, ready: Future[BackgroundCore]) -> None:
    async with open_core(settings) as core:
        background = BackgroundCore(core=core, loop=asyncio.get_running_loop(), closing=asyncio.Event())
        ready.set_result(background)
        await background.closing.wait()
