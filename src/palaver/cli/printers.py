"""Prints a turn: for a terminal, for a pipe, or as JSON."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from rich.text import Text as Styled

from palaver.cli.errors import describe_problem
from palaver.cli.terminal import out, print_error, print_json, print_line
from palaver.core.chat import Turn
from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import Agent, File, RunEnded, Status, Text, Thinking, ToolCall, ToolResult

ONE_LINE = 100
"""Maximum characters of a tool's arguments or result to print."""


class TurnPrinter(Protocol):
    def greeting(self, agent: Agent) -> None: ...

    def begin(self, sent: Turn) -> None: ...

    def event(self, event: Event) -> None: ...

    def parting(self, agent: Agent, conversation_id: int) -> None: ...


class TerminalPrinter:
    """For a terminal: text as it arrives, thinking dimmed, one dim line per tool call."""

    def __init__(self) -> None:
        self._dim = False
        self._at_start = True
        self._calls: dict[str, ToolCall] = {}

    def greeting(self, agent: Agent) -> None:
        if agent.spec.opening_message:
            print_line(agent.spec.opening_message.strip())
        for question in agent.spec.suggested_questions:
            print_line(f"  · {question}", style="dim")

    def begin(self, sent: Turn) -> None:  # noqa: ARG002  people see the answer
        self._calls.clear()

    def event(self, event: Event) -> None:
        match event:
            case PartStarted(part=part):
                self._break()
                self._dim = isinstance(part, Thinking)
            case TextDelta(text=text):
                self._write(text)
            case PartFinished():
                pass
            case PartAdded(part=ToolCall() as call):
                self._calls[call.call_id] = call
            case PartAdded(part=ToolResult() as result):
                self._break()
                print_line(f"· {in_one_line(self._calls.get(result.call_id), result)}", style="dim")
            case PartAdded(part=File(ref=ref, name=name)):
                self._break()
                print_line(f"· {name or ref}", style="dim")
            case PartAdded():
                pass
            case RunEnded():
                self._break()
                self._end(event)

    def parting(self, agent: Agent, conversation_id: int) -> None:
        print_line(f"Continue with: palaver chat {agent.name!r} --conversation {conversation_id}", style="dim")

    def _write(self, text: str) -> None:
        # A model's text must not control the terminal.
        out.print(Styled(text.replace("\x1b", ""), style="dim" if self._dim else ""), end="", soft_wrap=True)
        self._at_start = text.endswith("\n")

    def _break(self) -> None:
        if not self._at_start:
            out.print()
        self._at_start = True

    @staticmethod
    def _end(ended: RunEnded) -> None:
        if ended.problem is not None:
            print_error(describe_problem(ended.problem))
        elif ended.status is Status.STOPPED:
            print_line("(stopped)", style="dim")
        elif ended.reason == "length":
            print_line("(cut off: the model's output limit was reached)", style="dim")


class PlainPrinter(TerminalPrinter):
    """For a pipe: only the answer."""

    def greeting(self, agent: Agent) -> None:
        pass

    def parting(self, agent: Agent, conversation_id: int) -> None:
        pass

    def event(self, event: Event) -> None:
        match event:
            case PartAdded():
                pass
            case TextDelta() if self._dim:
                pass
            case _:
                super().event(event)


class JsonPrinter:
    """For programs: one JSON object per event."""

    def __init__(self) -> None:
        self._open = "text"

    def greeting(self, agent: Agent) -> None:
        pass

    def begin(self, sent: Turn) -> None:
        conversation = {"id": sent.conversation.id, "uid": sent.conversation.uid.hex}
        agent = {"id": sent.agent.id, "uid": sent.agent.uid.hex, "name": sent.agent.name}
        print_json({"type": "begun", "conversation": conversation, "agent": agent, "run": sent.run_uid.hex})

    def event(self, event: Event) -> None:
        match event:
            case PartStarted(part=part):
                self._open = "text" if isinstance(part, Text) else "thinking"
            case TextDelta(text=text):
                print_json({"type": self._open, "text": text})
            case PartFinished():
                pass
            case PartAdded(part=part):
                print_json(part)
            case RunEnded():
                print_json(_ended(event))

    def parting(self, agent: Agent, conversation_id: int) -> None:
        pass


def in_one_line(call: ToolCall | None, result: ToolResult) -> str:
    """A tool call and its result."""
    arguments = call.arguments if call is not None else {}
    query = arguments.get("query") if result.name == SEARCH_TOOL else None
    shown = query if isinstance(query, str) else msgspec.json.encode(arguments).decode()
    if result.name == SEARCH_TOOL and not result.error:
        sources = list(dict.fromkeys(entry["source"] for entry in _passages(result.data)))
        outcome = f"{len(_passages(result.data))} from {', '.join(sources)}" if sources else "nothing found"
    else:
        outcome = f"{'failed: ' if result.error else ''}{_short(result.content)}"
    return f"{result.name}({_short(shown)}) → {outcome}"


def _passages(data: Any) -> list[dict[str, Any]]:
    return data if isinstance(data, list) else []  # pyright: ignore[reportUnknownVariableType]  our own search's


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ONE_LINE else f"{line[: ONE_LINE - 1]}…"


def _ended(ended: RunEnded) -> dict[str, Any]:
    return {
        "type": "ended",
        "status": ended.status,
        "reason": ended.reason,
        "usage": ended.usage,
        "problem": None if ended.problem is None else ended.problem.to_dict(),
    }
