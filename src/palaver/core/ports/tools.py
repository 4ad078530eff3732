"""The port for tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from palaver.core.types import Agent, Value


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


class Toolbox(Protocol):
    """The tools of agents."""

    async def open(self, agent: Agent, disabled: Collection[tuple[str, int]]) -> Sequence[Tool]:
        """The agent's tools, without those that the caller ``disabled`` for this message, as (``mcp`` or ``skill``,
        id)."""
        ...
