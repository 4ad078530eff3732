"""The port for tools."""

from __future__ import annotations

from typing import Any, Protocol

from palaver.core.types import (
    Value,
)


class ToolSpec(Value, frozen=True, kw_only=True):
    """A tool as a model sees it. ``parameters`` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ToolOutput(Value, frozen=True, kw_only=True):
    """The output of a tool: ``content`` is the text for the model, ``data`` the machine-readable form."""

    content: str
    data: Any = None
    error: bool = False


class Tool(Protocol):
    """A tool of an agent. ``call`` reports the tool's own failures as ``ToolOutput(error=True)``."""

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, arguments: dict[str, Any]) -> ToolOutput: ...
