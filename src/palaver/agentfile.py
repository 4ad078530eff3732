"""Parses and writes agent files: Markdown with YAML front matter; the body is the instructions. Pure.

```
---
name: guide
alias: [help, helpdesk]
knowledge: palaver
---
Answer from the documents.
```

Errors name the line, and the correct form.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import yaml

from palaver.core.types import AgentSpec, Variable, clean, parse_uid

MAX_NAME = 255
MAX_HISTORY = 1000
"""Upper limit of an agent's ``history``."""
LATER = frozenset({"mcp", "skills", "memory"})
"""Keys of future versions."""

_LINE_ENDS = re.compile(r"[\x85\u2028\u2029]")
_FENCE = re.compile(r"---[ \t]*\Z")
_LITERAL_TEXT = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "timestamp"))
"""YAML types that are read as text: a model may be called 4.1."""
_INT = "tag:yaml.org,2002:int"
_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"


class AgentFileError(ValueError):
    """A mistake in an agent file. ``line`` counts from 1."""

    def __init__(self, message: str, *, line: int, file: str = "agent file") -> None:
        super().__init__(f"{file}, line {line}: {message}")
        self.message = message
        self.line = line

    def in_file(self, file: str) -> AgentFileError:
        return AgentFileError(self.message, line=self.line, file=file)


