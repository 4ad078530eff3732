"""The tools of agents."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from support.core_stage import stage
from support.kit import read

from palaver.core.types import BUILTIN_TOOLS, Text, ToolResult
from palaver.tools.toolbox import AgentToolbox, NowTool

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({}, "Sunday, 2026-03-01T12:30:00+00:00 (UTC)"),
        ({"timezone": "Asia/Shanghai"}, "Sunday, 2026-03-01T20:30:00+08:00 (Asia/Shanghai)"),
    ],
)
async def test_now_tells_the_time_of_a_time_zone(arguments: dict[str, str], content: str) -> None:
    output = await NowTool(ZoneInfo("UTC"), lambda: NOON).call(arguments)
    assert (output.content, output.error) == (content, False)


@pytest.mark.parametrize("name", ["Nowhere/Town", "../../etc/passwd", "", 7, "x" * 5000, "Europe"])
async def test_an_unknown_time_zone_is_the_tools_error(name: object) -> None:
    output = await NowTool(ZoneInfo("UTC")).call({"timezone": name})
    assert output.error
    assert len(output.content) < 500


async def test_an_agent_has_the_built_in_tools_that_it_names(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        script = "- call: {name: now}\n- text: ok"
        for tools, failed in (((), True), (BUILTIN_TOOLS, False)):
            sent = await on.say(await on.agent(script, tools=tools))
            _, (parts, _) = await read(sent.reader)
            (result,) = (part for part in parts if isinstance(part, ToolResult))
            assert result.error is failed
            assert parts[-1] == Text(text="ok")
        toolbox = AgentToolbox(ZoneInfo("UTC"))
        offered = await toolbox.open(await on.agent(tools=BUILTIN_TOOLS), ())
        assert tuple(tool.spec.name for tool in offered) == BUILTIN_TOOLS
