"""A Chat Completions answer: bytes as they arrive become deltas. Values in, values out; no socket.

Endpoints that call themselves compatible differ in every member they may leave out, repeat or set to null. What can
be understood is. An answer is complete when it has words or a call, and a finish reason that is a good one.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from palaver.core.ports.models import ContentDelta, ModelDelta, StepFinished, ThinkingDelta, UsageDelta
from palaver.core.problems import Upstream
from palaver.core.types import Usage, clean
from palaver.models.chunk import Chunk, ChunkDelta, TokenCounts, count, decode, lenient, loads, unreadable
from palaver.models.errors import error_message, excerpt, failure, sentence
from palaver.models.sse import SseEvent, SseParser, SseTooLong
from palaver.models.thinking import Mode, ThinkingSplitter
from palaver.models.tool_calls import POCKET, ToolCallAssembler

LONGEST = 4_194_304
"""Characters of an answer, thinking and arguments included, unless the caller says otherwise."""

_REASONING: dict[str, dict[str, Any]] = {
    # Null stands for the part's own text. Endpoints that reason in one of these members want it back, under the same
    # name, with the tool calls it led to; DeepSeek refuses the next step without.
    name: {POCKET: {name: None}}
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
"""Finish reasons of a whole answer, in all the words there are for it."""
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
"""What gateways that call every end a ``stop`` pass on as the model's own reason."""
_FILTER = frozenset(
    (
        *("content_filter", "content_filtered", "sensitive", "safety", "refusal", "blocked", "blocklist"),
        *("prohibited_content", "recitation", "spii", "guardrail_intervened", "error_toxic"),
    )
)
_KNOWN = _COMPLETE | _LENGTH | _FILTER


