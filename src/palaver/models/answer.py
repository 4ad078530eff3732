"""A Chat Completions answer: bytes as they arrive become deltas. Values in, values out; no socket.

Endpoints that call themselves compatible differ in every member they may leave out, repeat or set to null. What can
be understood is; what cannot be is ``Upstream(reason="malformed")``.
"""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

import msgspec

from palaver.core.ports import Call, Delta, Finished, Say, Think
from palaver.core.problems import Upstream
from palaver.core.types import ToolCall, Usage, clean, new_uid
from palaver.models.refusal import excerpt, sentence, words
from palaver.models.sse import Event, Events, TooLong

POCKET = "openai"
"""The member of ``provider_data`` in which this room keeps what an endpoint wants handed back."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _CallPiece(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None


class _Words(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[_CallPiece | None] | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None
    usage: _Tokens | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice | None] | None = None
    usage: _Tokens | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_REASONING: dict[str, dict[str, Any]] = {
    # Null stands for the part's own text. Endpoints that reason in one of these members want it back, under the same
    # name, with the tool calls it led to; DeepSeek refuses the next step without.
    name: {POCKET: {name: None}}
    for name in ("reasoning_content", "reasoning")
}
_DONE = b"[DONE]"


class _Writing:
    """A tool call whose pieces are arriving."""

    __slots__ = ("arguments", "extra", "id", "index", "name")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.extra: Any = None

    def add(self, piece: _CallPiece) -> None:
        self.id = self.id or piece.id or ""
        self.extra = piece.extra_content or self.extra
        if piece.function is None:
            return
        if name := piece.function.name:
            if name.startswith(self.name):
                self.name = name  # the first time, or once more with every piece
            elif not self.arguments:
                self.name += name
        match piece.function.arguments:
            case str(text):
                self.arguments += text
            case None:
                pass
            case whole:
                self.arguments += msgspec.json.encode(whole).decode()

    def whole(self) -> bool:
        return bool(self.arguments) and _object(self.arguments) is not None

    def call(self, taken: set[str]) -> Call:
        arguments = _object(self.arguments) if self.arguments.strip() else {}
        if not self.id or self.id in taken:
            self.id = f"call_{new_uid().hex}"
        taken.add(self.id)
        return Call(
            call=ToolCall(
                call_id=self.id,
                name=self.name,
                arguments=arguments or {},
                malformed=clean(self.arguments) if arguments is None else "",
                provider_data={POCKET: {"extra_content": self.extra}} if self.extra else None,
            )
        )


class Answer:
    """One answer being read. ``read`` every piece of the stream, then ask ``end`` for the rest.

    ``done`` says that the endpoint has said its last word, ``reason`` is its finish reason (empty so far), ``problem``
    why the stream broke behind the deltas that were given back last; every method raises it from then on.
    Problems are ``Upstream``: ``refused`` for an error inside the stream, ``malformed``, ``cut``.
    """

    __slots__ = ("_calls", "_events", "_usage", "done", "problem", "reason")

    def __init__(self) -> None:
        self._events = Events()
        self._calls: list[_Writing] = []
        self._usage = Usage()
        self.done = False
        self.problem: Upstream | None = None
        self.reason = ""

    def read(self, data: bytes) -> list[Delta]:
        """The deltas of all events that ``data`` completes. Neighbouring pieces of one kind come joined."""
        if self.problem is not None:
            raise self.problem
        try:
            events = self._events.feed(data)
        except TooLong as error:
            raise Upstream(reason="malformed", detail=str(error)) from error
        return self._take(events)

    def end(self) -> list[Delta]:
        """The stream is over: what was left of it, the tool calls, and ``Finished``."""
        if self.problem is not None:
            raise self.problem
        deltas: list[Delta] = []
        if not self.done:
            try:
                deltas = self._take(self._events.end())
            except Upstream as problem:
                if problem.reason != "malformed":
                    raise
                if not self.reason:
                    raise Upstream(reason="cut", detail="the answer ended in the middle of an event") from problem
        return deltas + self.close()

    def close(self) -> list[Delta]:
        """The tool calls and ``Finished``, whether or not the stream has come to its own end."""
        if not self.done and not self.reason:
            raise Upstream(reason="cut", detail="the answer ended without a finish reason")
        taken: set[str] = set()
        calls: list[Delta] = [call.call(taken) for call in self._calls if call.name or call.arguments]
        reason = self.reason or "stop"
        if calls and reason in {"stop", "function_call"}:
            reason = "tool_calls"
        return [*calls, Finished(reason=reason, usage=self._usage)]

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that came as one JSON object, ``Finished`` with them."""
        if body.lstrip().startswith((b"data:", b"event:", b":")):
            return self.read(body) + self.end()
        spoken: list[tuple[str, str]] = []
        self._chunk(decode(body), spoken)
        self.done = self.done or bool(self.reason or spoken or self._calls)
        return _joined(spoken) + self.close()

    def _take(self, events: list[Event]) -> list[Delta]:
        spoken: list[tuple[str, str]] = []
        try:
            for event in events:
                if event.data == _DONE:
                    self.done = True
                    break
                self._event(event, spoken)
        except Upstream as problem:
            if not spoken:
                raise
            self.problem = problem  # what came before it was said
        return _joined(spoken) if spoken else []

    def _event(self, event: Event, spoken: list[tuple[str, str]]) -> None:
        if event.name == b"error":
            raise Upstream(reason="refused", detail=words(event.data) or "an error without a reason")
        if event.data and not event.data.isspace():
            self._chunk(decode(event.data), spoken)

    def _chunk(self, chunk: _Chunk, spoken: list[tuple[str, str]]) -> None:
        if chunk.error:
            raise Upstream(reason="refused", detail=excerpt(sentence(chunk.error) or str(chunk.error)))
        if chunk.usage is not None:
            self._count(chunk.usage)
        for choice in chunk.choices or ():
            if choice is None or choice.index:
                continue  # one choice is asked for; whatever else comes is not ours
            said = choice.delta or choice.message
            if said is not None:
                self._words(said, spoken)
            if choice.finish_reason:
                self.reason = choice.finish_reason
            if choice.usage is not None:
                self._count(choice.usage)

    def _words(self, said: _Words, spoken: list[tuple[str, str]]) -> None:
        # Some endpoints send the same reasoning under both names, for readers of either.
        if said.reasoning_content:
            spoken.append(("reasoning_content", said.reasoning_content))
        elif said.reasoning and isinstance(said.reasoning, str):
            spoken.append(("reasoning", said.reasoning))
        if content := said.content:
            if isinstance(content, str):
                spoken.append(("", content))
            else:
                spoken.extend(("", text) for part in content if (text := _text(part)))
        if said.refusal:
            spoken.append(("", said.refusal))
        for piece in said.tool_calls or ():
            if piece is not None:
                self._find(piece).add(piece)

    def _count(self, tokens: _Tokens) -> None:
        prompt, completion = tokens.prompt_tokens, tokens.completion_tokens
        self._usage = Usage(
            prompt=self._usage.prompt if prompt is None else int(prompt),
            completion=self._usage.completion if completion is None else int(completion),
        )

    def _find(self, piece: _CallPiece) -> _Writing:
        """The call that ``piece`` belongs to, by index, by id, or because it was the last one; else a new one."""
        known = None
        if piece.index is not None:
            known = next((call for call in reversed(self._calls) if call.index == piece.index), None)
        elif piece.id:
            known = next((call for call in self._calls if call.id == piece.id), None)
            if known is None and self._calls and not self._calls[-1].id:
                known = self._calls[-1]
        elif self._calls:
            known = self._calls[-1]
        if known is None or self._begins(piece, known):
            known = _Writing(piece.index)
            self._calls.append(known)
        return known

    def _begins(self, piece: _CallPiece, known: _Writing) -> bool:
        """Whether ``piece`` begins another call although it points at ``known``: endpoints that give every call the
        index 0, or none, tell them apart by name and id alone; others repeat both, or invent ids, with each piece."""
        name = piece.function.name if piece.function is not None else None
        if not name:
            return False
        if piece.id and known.id:
            return piece.id != known.id and (known.whole() or not name.startswith(known.name))
        if piece.index is not None:
            return False
        return known.whole()