def parse(text: str) -> AgentSpec:
    """Parse an agent file. Raises ``AgentFileError``."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if not _FENCE.match(lines[0]):
        raise AgentFileError(
            "an agent file begins with front matter: a line '---', then 'name: …', then a line '---'", line=1
        )
    end = next((at for at in range(1, len(lines)) if _FENCE.match(lines[at])), None)
    if end is None:
        raise AgentFileError("the front matter is not closed: add a line '---' after it", line=1)
    values = _values("\n".join(lines[1:end]))
    if "name" not in values:
        raise AgentFileError("the agent has no name: add 'name: …'", line=1)
    return AgentSpec(**values, instructions=clean("\n".join(lines[end + 1 :])).strip())


def write(spec: AgentSpec) -> str:
    """The agent file from which ``parse`` reads ``spec``; defaults are omitted."""
    front_matter = {
        name: value
        for name, value in msgspec.to_builtins(spec).items()
        if name != "instructions" and value != _DEFAULTS.get(name)
    }
    if spec.variables:
        front_matter["variables"] = [
            {name: value for name, value in msgspec.to_builtins(variable).items() if value or name == "name"}
            for variable in spec.variables
        ]
    front = yaml.dump(front_matter, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=2**30)
    return f"---\n{front}---\n{spec.instructions}\n"


# The front matter ---------------------------------------------------------------------------------------------------


def _values(source: str) -> dict[str, Any]:
    node = _composed(source)
    if node is None:
        return {}
    return _members(node, _KEYS, "key")


def _composed(source: str) -> yaml.Node | None:
    try:
        return cast("Any", yaml).compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise AgentFileError(f"this is not YAML: {reason}", line=2 if mark is None else mark.line + 2) from error
    except yaml.reader.ReaderError as error:
        at = source[: error.position].count("\n") + 2
        raise AgentFileError(
            f"the character U+{ord(source[error.position]):04X} is not allowed here", line=at
        ) from error
    except RecursionError as error:
        raise AgentFileError("this is nested too deeply", line=2) from error


def _members(node: yaml.Node, known: Mapping[str, Callable[[yaml.Node], Any]], what: str) -> dict[str, Any]:
    """The members of a mapping, each parsed by its own function from ``known``; empty members are ignored."""
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, f"{what}s are written 'name: value', one per line; the valid ones are: {', '.join(known)}")
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name not in known:
            raise _wrong(key, _unknown(name, tuple(known), what))
        if name in seen:
            raise _wrong(key, f"{name!r} is repeated")
        seen.add(name)
        if value.tag != _NULL:
            values[name] = known[name](value)
    return values


def _unknown(name: str, known: tuple[str, ...], what: str) -> str:
    if what == "key" and name in LATER:
        return f"{name!r} is not available in this version of palaver yet"
    if what == "key" and name == "instructions":
        return "the instructions are the text below the front matter, not a key in it"
    near = difflib.get_close_matches(name.lower().replace("-", "_").replace(" ", "_"), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the valid ones are: {', '.join(known)}"
    return f"there is no {what} {name!r}; {hint}"


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _LITERAL_TEXT:
        quoted = f"; write it in quotes: '{node.value}'" if isinstance(node, yaml.ScalarNode) else ""
        raise _wrong(node, f"expected text{quoted}")
    return clean(str(node.value))


def _name(node: yaml.Node) -> str:
    name = _text(node).strip()
    if not name:
        raise _wrong(node, "a name must not be blank")
    if len(name) > MAX_NAME:
        raise _wrong(node, f"a name must have at most {MAX_NAME} characters, this one has {len(name)}")
    return name


def _alias(node: yaml.Node) -> str:
    alias = _name(node)
    if alias.isdecimal() or parse_uid(alias) is not None:
        raise _wrong(node, f"the alias {alias!r} could be mistaken for an agent's id: choose another one")
    return alias


def _variable_name(node: yaml.Node) -> str:
    name = _name(node)
    if "{" in name or "}" in name:
        raise _wrong(node, f"the name of a variable must not contain braces: {name!r}")
    return name


def _variable(node: yaml.Node) -> Variable:
    values = _members(node, _VARIABLE_KEYS, "member of a variable")
    if "name" not in values:
        raise _wrong(node, "a variable needs a name: '- name: …'")
    return Variable(**values)


def _boolean(node: yaml.Node) -> bool:
    if not isinstance(node, yaml.ScalarNode) or node.tag != _BOOL:
        raise _wrong(node, "expected true or false")
    return node.value.lower() in {"true", "yes", "on"}


def _number(least: int, most: int) -> Callable[[yaml.Node], int]:
    def read(node: yaml.Node) -> int:
        value: Any = None
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT:
            value = cast("Any", yaml.SafeLoader("")).construct_yaml_int(node)
        if not isinstance(value, int) or not least <= value <= most:
            raise _wrong(node, f"expected a whole number from {least} to {most}")
        return value

    return read


def _one_of(*allowed: str) -> Callable[[yaml.Node], str]:
    def read(node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.value not in allowed:
            raise _wrong(node, f"expected {' or '.join(allowed)}")
        return str(node.value)

    return read


def _several(read: Callable[[yaml.Node], Any], *, alone: bool = True) -> Callable[[yaml.Node], tuple[Any, ...]]:
    """A parser for a list of distinct values, or with ``alone`` for a single value."""

    def several(node: yaml.Node) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            if not alone:
                raise _wrong(node, "expected a list, each entry on a line that starts with '- '")
            return (read(node),)
        entries: list[Any] = []
        for entry in node.value:
            value = read(entry)
            if value in entries or (isinstance(value, Variable) and value.name in {one.name for one in entries}):
                raise _wrong(entry, "this entry is repeated")
            entries.append(value)
        return tuple(entries)

    return several


def _extra(node: yaml.Node) -> dict[str, dict[str, Any]]:
    """Dialect-specific fields: one mapping per dialect."""
    value: Any = cast("Any", yaml.SafeLoader("")).construct_document(node)
    try:
        return msgspec.convert(msgspec.to_builtins(value), dict[str, dict[str, Any]])
    except (msgspec.ValidationError, TypeError) as error:
        raise _wrong(node, "extra maps the name of a dialect to a mapping of its fields") from error


def _wrong(node: yaml.Node, message: str) -> AgentFileError:
    # Marks count from 0, and the front matter starts on the second line.
    return AgentFileError(message, line=node.start_mark.line + 2)


_VARIABLE_KEYS: dict[str, Callable[[yaml.Node], Any]] = {
    "name": _variable_name,
    "required": _boolean,
    "description": _text,
}

_KEYS: dict[str, Callable[[yaml.Node], Any]] = {
    "name": _name,
    "model": _name,
    "fallback_model": _name,
    "alias": _several(_alias),
    "description": _text,
    "opening_message": _text,
    "suggested_questions": _several(_text),
    "enabled": _boolean,
    "auto_title": _one_of("first_message", "model"),
    "variables": _several(_variable, alone=False),
    "knowledge": _several(_name),
    "knowledge_mode": _one_of("always", "tool"),
    "image_model": _name,
    "speech_model": _name,
    "icon": _name,
    "history": _number(0, MAX_HISTORY),
    "extra": _extra,
}

_DEFAULTS: dict[str, Any] = msgspec.to_builtins(AgentSpec(name=""))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are read: in a block, indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Three characters that YAML takes for the end of a line are written as escapes, which only double quotes allow.
    style = '"' if _LINE_ENDS.search(text) else "|" if "\n" in text else None
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
