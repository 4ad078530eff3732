"""Assembles streamed tool calls, although endpoints number and identify their fragments differently."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec

from palaver.core.ports.models import ToolCallDelta
from palaver.core.problems import Upstream
from palaver.core.types import ToolCall, clean, new_uid
from palaver.models.chunk import ToolCallFragment

PROVIDER_KEY = "openai"
"""The member of ``provider_data`` that holds data to send back to the endpoint."""
MOST = 128
"""Maximum number of tool calls in one answer."""
LONGEST_NAME = 256
"""Maximum characters of a call's name, and of its id."""

_JSON_MARKS = re.compile(r'["\\{}]')
_BLANK = re.compile(r"\s*")
_Object = dict[str, Any]


class PartialToolCall:
    """A tool call whose fragments are arriving."""

    __slots__ = (
        *("_closed", "_depth", "_escaped", "_pieces", "_quoted", "_scanned_pieces"),
        *("extra", "id", "index", "name", "size"),
    )

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.size = 0
        self.extra: Any = None
        self._pieces: list[str] = []
        self._scanned_pieces = 0
        self._depth = 0
        self._closed = self._escaped = self._quoted = False

    def add(self, fragment: ToolCallFragment) -> None:
        self.id = self.id or fragment.id or ""
        self.extra = fragment.extra_content or self.extra
        if fragment.function is None:
            return
        if name := clean(fragment.function.name or ""):
            if name.startswith(self.name):
                self.name = name  # the first time, or repeated with every fragment
            elif not self.size:
                self.name += name
            if len(self.name) > LONGEST_NAME:
                raise Upstream(reason="malformed", detail=f"a tool's name of more than {LONGEST_NAME} characters")
        arguments = fragment.function.arguments
        if arguments is not None:
            text = arguments if isinstance(arguments, str) else _dump_arguments(arguments)
            self._pieces.append(text)
            self.size += len(text)

    def is_complete(self) -> bool:
        """Whether the arguments so far are a complete object, judged by braces. Scans each piece once."""
        for piece in self._pieces[self._scanned_pieces :]:
            escaped = 0 if self._escaped else -1
            for mark in _JSON_MARKS.finditer(piece):
                at, character = mark.start(), mark.group()
                if escaped == at:
                    continue
                if character == "\\":
                    escaped = at + 1
                elif character == '"':
                    self._quoted = not self._quoted
                elif not self._quoted:
                    self._depth += 1 if character == "{" else -1
                    self._closed = self._depth <= 0
            self._escaped = escaped == len(piece)
        self._scanned_pieces = len(self._pieces)
        return self._closed

    def calls(self, used_ids: set[str]) -> list[ToolCallDelta]:
        """The call; several if an endpoint without indexes has concatenated the arguments of several."""
        text = "".join(self._pieces)
        if not text.strip():
            return [self._call(used_ids, {}, "")]
        arguments = decode_object(text)
        if arguments is not None:
            return [self._call(used_ids, arguments, "")]
        objects = _concatenated_objects(text)
        if not objects:
            return [self._call(used_ids, {}, clean(text))]
        return [self._call(used_ids, arguments, "") for arguments in objects]

    def _call(self, used_ids: set[str], arguments: _Object, malformed: str) -> ToolCallDelta:
        call_id = self.id if self.id and self.id not in used_ids else f"call_{new_uid().hex}"
        used_ids.add(call_id)
        return ToolCallDelta(
            call=ToolCall(
                call_id=call_id,
                name=self.name,
                arguments=arguments,
                malformed=malformed,
                provider_data={PROVIDER_KEY: {"extra_content": self.extra}} if self.extra else None,
            )
        )


class ToolCallAssembler:
    """The calls of one answer."""

    __slots__ = ("_partial_calls",)

    def __init__(self) -> None:
        self._partial_calls: list[PartialToolCall] = []

    def __bool__(self) -> bool:
        return bool(self._partial_calls)

    def add(self, fragment: ToolCallFragment) -> int:
        """Add a fragment; returns the characters of arguments it added. Raises ``Upstream`` (``malformed``) for too
        many calls, or a name that is too long."""
        if fragment.id is not None:
            fragment.id = clean(fragment.id)[:LONGEST_NAME]
        call = self._find(fragment)
        before = call.size
        call.add(fragment)
        return call.size - before

    def finished(self) -> list[ToolCallDelta]:
        used_ids: set[str] = set()
        calls = [call for one in self._partial_calls if one.name or one.size for call in one.calls(used_ids)]
        if len(calls) > MOST:
            raise _too_many()
        return calls

    def _find(self, fragment: ToolCallFragment) -> PartialToolCall:
        """The call that ``fragment`` belongs to: by index, by id, or the last one; else a new one."""
        call = None
        if fragment.index is not None:
            call = next((other for other in reversed(self._partial_calls) if other.index == fragment.index), None)
        elif fragment.id:
            call = next((other for other in self._partial_calls if other.id == fragment.id), None)
            if call is None and self._partial_calls and not self._partial_calls[-1].id:
                call = self._partial_calls[-1]
        elif self._partial_calls:
            call = self._partial_calls[-1]
        if call is None or _starts_new_call(fragment, call):
            if len(self._partial_calls) >= MOST:
                raise _too_many()
            call = PartialToolCall(fragment.index)
            self._partial_calls.append(call)
        return call


def _starts_new_call(fragment: ToolCallFragment, call: PartialToolCall) -> bool:
    """Whether ``fragment`` starts another call although it matches ``call``: endpoints that give every call the index
    0, or none, distinguish them by name and id alone; others repeat both, or invent ids, with each fragment."""
    function = fragment.function
    if function is None or not function.name:
        return False
    if fragment.id and call.id:
        return fragment.id != call.id and (call.is_complete() or not function.name.startswith(call.name))
    # A fragment that only repeats the name has no arguments.
    return bool(function.arguments or function.name != call.name) and call.is_complete()


def decode_object(text: str) -> _Object | None:
    """Decode the JSON object ``text``, cleaned for storage; ``None`` for anything else."""
    try:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            value = msgspec.json.decode(json.dumps(_clean_all(json.loads(clean(text)))))
        if "\\u0000" in text:
            value = _clean_all(value)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
    return cast("_Object", value) if isinstance(value, dict) else None


def _concatenated_objects(text: str) -> list[_Object]:
    """The concatenated objects in ``text``, without empty ones unless all are; empty if it has anything else."""
    decoder = json.JSONDecoder()
    objects: list[_Object] = []
    at = _skip_blank(text, 0)
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        value = decode_object(text[at:end])
        if value is None or len(objects) > MOST:
            return []
        objects.append(value)
        at = _skip_blank(text, end)
    return [value for value in objects if value] or objects[:1]


def _skip_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()


def _dump_arguments(arguments: Any) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except RecursionError as error:
        raise Upstream(reason="malformed", detail="a tool call's arguments are nested too deeply") from error


def _too_many() -> Upstream:
    return Upstream(reason="malformed", detail=f"an answer with more than {MOST} tool calls")


def _clean_all(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(name): _clean_all(member) for name, member in cast("_Object", value).items()}
        case list():
            return [_clean_all(member) for member in cast("list[Any]", value)]
        case _:
            return value
