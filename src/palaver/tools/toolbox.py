"""The tools of an agent: the built-in ones that its file names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from palaver.core.ports.tools import Tool, ToolOutput, ToolSpec
from palaver.core.types import Agent


class AgentToolbox:
    """Implements ``core.ports.tools.Toolbox``. ``timezone``: that of the server's operator."""

    def __init__(self, timezone: ZoneInfo) -> None:
        self._builtin: dict[str, Tool] = {tool.spec.name: tool for tool in (NowTool(timezone),)}

    async def open(self, agent: Agent, disabled: Collection[tuple[str, int]]) -> Sequence[Tool]:  # noqa: ARG002  built-in tools have no number by which callers could disable them
        return [self._builtin[name] for name in agent.spec.tools if name in self._builtin]


class NowTool:
    """Tells the current date and time."""

    spec = ToolSpec(
        name="now",
        description="The current date and time.",
        parameters={
            "type": "object",
            "properties": {
                "timezone": {"type": "string", "description": "An IANA time zone, such as Europe/Berlin."},
            },
        },
    )

    def __init__(self, timezone: ZoneInfo, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._timezone = timezone
        self._clock = clock

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        name = arguments.get("timezone")
        try:
            zone = self._timezone if name is None else ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return ToolOutput(
                content=f"there is no time zone {str(name)[:100]!r}; use a name such as Europe/Berlin", error=True
            )
        now = self._clock().astimezone(zone)
        return ToolOutput(content=f"{now:%A}, {now.isoformat(timespec='seconds')} ({zone.key})")