class ChatCompletionParser:
    """One answer being read. ``read`` every piece of the stream, then ask ``end`` for the rest.

    ``done`` says that the endpoint has said its last word, ``reason`` is its finish reason (empty so far), ``problem``
    why the answer failed behind the deltas that were given back last; every method raises it from then on.
    ``spoken`` says that the turn has words already, so that the step may do without.
    Problems are ``Upstream``: ``refused`` or ``limit`` for an error inside the stream, ``malformed``, ``cut``.
    """

    __slots__ = (
        *("_calls", "_events", "_half", "_left", "_mend", "_native", "_odd", "_plainly", "_splitter"),
        *("_told", "_usage", "_worded", "done", "problem", "reason"),
    )

    def __init__(self, *, thinking: Mode = "tags", longest: int = LONGEST, spoken: bool = False) -> None:
        self._events = SseParser()
        self._calls = ToolCallAssembler()
        self._usage = self._told = Usage()
        self._splitter: ThinkingSplitter | None = ThinkingSplitter(thinking)
        self._half = ("", "")
        """The first half of a surrogate pair, and the member whose text it ended."""
        self._mend = False
        """Whether the texts of this read may hold half surrogate pairs."""
        self._plainly = False
        """Whether nothing is held back, and there are words: text can only be more of them."""
        self._left = longest
        self._worded = spoken
        self._native = ""
        self._odd: bytes = b""
        """The first event that said nothing of an answer: what an empty one is explained with."""
        self.done = False
        self.problem: Upstream | None = None
        self.reason = ""

    def read(self, data: bytes) -> list[ModelDelta]:
        """The deltas of all events that ``data`` completes. Neighbouring pieces of one kind come joined."""
        if self.problem is not None:
            raise self.problem
        try:
            events = self._events.feed(data)
        except SseTooLong as error:
            raise Upstream(reason="malformed", detail=str(error)) from error
        return self._take(events)

    def end(self, deltas: list[ModelDelta] | None = None) -> list[ModelDelta]:
        """The stream is over: ``deltas``, what was left of it, the tool calls, and ``StepFinished``."""
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
        """``deltas``, the tool calls and ``StepFinished``, whether or not the stream has come to its own end."""
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
        """The deltas of an answer that came as one JSON object, ``StepFinished`` with them."""
        if body.lstrip().startswith((b"data:", b"event:", b":")):
            return self.end(self.read(body))
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            raise unreadable(body)
        if not body.rstrip().endswith(b"}"):
            raise Upstream(reason="cut", detail="the answer ended in the middle of its JSON object")
        spoken: list[tuple[str, str]] = []
        self._chunk(body, spoken)
        deltas = self._deltas(spoken)
        self.done = self.done or bool(self.reason or self._worded or self._calls)
        return self.close(deltas)

    # What arrives ---------------------------------------------------------------------------------------------------

    def _take(self, events: list[SseEvent]) -> list[ModelDelta]:
        spoken: list[tuple[str, str]] = []
        try:
            for event in events:
                if event.data[:6] == _DONE:
                    self.done = True
                if self.done:
                    break
                self._event(event, spoken)
        except Upstream as problem:
            return self._failed(problem, self._deltas(spoken) if spoken else [])
        return self._deltas(spoken) if spoken or self._usage is not self._told else []

    def _event(self, event: SseEvent, spoken: list[tuple[str, str]]) -> None:
        if event.name == b"error":
            raise Upstream(reason="refused", detail=error_message(event.data) or "an error without a reason")
        self._chunk(event.data, spoken)

    def _failed(self, problem: Upstream, deltas: list[ModelDelta]) -> list[ModelDelta]:
        if not deltas:
            raise problem
        self.problem = self.problem or problem  # what came before it was said
        return deltas

    def _rest(self) -> list[ModelDelta]:
        try:
            return self._take(self._events.end())
        except Upstream as problem:
            if problem.reason != "malformed":
                raise
            if not self.reason:
                raise Upstream(reason="cut", detail="the answer ended in the middle of an event") from problem
            return []

    def _chunk(self, data: bytes, spoken: list[tuple[str, str]]) -> None:
        try:
            chunk = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            read = self._leniently(data)
            if read is None:
                return
            chunk = read
        if chunk.error or chunk.base_resp or not chunk.choices:
            self._look(chunk, data)
        if chunk.usage is not None:
            self._count(chunk.usage)
        for choice in chunk.choices or ():
            if choice is None or choice.index:
                continue  # one choice is asked for; whatever else comes is not ours
            if (said := choice.delta) is not None:
                self._words(said, spoken)
            if (said := choice.message) is not None and choice.delta is None:
                self._words(said, spoken)
            if choice.error:
                raise _refused(choice.error)
            if choice.finish_reason:
                self.reason = choice.finish_reason
                self._native = choice.native_finish_reason or self._native
            if choice.usage is not None:
                self._count(choice.usage)

    def _leniently(self, data: bytes) -> Chunk | None:
        chunk = lenient(data)
        if chunk is None:
            if data.strip() == _DONE:
                self.done = True
            else:
                self._odd = self._odd or data[:4096].strip()
            return None
        self._mend = True
        return chunk

    def _look(self, chunk: Chunk, data: bytes) -> None:
        """Raise what a chunk says that is no piece of an answer, or remember it for when nothing better comes."""
        if chunk.error:
            raise _refused(chunk.error)
        if why := failure(loads(data), complete=bool(self.reason)):
            raise Upstream(reason="refused", detail=excerpt(why))
        if not chunk.choices and chunk.usage is None:
            self._odd = self._odd or data[:4096]

    def _words(self, said: ChunkDelta, spoken: list[tuple[str, str]]) -> None:
        # Some endpoints send the same reasoning under both names, for readers of either.
        if said.reasoning_content:
            spoken.append(("reasoning_content", said.reasoning_content))
        elif said.reasoning and isinstance(said.reasoning, str):
            spoken.append(("reasoning", said.reasoning))
        if content := said.content:
            if isinstance(content, str):
                spoken.append(("", content))
            else:
                spoken.extend(_texts(content))
        if said.refusal:
            spoken.append(("", said.refusal))
        for piece in said.tool_calls or ():
            if piece is not None:
                self._left -= self._calls.add(piece)
                if self._left < 0:
                    raise Upstream(
                        reason="malformed", detail="a tool call's arguments are longer than an answer may be"
                    )

    def _count(self, tokens: TokenCounts) -> None:
        usage = Usage(
            prompt=count(tokens.prompt_tokens, self._usage.prompt),
            completion=count(tokens.completion_tokens, self._usage.completion),
        )
        if usage != self._usage:
            self._usage = usage

    # What is given out ----------------------------------------------------------------------------------------------

    def _deltas(self, spoken: list[tuple[str, str]]) -> list[ModelDelta]:
        """The texts as deltas, and the usage if it has changed."""
        if len(spoken) == 1 and self._plainly and self._usage is self._told:
            member, text = spoken[0]
            size = len(text)
            if not (member or self._mend) and size <= self._left and "\0" not in text:  # nearly every read is this
                self._left -= size
                return [ContentDelta(text=text)]
        deltas: list[ModelDelta] = []
        for member, text in _joined(spoken):
            if self._mend or self._half[1]:
                self._mended(member, text, deltas)
            else:
                self._say(member, clean(text) if "\0" in text else text, deltas)
        self._mend = False
        self._plainly = self._splitter is None and self._worded and not self._half[1]
        if self._usage is not self._told:
            self._told = self._usage
            deltas.append(UsageDelta(usage=self._usage))
        return deltas

    def _mended(self, member: str, text: str, deltas: list[ModelDelta]) -> None:
        """Halves of surrogate pairs are joined, also across deltas; one without the other cannot be stored."""
        before, half = self._half
        if half and before != member:
            self._say(before, clean(half), deltas)
            half = ""
        text = half + text
        self._half = ("", "")
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._half, text = (member, text[-1]), text[:-1]
        self._say(member, clean(text), deltas)

    def _say(self, member: str, text: str, deltas: list[ModelDelta]) -> None:
        if len(text) > self._left:
            text = text[: self._left]
            self.reason, self.done = "length", True
        self._left -= len(text)
        if not text:
            return
        if member:
            deltas.append(ThinkingDelta(text=text, provider_data=_REASONING.get(member)))
        elif self._splitter is None:
            self._worded = self._worded or not text.isspace()
            deltas.append(ContentDelta(text=text))
        else:
            self._split(self._splitter.feed(text), deltas)
            if self._splitter.settled:
                self._splitter = None

    def _split(self, pieces: list[tuple[bool, str]], deltas: list[ModelDelta]) -> None:
        for thinks, text in pieces:
            self._worded = self._worded or not (thinks or text.isspace())
            deltas.append(ThinkingDelta(text=text) if thinks else ContentDelta(text=text))

    def _held_back(self) -> list[ModelDelta]:
        deltas: list[ModelDelta] = []
        member, half = self._half
        if half:
            self._half = ("", "")
            self._say(member, clean(half), deltas)
        if self._splitter is not None:
            self._split(self._splitter.end(), deltas)
            self._splitter = None
        return deltas

    # How it ends ----------------------------------------------------------------------------------------------------

    def _outcome(self, calls: bool) -> str:
        """The finish reason of an answer that is complete, in OpenAI's words. Raises what it has failed with."""
        reason, native = _plain(self.reason), _plain(self._native)
        if not reason and not self.done:
            raise self._silent("the answer ended without a finish reason", "cut")
        if native in _FAILED or (reason and reason not in _KNOWN):
            raise self._silent(f"the answer ended with the finish reason {excerpt(native or reason)!r}", "refused")
        if not self._worded and not calls:
            ended = f" (finish reason {excerpt(native or reason)!r})" if reason else ""
            raise self._silent(f"the answer is empty{ended}", "cut" if reason in _LENGTH or not reason else "refused")
        if reason in _LENGTH:
            return "length"
        if reason in _FILTER:
            return "content_filter"
        return "tool_calls" if calls else "stop"

    def _silent(self, what: str, reason: Any) -> Upstream:
        """The problem of an answer that is none, with whatever its endpoint has said instead."""
        odd = self._odd or self._events.stray
        if not odd:
            return Upstream(reason=reason, detail=what)
        if not (self._worded or self.reason or self.done or odd.startswith(b"{")):
            return unreadable(odd)
        return Upstream(reason=reason, detail=f"{what}; the endpoint says: {error_message(odd)}")


