"""Parses a Chat Completions answer: bytes in as they arrive, deltas out. No I/O.

Endpoints that call themselves compatible differ in every member they may omit, repeat or set to null; the parser
accepts whatever it can understand. An answer is complete when it has text or a tool call, and a finish reason that
does not mean failure.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from palaver.core.ports.models import ContentDelta, ModelDelta, StepFinished, ThinkingDelta, UsageDelta
from palaver.core.problems import Upstream
from palaver.core.types import Usage, clean
from palaver.models.chunk import (
    Chunk,
    ChunkDelta,
    TokenCounts,
    decode,
    decode_leniently,
    lenient_loads,
    malformed_chunk,
    valid_count,
)
from palaver.models.errors import error_message, excerpt, failure_message, find_message
from palaver.models.sse import SseEvent, SseParser, SseTooLong
from palaver.models.thinking import Mode, ThinkingSplitter
from palaver.models.tool_calls import PROVIDER_KEY, ToolCallAssembler

LONGEST = 4_194_304
"""Default limit of an answer in characters, thinking and arguments included."""

_REASONING: dict[str, dict[str, Any]] = {
    # Null stands for the part's own text. Endpoints that reason in one of these members expect it back, under the same
    # name, with the tool calls it led to; DeepSeek rejects the next step without it.
    name: {PROVIDER_KEY: {name: None}}
    for name in ("reasoning_content", "reasoning")
}
_DONE = b"[DONE]"
_COMPLETE = frozenset(
    (
        *("stop", "end", "done", "complete", "completed", "finished", "normal"),
        *("eos", "eos_token", "end_turn", "stop_sequence", "stop_token"),
        *("tool_calls", "tool_call", "tool_use", "function_call"),
    )
)
"""Finish reasons of a complete answer, in every known spelling."""
_LENGTH = frozenset(
    (
        *("length", "max_tokens", "max_length", "max_output_tokens", "max_completion_tokens", "model_length"),
        *("model_context_window_exceeded", "context_length_exceeded", "context_length", "truncated"),
    )
)
_FAILED = frozenset(
    (
        *("error", "network_error", "internal_error", "server_error", "failed", "timeout", "overloaded"),
        *("abort", "aborted", "cancelled", "canceled", "insufficient_system_resource"),
        *("malformed_function_call", "unexpected_tool_call", "malformed_response"),
    )
)
"""Failures that gateways report only as ``native_finish_reason``, with ``stop`` as the finish reason."""
_FILTER = frozenset(
    (
        *("content_filter", "content_filtered", "sensitive", "safety", "refusal", "blocked", "blocklist"),
        *("prohibited_content", "recitation", "spii", "guardrail_intervened", "error_toxic"),
    )
)
_KNOWN = _COMPLETE | _LENGTH | _FILTER


class ChatCompletionParser:
    """Incremental parser of one answer. Call ``read`` with each piece of the stream, then ``end``.

    ``done``: the endpoint has ended the answer. ``reason``: its finish reason, empty until known. ``problem``: why the
    answer failed after the deltas returned last; every later call raises it.
    ``spoken``: the turn already has text, so this step may have none.
    Problems are ``Upstream``: ``refused`` or ``limit`` for an error inside the stream, ``malformed``, ``cut``.
    """

    __slots__ = (
        *("_calls", "_events", "_has_text", "_native", "_plain_text", "_remaining", "_sent_usage", "_splitter"),
        *("_stray_event", "_surrogate", "_unclean", "_usage", "done", "problem", "reason"),
    )

    def __init__(self, *, thinking: Mode = "tags", longest: int = LONGEST, spoken: bool = False) -> None:
        self._events = SseParser()
        self._calls = ToolCallAssembler()
        self._usage = self._sent_usage = Usage()
        self._splitter: ThinkingSplitter | None = ThinkingSplitter(thinking)
        self._surrogate = ("", "")
        """The member whose text ended with the first half of a surrogate pair, and that half."""
        self._unclean = False
        """Whether the texts of this read may hold lone surrogates."""
        self._plain_text = False
        """Whether nothing is held back and the answer has text: any further text is plain content."""
        self._remaining = longest
        self._has_text = spoken
        self._native = ""
        self._stray_event: bytes = b""
        """The first event that is not part of an answer; explains an empty answer."""
        self.done = False
        self.problem: Upstream | None = None
        self.reason = ""

    def read(self, data: bytes) -> list[ModelDelta]:
        """Return the deltas of all events that ``data`` completes, adjacent texts of one kind joined."""
        if self.problem is not None:
            raise self.problem
        try:
            events = self._events.feed(data)
        except SseTooLong as error:
            raise Upstream(reason="malformed", detail=str(error)) from error
        return self._read_events(events)

    def end(self, deltas: list[ModelDelta] | None = None) -> list[ModelDelta]:
        """The stream has ended: return ``deltas``, the buffered rest, the tool calls and ``StepFinished``."""
        if self.problem is not None:
            raise self.problem
        deltas = deltas or []
        try:
            if not self.done:
                deltas += self._rest()
            return self.close(deltas)
        except Upstream as problem:
            return self._failed(problem, deltas)

    def close(self, deltas: list[ModelDelta]) -> list[ModelDelta]:
        """Return ``deltas``, the tool calls and ``StepFinished``, whether or not the stream has ended."""
        if self.problem is not None:
            return deltas
        deltas += self._held_back()
        try:
            calls = self._calls.finished()
            reason = self._outcome(bool(calls))
        except Upstream as problem:
            return self._failed(problem, deltas)
        return [*deltas, *calls, StepFinished(reason=reason, usage=self._usage)]

    def whole(self, body: bytes) -> list[ModelDelta]:
        """Return the deltas of an answer that came as one JSON object, ``StepFinished`` included."""
        if body.lstrip().startswith((b"data:", b"event:", b":")):
            return self.end(self.read(body))
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            raise malformed_chunk(body)
        if not body.rstrip().endswith(b"}"):
            raise Upstream(reason="cut", detail="the answer ended in the middle of its JSON object")
        texts: list[tuple[str, str]] = []
        self._chunk(body, texts)
        deltas = self._deltas(texts)
        self.done = self.done or bool(self.reason or self._has_text or self._calls)
        return self.close(deltas)

    # Input ----------------------------------------------------------------------------------------------------------

    def _read_events(self, events: list[SseEvent]) -> list[ModelDelta]:
        texts: list[tuple[str, str]] = []
        try:
            for event in events:
                if event.data[:6] == _DONE:
                    self.done = True
                if self.done:
                    break
                self._event(event, texts)
        except Upstream as problem:
            return self._failed(problem, self._deltas(texts) if texts else [])
        return self._deltas(texts) if texts or self._usage is not self._sent_usage else []

    def _event(self, event: SseEvent, texts: list[tuple[str, str]]) -> None:
        if event.name == b"error":
            raise Upstream(reason="refused", detail=error_message(event.data) or "an error without a reason")
        self._chunk(event.data, texts)

    def _failed(self, problem: Upstream, deltas: list[ModelDelta]) -> list[ModelDelta]:
        if not deltas:
            raise problem
        self.problem = self.problem or problem  # the deltas before it have been sent
        return deltas

    def _rest(self) -> list[ModelDelta]:
        try:
            return self._read_events(self._events.end())
        except Upstream as problem:
            if problem.reason != "malformed":
                raise
            if not self.reason:
                raise Upstream(reason="cut", detail="the answer ended in the middle of an event") from problem
            return []

    def _chunk(self, data: bytes, texts: list[tuple[str, str]]) -> None:
        try:
            chunk = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lenient_chunk = self._leniently(data)
            if lenient_chunk is None:
                return
            chunk = lenient_chunk
        if chunk.error or chunk.base_resp or not chunk.choices:
            self._check_error(chunk, data)
        if chunk.usage is not None:
            self._count(chunk.usage)
        for choice in chunk.choices or ():
            if choice is None or choice.index:
                continue  # one choice is requested; ignore any other
            if (delta := choice.delta) is not None:
                self._read_delta(delta, texts)
            if (delta := choice.message) is not None and choice.delta is None:
                self._read_delta(delta, texts)
            if choice.error:
                raise _refused(choice.error)
            if choice.finish_reason:
                self.reason = choice.finish_reason
                self._native = choice.native_finish_reason or self._native
            if choice.usage is not None:
                self._count(choice.usage)

    def _leniently(self, data: bytes) -> Chunk | None:
        chunk = decode_leniently(data)
        if chunk is None:
            if data.strip() == _DONE:
                self.done = True
            else:
                self._stray_event = self._stray_event or data[:4096].strip()
            return None
        self._unclean = True
        return chunk

    def _check_error(self, chunk: Chunk, data: bytes) -> None:
        """Raise the error that a chunk reports, or keep a chunk without content to explain an empty answer."""
        if chunk.error:
            raise _refused(chunk.error)
        if why := failure_message(lenient_loads(data), complete=bool(self.reason)):
            raise Upstream(reason="refused", detail=excerpt(why))
        if not chunk.choices and chunk.usage is None:
            self._stray_event = self._stray_event or data[:4096]

    def _read_delta(self, delta: ChunkDelta, texts: list[tuple[str, str]]) -> None:
        # Some endpoints send the same reasoning under both names, for clients of either.
        if delta.reasoning_content:
            texts.append(("reasoning_content", delta.reasoning_content))
        elif delta.reasoning and isinstance(delta.reasoning, str):
            texts.append(("reasoning", delta.reasoning))
        if content := delta.content:
            if isinstance(content, str):
                texts.append(("", content))
            else:
                texts.extend(_texts(content))
        if delta.refusal:
            texts.append(("", delta.refusal))
        for fragment in delta.tool_calls or ():
            if fragment is not None:
                self._remaining -= self._calls.add(fragment)
                if self._remaining < 0:
                    raise Upstream(
                        reason="malformed", detail="a tool call's arguments are longer than an answer may be"
                    )

    def _count(self, tokens: TokenCounts) -> None:
        usage = Usage(
            prompt=valid_count(tokens.prompt_tokens, self._usage.prompt),
            completion=valid_count(tokens.completion_tokens, self._usage.completion),
        )
        if usage != self._usage:
            self._usage = usage

    # Output ---------------------------------------------------------------------------------------------------------

    def _deltas(self, texts: list[tuple[str, str]]) -> list[ModelDelta]:
        """Return the texts as deltas, and the usage if it has changed."""
        if len(texts) == 1 and self._plain_text and self._usage is self._sent_usage:
            member, text = texts[0]
            size = len(text)
            if not (member or self._unclean) and size <= self._remaining and "\0" not in text:  # nearly every read
                self._remaining -= size
                return [ContentDelta(text=text)]
        deltas: list[ModelDelta] = []
        for member, text in _joined(texts):
            if self._unclean or self._surrogate[1]:
                self._emit_repaired(member, text, deltas)
            else:
                self._emit(member, clean(text) if "\0" in text else text, deltas)
        self._unclean = False
        self._plain_text = self._splitter is None and self._has_text and not self._surrogate[1]
        if self._usage is not self._sent_usage:
            self._sent_usage = self._usage
            deltas.append(UsageDelta(usage=self._usage))
        return deltas

    def _emit_repaired(self, member: str, text: str, deltas: list[ModelDelta]) -> None:
        """Join the halves of surrogate pairs, also across deltas: a lone one cannot be stored."""
        surrogate_member, surrogate = self._surrogate
        if surrogate and surrogate_member != member:
            self._emit(surrogate_member, clean(surrogate), deltas)
            surrogate = ""
        text = surrogate + text
        self._surrogate = ("", "")
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._surrogate, text = (member, text[-1]), text[:-1]
        self._emit(member, clean(text), deltas)

    def _emit(self, member: str, text: str, deltas: list[ModelDelta]) -> None:
        if len(text) > self._remaining:
            text = text[: self._remaining]
            self.reason, self.done = "length", True
        self._remaining -= len(text)
        if not text:
            return
        if member:
            deltas.append(ThinkingDelta(text=text, provider_data=_REASONING.get(member)))
        elif self._splitter is None:
            self._has_text = self._has_text or not text.isspace()
            deltas.append(ContentDelta(text=text))
        else:
            self._split(self._splitter.feed(text), deltas)
            if self._splitter.settled:
                self._splitter = None

    def _split(self, pieces: list[tuple[bool, str]], deltas: list[ModelDelta]) -> None:
        for thinks, text in pieces:
            self._has_text = self._has_text or not (thinks or text.isspace())
            deltas.append(ThinkingDelta(text=text) if thinks else ContentDelta(text=text))

    def _held_back(self) -> list[ModelDelta]:
        deltas: list[ModelDelta] = []
        member, surrogate = self._surrogate
        if surrogate:
            self._surrogate = ("", "")
            self._emit(member, clean(surrogate), deltas)
        if self._splitter is not None:
            self._split(self._splitter.end(), deltas)
            self._splitter = None
        return deltas

    # End ------------------------------------------------------------------------------------------------------------

    def _outcome(self, calls: bool) -> str:
        """Return the finish reason of a complete answer in OpenAI's terms. Raises ``Upstream`` if it failed."""
        reason, native = _plain(self.reason), _plain(self._native)
        if not reason and not self.done:
            raise self._failure("the answer ended without a finish reason", "cut")
        if native in _FAILED or (reason and reason not in _KNOWN):
            raise self._failure(f"the answer ended with the finish reason {excerpt(native or reason)!r}", "refused")
        if not self._has_text and not calls:
            ended = f" (finish reason {excerpt(native or reason)!r})" if reason else ""
            raise self._failure(f"the answer is empty{ended}", "cut" if reason in _LENGTH or not reason else "refused")
        if reason in _LENGTH:
            return "length"
        if reason in _FILTER:
            return "content_filter"
        return "tool_calls" if calls else "stop"

    def _failure(self, summary: str, reason: Any) -> Upstream:
        """The problem of a missing answer, with whatever the endpoint sent instead."""
        stray = self._stray_event or self._events.stray
        if not stray:
            return Upstream(reason=reason, detail=summary)
        if not (self._has_text or self.reason or self.done or stray.startswith(b"{")):
            return malformed_chunk(stray)
        return Upstream(reason=reason, detail=f"{summary}; the endpoint says: {error_message(stray)}")


