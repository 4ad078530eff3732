"""What core needs of tools."""

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
    """``content`` is what the model reads; ``data`` the same for programs."""

    content: str
    data: Any = None
    error: bool = False


class Tool(Protocol):
    """What an agent can do. ``call`` answers a failure of the tool's own as ``ToolOutput(error=True)``."""

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, arguments: dict[str, Any]) -> ToolOutput: ...