def _plain(reason: str) -> str:
    return reason.strip().lower().replace("-", "_").replace(" ", "_")


def _refused(error: Any) -> Upstream:
    code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
    detail = excerpt(sentence(error) or str(cast("Any", error)))
    if code in {429, "429"}:
        return Upstream(reason="limit", status=429, detail=detail)
    return Upstream(reason="refused", detail=detail)


def _texts(parts: list[Any]) -> list[tuple[str, str]]:
    """The texts of a content list: ``{"type": "text", "text": …}``, Mistral's ``{"type": "thinking", …}``."""
    found: list[tuple[str, str]] = []
    for part in parts:
        match part:
            case str() if part:
                found.append(("", part))
            case {"type": "thinking" | "reasoning" as kind, **members}:
                inner: Any = members.get(kind, members.get("text"))
                texts = cast("list[Any]", inner if isinstance(inner, list) else [inner])
                found.extend(("thinking", text) for _, text in _texts(texts))
            case {"text": str(text)} if text:
                found.append(("", text))
            case _:
                pass
    return found


def _joined(spoken: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbouring texts of one member as one."""
    found: list[tuple[str, list[str]]] = []
    for member, text in spoken:
        if not found or found[-1][0] != member:
            found.append((member, []))
        found[-1][1].append(text)
    return [(member, "".join(texts)) for member, texts in found]