def _plain(reason: str) -> str:
    return reason.strip().lower().replace("-", "_").replace(" ", "_")


def _refused(error: Any) -> Upstream:
    code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
    detail = excerpt(find_message(error) or str(cast("Any", error)))
    if code in {429, "429"}:
        return Upstream(reason="limit", status=429, detail=detail)
    return Upstream(reason="refused", detail=detail)


def _texts(parts: list[Any]) -> list[tuple[str, str]]:
    """(member, text) pairs of a content list: ``{"type": "text", "text": …}``, Mistral's ``"type": "thinking"``."""
    result: list[tuple[str, str]] = []
    for part in parts:
        match part:
            case str() if part:
                result.append(("", part))
            case {"type": "thinking" | "reasoning" as kind, **members}:
                inner: Any = members.get(kind, members.get("text"))
                texts = cast("list[Any]", inner if isinstance(inner, list) else [inner])
                result.extend(("thinking", text) for _, text in _texts(texts))
            case {"text": str(text)} if text:
                result.append(("", text))
            case _:
                pass
    return result


def _joined(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join adjacent texts of one member."""
    groups: list[tuple[str, list[str]]] = []
    for member, text in texts:
        if not groups or groups[-1][0] != member:
            groups.append((member, []))
        groups[-1][1].append(text)
    return [(member, "".join(pieces)) for member, pieces in groups]
