"""Tool calls whose pieces are arriving, told apart although endpoints number and name them in ways of their own."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec

from palaver.core.ports.models import ToolCallDelta
from palaver.core.problems import Upstream
from palaver.core.types import ToolCall, clean, new_uid
from palaver.models.chunk import ToolCallFragment

POCKET = "openai"
"""The member of ``provider_data`` in which this room keeps what an endpoint wants handed back."""
MOST = 128
"""Tool calls of one answer."""
LONGEST_NAME = 256
"""Characters of a call's name, and of its id."""

_MARKS = re.compile(r'["\\{}]')
_BLANK = re.compile(r"\s*")
_Object = dict[str, Any]


class PartialToolCall:
    """A tool call whose pieces are arriving."""

    __slots__ = ("_closed", "_depth", "_escaped", "_pieces", "_quoted", "_seen", "extra", "id", "index", "name", "size")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.size = 0
        self.extra: Any = None
        self._pieces: list[str] = []
        self._seen = 0
        self._depth = 0
        self._closed = self._escaped = self._quoted = False

    def add(self, piece: ToolCallFragment) -> None:
        self.id = self.id or piece.id or ""
        self.extra = piece.extra_content or self.extra
        if piece.function is None:
            return
        if name := clean(piece.function.name or ""):
            if name.startswith(self.name):
                self.name = name  # the first time, or once more with every piece
            elif not self.size:
                self.name += name
            if len(self.name) > LONGEST_NAME:
                raise Upstream(reason="malformed", detail=f"a tool's name of more than {LONGEST_NAME} characters")
        arguments = piece.function.arguments
        if arguments is not None:
            text = arguments if isinstance(arguments, str) else _written(arguments)
            self._pieces.append(text)
            self.size += len(text)

    def whole(self) -> bool:
        """Whether the arguments so far are a whole object, as far as braces tell. Each piece is looked at once."""
        for piece in self._pieces[self._seen :]:
            escaped = 0 if self._escaped else -1
            for mark in _MARKS.finditer(piece):
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
        self._seen = len(self._pieces)
        return self._closed

    def calls(self, taken: set[str]) -> list[ToolCallDelta]:
        """The call; several where an endpoint without numbers has written their arguments one behind the other."""
        text = "".join(self._pieces)
        if not text.strip():
            return [self._call(taken, {}, "")]
        arguments = decoded(text)
        if arguments is not None:
            return [self._call(taken, arguments, "")]
        several = _several(text)
        if not several:
            return [self._call(taken, {}, clean(text))]
        return [self._call(taken, arguments, "") for arguments in several]

    def _call(self, taken: set[str], arguments: _Object, malformed: str) -> ToolCallDelta:
        call_id = self.id if self.id and self.id not in taken else f"call_{new_uid().hex}"
        taken.add(call_id)
        return ToolCallDelta(
            call=ToolCall(
                call_id=call_id,
                name=self.name,
                arguments=arguments,
                malformed=malformed,
                provider_data={POCKET: {"extra_content": self.extra}} if self.extra else None,
            )
        )


class ToolCallAssembler:
    """The calls of one answer."""

    __slots__ = ("_writing",)

    def __init__(self) -> None:
        self._writing: list[PartialToolCall] = []

    def __bool__(self) -> bool:
        return bool(self._writing)

    def add(self, piece: ToolCallFragment) -> int:
        """Take a piece; how many characters it has added. Raises ``malformed`` where there are too many calls."""
        if piece.id is not None:
            piece.id = clean(piece.id)[:LONGEST_NAME]
        call = self._find(piece)
        before = call.size
        call.add(piece)
        return call.size - before

    def finished(self) -> list[ToolCallDelta]:
        taken: set[str] = set()
        calls = [call for one in self._writing if one.name or one.size for call in one.calls(taken)]
        if len(calls) > MOST:
            raise _too_many()
        return calls

    def _find(self, piece: ToolCallFragment) -> PartialToolCall:
        """The call that ``piece`` belongs to, by index, by id, or because it was the last one; else a new one."""
        known = None
        if piece.index is not None:
            known = next((call for call in reversed(self._writing) if call.index == piece.index), None)
        elif piece.id:
            known = next((call for call in self._writing if call.id == piece.id), None)
            if known is None and self._writing and not self._writing[-1].id:
                known = self._writing[-1]
        elif self._writing:
            known = self._writing[-1]
        if known is None or _begins(piece, known):
            if len(self._writing) >= MOST:
                raise _too_many()
            known = PartialToolCall(piece.index)
            self._writing.append(known)
        return known


def _begins(piece: ToolCallFragment, known: PartialToolCall) -> bool:
    """Whether ``piece`` begins another call although it points at ``known``: endpoints that give every call the index
    0, or none, tell them apart by name and id alone; others repeat both, or invent ids, with each piece."""
    function = piece.function
    if function is None or not function.name:
        return False
    if piece.id and known.id:
        return piece.id != known.id and (known.whole() or not function.name.startswith(known.name))
    # A name that is only repeated brings no arguments of its own.
    return bool(function.arguments or function.name != known.name) and known.whole()


def decoded(text: str) -> _Object | None:
    """The JSON object that ``text`` writes, fit to be stored; ``None`` for anything else."""
    try:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            value = msgspec.json.decode(json.dumps(_cleaned(json.loads(clean(text)))))
        if "\\u0000" in text:
            value = _cleaned(value)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
    return cast("_Object", value) if isinstance(value, dict) else None


def _several(text: str) -> list[_Object]:
    """The objects that stand in ``text`` one behind the other, without empty ones among others; none where anything
    else stands there."""
    decoder = json.JSONDecoder()
    found: list[_Object] = []
    at = _behind_blank(text, 0)
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        value = decoded(text[at:end])
        if value is None or len(found) > MOST:
            return []
        found.append(value)
        at = _behind_blank(text, end)
    return [value for value in found if value] or found[:1]


def _behind_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()


def _written(arguments: Any) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except RecursionError as error:
        raise Upstream(reason="malformed", detail="a tool call's arguments are nested too deeply") from error


def _too_many() -> Upstream:
    return Upstream(reason="malformed", detail=f"an answer with more than {MOST} tool calls")


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(name): _cleaned(member) for name, member in cast("_Object", value).items()}
        case list():
            return [_cleaned(member) for member in cast("list[Any]", value)]
        case _:
            return value
