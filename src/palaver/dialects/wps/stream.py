"""Encodes a run's events as the vendor's messages: a JSON object and two newlines each, in one write unless very long.

Source: the vendor's page, and the wire specification ``wps.md``, section 5. Clients show the text of the latest
``add_message``, which repeats the whole answer. To avoid resending a long answer for every word, these messages are at
least ``partial_every_ms`` apart while the answer grows.

A Langflow page appends a token 10 ms late, but replaces its text on an ``add_message`` at once. To keep it from
appending text that a message already contained, a message follows the tokens it repeats by at least ``token_gap_ms``,
counted from when they were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal, assert_never

from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.types import Agent, Message, RunEnded, Text, derived_uid
from palaver.dialects.wps.content_blocks import WpsContentBlocks, dumps, joined, milliseconds
from palaver.dialects.wps.errors import failure_reason
from palaver.dialects.wps.responses import local_time
from palaver.wire.framing import EscapedText, ascii_text

OUTPUT_LENGTH = 2000
PAGE_PAUSE_S = 0.45
"""A Langflow page shows the first node as busy for 0.3 s, then handles everything received meanwhile at once. The rest
is a margin for pages that start slowly."""
_PROPERTIES = (
    '{"text_color": null, "background_color": null, "edited": false, "source": {"id": null, "display_name": null,'
    ' "source": null}, "icon": "%s", "allow_markdown": false, "positive_feedback": null, "state": "%s", "targets": []}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WpsStreamOptions:
    """A credential's stream settings."""

    zone: tzinfo = UTC
    partial_every_s: float = 0.1
    data_prefix: bool = False
    error_event: bool = False
    tokens: bool = True
    token_gap_s: float = 0.03