def decode(data: bytes) -> _Chunk:
    """One chunk. Raises ``Upstream(reason="malformed")``."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # Lone surrogates, NaN, numbers as text: the standard library reads more than JSON allows.
        return msgspec.convert(_cleaned(json.loads(data.decode("utf-8", "replace"))), _Chunk, strict=False)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        shown = excerpt(data.decode("utf-8", "replace"))
        raise Upstream(reason="malformed", detail=f"not a chunk of an answer: {shown!r}") from error


def _object(raw: str) -> dict[str, Any] | None:
    """The JSON object that ``raw`` writes, fit to be stored; ``None`` for anything else."""
    try:
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError):
            value = msgspec.json.decode(json.dumps(_cleaned(json.loads(raw))))
        if "\\u0000" in raw:
            value = _cleaned(value)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(name): _cleaned(member) for name, member in cast("dict[str, Any]", value).items()}
        case list():
            return [_cleaned(member) for member in cast("list[Any]", value)]
        case _:
            return value


def _text(part: Any) -> str:
    """The text of one part of a content list (``{"type": "text", "text": …}``), empty for other kinds."""
    if isinstance(part, dict):
        part = cast("dict[str, Any]", part).get("text")
    return part if isinstance(part, str) else ""


def _joined(spoken: list[tuple[str, str]]) -> list[Delta]:
    if len(spoken) == 1 and not spoken[0][0] and "\0" not in spoken[0][1]:
        return [Say(text=spoken[0][1])]
    deltas: list[Delta] = []
    for member, run in groupby(spoken, key=itemgetter(0)):
        text = "".join([text for _, text in run])
        if "\0" in text:
            text = clean(text)
        deltas.append(Think(text=text, provider_data=_REASONING[member]) if member else Say(text=text))
    return deltas
