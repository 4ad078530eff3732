"""A turn on the screen: for people, for a pipe, for programs."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from rich.text import Text as Styled

from palaver.cli.terminal import complain, out, say, say_json
from palaver.cli.words import in_words
from palaver.core.chat import Sent
from palaver.core.events import Added, Event, Grew, Opened
from palaver.core.turn import SEARCH
from palaver.core.types import Agent, Ended, File, Status, Text, Thinking, ToolCall, ToolResult

ONE_LINE = 100
"""Characters of a tool's arguments or result that are shown."""


class Show(Protocol):
    def greeting(self, agent: Agent) -> None: ...

    def begin(self, sent: Sent) -> None: ...

    def event(self, event: Event) -> None: ...

    def parting(self, agent: Agent, conversation: int) -> None: ...


class Words:
    """For people: text as it comes, thinking dimmed, one dim line for every tool call."""

    def __init__(self) -> None:
        self._dim = False
        self._at_start = True
        self._calls: dict[str, ToolCall] = {}

    def greeting(self, agent: Agent) -> None:
        if agent.spec.opening_message:
            say(agent.spec.opening_message.strip())
        for question in agent.spec.suggested_questions:
            say(f"  · {question}", style="dim")

    def begin(self, sent: Sent) -> None:  # noqa: ARG002  people see the answer
        self._calls.clear()

    def event(self, event: Event) -> None:
        match event:
            case Opened(part=part):
                self._break()
                self._dim = isinstance(part, Thinking)
            case Grew(text=text):
                self._write(text)
            case Added(part=ToolCall() as call):
                self._calls[call.call_id] = call
            case Added(part=ToolResult() as result):
                self._break()
                say(f"· {in_one_line(self._calls.get(result.call_id), result)}", style="dim")
            case Added(part=File(ref=ref, name=name)):
                self._break()
                say(f"· {name or ref}", style="dim")
            case Added():
                pass
            case Ended():
                self._break()
                self._end(event)

    def parting(self, agent: Agent, conversation: int) -> None:
        say(f"Continue with: palaver chat {agent.name!r} --conversation {conversation}", style="dim")

    def _write(self, text: str) -> None:
        # A model's text must not steer the terminal.
        out.print(Styled(text.replace("\x1b", ""), style="dim" if self._dim else ""), end="", soft_wrap=True)
        self._at_start = text.endswith("\n")

    def _break(self) -> None:
        if not self._at_start:
            out.print()
        self._at_start = True

    @staticmethod
    def _end(ended: Ended) -> None:
        if ended.problem is not None:
            complain(in_words(ended.problem))
        elif ended.status is Status.STOPPED:
            say("(stopped)", style="dim")
        elif ended.reason == "length":
            say("(cut off: the model's output limit was reached)", style="dim")


class Lines(Words):
    """For a pipe: the answer, nothing else."""

    def greeting(self, agent: Agent) -> None:
        pass

    def parting(self, agent: Agent, conversation: int) -> None:
        pass

    def event(self, event: Event) -> None:
        match event:
            case Added():
                pass
            case Grew() if self._dim:
                pass
            case _:
                super().event(event)


class Events:
    """For programs: one JSON object for every event."""

    def __init__(self) -> None:
        self._open = "text"

    def greeting(self, agent: Agent) -> None:
        pass

    def begin(self, sent: Sent) -> None:
        conversation = {"id": sent.conversation.id, "uid": sent.conversation.uid.hex}
        agent = {"id": sent.agent.id, "uid": sent.agent.uid.hex, "name": sent.agent.name}
        say_json({"type": "begun", "conversation": conversation, "agent": agent, "run": sent.run.hex})

    def event(self, event: Event) -> None:
        match event:
            case Opened(part=part):
                self._open = "text" if isinstance(part, Text) else "thinking"
            case Grew(text=text):
                say_json({"type": self._open, "text": text})
            case Added(part=part):
                say_json(part)
            case Ended():
                say_json(_ended(event))

    def parting(self, agent: Agent, conversation: int) -> None:
        pass


def in_one_line(call: ToolCall | None, result: ToolResult) -> str:
    """A tool call and what came of it."""
    arguments = call.arguments if call is not None else {}
    asked = arguments.get("query") if result.name == SEARCH else None
    said = asked if isinstance(asked, str) else msgspec.json.encode(arguments).decode()
    if result.name == SEARCH and not result.error:
        sources = list(dict.fromkeys(entry["source"] for entry in _passages(result.data)))
        found = f"{len(_passages(result.data))} from {', '.join(sources)}" if sources else "nothing found"
    else:
        found = f"{'failed: ' if result.error else ''}{_short(result.content)}"
    return f"{result.name}({_short(said)}) → {found}"


def _passages(data: Any) -> list[dict[str, Any]]:
    return data if isinstance(data, list) else []  # pyright: ignore[reportUnknownVariableType]  our own search's


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ONE_LINE else f"{line[: ONE_LINE - 1]}…"


def _ended(ended: Ended) -> dict[str, Any]:
    return {
        "type": "ended",
        "status": ended.status,
        "reason": ended.reason,
        "usage": ended.usage,
        "problem": None if ended.problem is None else ended.problem.record(),
    }