class WpsEncoder:
    """Encodes one run. ``session`` is the session id as the caller sees it."""

    aborts_on_failure = False
    always_heartbeat = False

    def __init__(
        self, session: str, agent: Agent, question: Message, answer: Message, options: WpsStreamOptions
    ) -> None:
        self._prefix = "data: " if options.data_prefix else ""
        self._options = options
        self._session = ascii_text(session)
        self._agent = agent
        self._question = question
        self._began = milliseconds(answer)
        self._answer = answer.uid
        self._chat = str(answer.uid)
        self._text = EscapedText()
        self._output = ""
        self._steps = WpsContentBlocks(question.text, self._began)
        self._head = self._message_head(answer, "Machine", "Agent")
        self._tail = f', "id": "{self._chat}", "flow_id": "{agent.uid}", "chat_id": "{self._chat}"}}'
        self._answering = True
        self._begun = False
        self._began_at = 0.0
        self._pending = False
        self._partial_at = 0.0
        self._gap_s = options.token_gap_s if options.tokens and options.partial_every_s else 0.0
        self._quiet_until = 0.0
        self._unwritten: set[Literal["beginning", "token"]] = set()
        self._held: list[str] = []
        self._ended: RunEnded | None = None
        self._second = (0, "")
        # A run that starts at once sends its opening, with the chat_id needed to cancel it, before the model answers.
        self.flush_at: float | None = None if answer.waiting else 0.0

    @property
    def heartbeat(self) -> bytes:
        return b": ping\n\n" if self._options.data_prefix else b"\n\n"

    def encode(self, event: Event, now: float) -> list[bytes]:
        writes = self.flush(now)
        match event:
            case TextDelta(text=text):
                if not self._answering:
                    self._steps.thinking.add(text)
                    return writes
                return [*writes, *self._grown(text, now)]
            case PartStarted(part=part):
                self._answering = isinstance(part, Text)
                return writes
            case PartFinished():
                return writes
            case PartAdded(part=part):
                return [*writes, *self._partial(now)] if self._steps.add(part) else writes
            case RunEnded():
                return [*writes, *self._ending(event, now)]
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:
        writes = self._beginning(now)
        if self.flush_at is None or self.flush_at > now:
            return writes
        if self._ended is not None:
            return [*writes, *self._end(self._ended)]
        return [*writes, *self._growing(now), *self._released(now)]

    def on_written(self, now: float) -> None:
        """Intervals count from when the bytes were written, not from when they were encoded."""
        if "beginning" in self._unwritten:
            self._began_at = now
        if "token" in self._unwritten:
            self._quiet_until = self._quiet_after(now)
            if self.flush_at is not None:
                self.flush_at = max(self.flush_at, self._quiet_until)
        self._unwritten.clear()

    # The beginning --------------------------------------------------------------------------------------------------

    def _beginning(self, now: float) -> list[bytes]:
        """Steps 1 to 4, once."""
        if self._begun:
            return []
        self._begun, self._began_at = True, now
        self._unwritten.add("beginning")
        first, second, third = self._nodes()
        question = self._question
        text = ascii_text(question.text)[1:-1]
        files = dumps([file.ref for file in question.files])
        head = self._message_head(question, "User", "User")
        tail = self._tail.replace(self._chat, str(question.uid), 1)
        user = f'{head}{text}", "files": {files}, {self._state("complete", icon="")}[]{tail}'
        return [
            *self._write("vertices_sorted", dumps({"ids": [first], "to_run": [first, second, third]})),
            *self._write("add_message", user),
            *self._vertex(0, question.text, at=milliseconds(question), took=0),
            *self._growing(now),
        ]

    def _nodes(self) -> tuple[str, str, str]:
        mark = self._agent.uid.hex[:5]
        return f"ChatInput-{mark}", f"Agent-{mark}", f"ChatOutput-{mark}"

    # The middle -----------------------------------------------------------------------------------------------------

    def _grown(self, text: str, now: float) -> list[bytes]:
        """Extend the answer: sends a token, unless a pending message is due so soon that it must go first."""
        if self._pending and self.flush_at is not None and self._quiet_after(now) > self.flush_at:
            self._held.append(text)
            return []
        return [*self._token(text, now), *self._partial(now)]

    def _released(self, now: float) -> list[bytes]:
        """The text held back for a pending message, as one token."""
        text = "".join(self._held)
        self._held.clear()
        return [*self._token(text, now), *self._partial(now)] if text else []

    def _token(self, text: str, now: float) -> list[bytes]:
        if len(self._output) < OUTPUT_LENGTH:
            self._output += text[:OUTPUT_LENGTH]
        chunk = self._text.add(text).decode("ascii")
        if not self._options.tokens:
            return []
        self._quiet_until = self._quiet_after(now)
        self._unwritten.add("token")
        data = (
            f'{{"chunk": {chunk}, "id": "{self._chat}", "timestamp": "{self._stamp(now)}", "chat_id": "{self._chat}"}}'
        )
        return self._write("token", data)

    def _quiet_after(self, now: float) -> float:
        """The time before which no message may repeat a token sent now."""
        return max(now, self._began_at + PAGE_PAUSE_S) + self._gap_s if self._gap_s else now

    def _stamp(self, now: float) -> str:
        if self._second[0] != int(now):
            self._second = int(now), datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return self._second[1]

    def _partial(self, now: float) -> list[bytes]:
        """Send the message as it is now, or schedule it for when it is due."""
        self._pending = True
        self.flush_at = max(self._partial_at + self._options.partial_every_s, self._quiet_until)
        return self._growing(now) if self.flush_at <= now or not self._options.partial_every_s else []

    def _growing(self, now: float) -> list[bytes]:
        self._pending, self.flush_at, self._partial_at = False, None, now
        return self._write("add_message", *self._message("partial", self._steps.partial()))

    # The end --------------------------------------------------------------------------------------------------------

    def _ending(self, ended: RunEnded, now: float) -> list[bytes]:
        """End the stream now, or once the last token is old enough."""
        writes = self._released(now)
        self._pending, self._ended, self.flush_at = False, ended, self._quiet_until
        return writes if now < self._quiet_until else [*writes, *self._end(ended)]

    def _end(self, ended: RunEnded) -> list[bytes]:
        self.flush_at = None
        failed = ended.status.failed
        message = self._message("complete", self._steps.complete(self._text, ended), failed=failed)
        took = max(0, ended.at - self._began)
        writes = self._write("add_message", *message)
        if failed:
            if self._options.error_event:
                writes += self._write("error", *self._problem(ended))
            writes += self._vertex(1, self._output, at=ended.at, took=took, reason=failure_reason(ended.problem))
        else:
            writes += self._vertex(1, self._output, at=ended.at, took=took)
            writes += self._vertex(2, self._output, at=ended.at, took=0)
        return [*writes, *self._write("end", "{}")]

    # Formats --------------------------------------------------------------------------------------------------------

    def _write(self, event: str, *data: str | EscapedText) -> list[bytes]:
        return joined((f'{self._prefix}{{"event": "{event}", "data": ', *data, "}\n\n"))

    def _message_head(self, message: Message, sender: str, name: str) -> str:
        made = local_time(message.created, self._options.zone)
        return (
            f'{{"timestamp": "{made}", "sender": "{sender}", "sender_name": "{name}",'
            f' "session_id": {self._session}, "text": "'
        )

    def _message(
        self, state: str, blocks: Iterable[str | EscapedText], *, failed: bool = False
    ) -> tuple[str | EscapedText, ...]:
        written = self._state(state, icon="Bot", failed=failed)
        return (self._head, self._text, f'", "files": [], {written}', *blocks, self._tail)

    @staticmethod
    def _state(state: str, *, icon: str, failed: bool = False) -> str:
        """The members between a message's files and its content blocks."""
        error, category = ("true", "error") if failed else ("false", "message")
        properties = _PROPERTIES % (icon, state)
        return (
            f'"error": {error}, "edit": false, "properties": {properties}, "category": "{category}", "content_blocks": '
        )

    def _problem(self, ended: RunEnded) -> tuple[str | EscapedText, ...]:
        """A failed run's message again, as a separate message with the reason as its text."""
        written = self._state("complete", icon="Bot", failed=True)
        blocks = self._steps.complete(self._text, ended)
        tail = self._tail.replace(self._chat, str(derived_uid(self._answer, "error")), 1)
        reason = ascii_text(failure_reason(ended.problem))[1:-1]
        return (self._head, reason, f'", "files": [], {written}', *blocks, tail)

    def _vertex(self, at_node: int, text: str, *, at: int, took: int, reason: str | None = None) -> list[bytes]:
        """Report a node as done; as failed if there is a ``reason``."""
        nodes = self._nodes()
        message = (
            {"message": text[:OUTPUT_LENGTH], "type": "text"}
            if reason is None
            else {"message": {"errorMessage": reason, "stackTrace": ""}, "type": "error"}
        )
        data = {
            "results": {},
            "outputs": {"message": message},
            "logs": {},
            "message": {},
            "artifacts": {},
            "timedelta": took / 1000,
            "duration": duration(took),
            "used_frozen_result": False,
        }
        made = datetime.fromtimestamp(at // 1000, UTC).replace(microsecond=at % 1000 * 1000)
        build = {
            "id": nodes[at_node],
            "inactivated_vertices": [],
            "next_vertices_ids": list(nodes[at_node + 1 : at_node + 2]) if reason is None else [],
            "top_level_vertices": [],
            "valid": reason is None,
            "params": "",
            "data": data,
            "timestamp": made.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        }
        return self._write("end_vertex", dumps({"build_data": build}))


def duration(milliseconds: int) -> str:
    """A readable duration: ``12 ms``, ``3.4 seconds``, ``1 minute, 2.5 seconds``."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    minutes, tenths = divmod((milliseconds + 50) // 100, 600)
    seconds = f"{tenths // 10}.{tenths % 10} second{'' if tenths == 10 else 's'}"
    return f"{minutes} minute{'' if minutes == 1 else 's'}, {seconds}" if minutes else seconds
