"""``palaver agent``: agents, each described by a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palaver.agentfile import AgentFileError, parse, write
from palaver.app import Core
from palaver.cli.session import AnyApp, App, Json, Yes, checked_name, on_core, only_app, the_agent, the_app
from palaver.cli.terminal import note, say, say_json, table
from palaver.core.problems import Invalid, Upstream
from palaver.core.types import Agent, AgentSpec

group = typer.Typer(name="agent", help="Agents: what answers.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name, alias, id or uid.", show_default=False)]


@group.command()
@on_core
async def apply(
    core: Core,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The agent's file; - reads it.", show_default=False)],
    *,
    app: App = "demo",
    json: Json = False,
) -> None:
    """Store the agent that FILE describes, in place of the one of the same name."""
    spec = read(file)
    owner = await core.store.applications.named(checked_name(app))
    agent = await core.store.agents.apply(owner, spec)
    await _note_what_is_missing(core, agent)
    if json:
        say_json(named(agent))
    else:
        say(f"The agent {agent.name!r} of {owner.name!r} has the id {agent.id} and the uid {agent.uid.hex}.")


@group.command("list")
@on_core
async def list_(core: Core, *, app: AnyApp = None, json: Json = False) -> None:
    """List the agents."""
    agents = await core.store.agents.all(await only_app(core, app))
    if json:
        say_json(
            [
                {
                    "app": name,
                    **named(agent),
                    "alias": agent.spec.alias,
                    "model": agent.spec.model,
                    "enabled": agent.spec.enabled,
                }
                for name, agent in agents
            ]
        )
        return
    table(
        ("APP", "ID", "NAME", "ALIAS", "MODEL", "ENABLED", "UID"),
        [
            (name, agent.id, agent.name, agent.spec.alias, agent.spec.model or "-", agent.spec.enabled, agent.uid.hex)
            for name, agent in agents
        ],
        nothing="There is no agent; 'palaver agent apply FILE' makes one.",
    )


@group.command()
@on_core
async def show(core: Core, agent: Name, *, app: App = "demo", json: Json = False) -> None:
    """Print the file of an agent."""
    found = await the_agent(core, await the_app(core, app), agent)
    if json:
        say_json({"app": app, **named(found), "file": write(found.spec)})
    else:
        sys.stdout.write(write(found.spec))


@group.command()
@on_core
async def delete(core: Core, agent: Name, *, app: App = "demo", yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  asked before
    """Remove an agent with its conversations."""
    found = await the_agent(core, await the_app(core, app), agent)
    await core.store.agents.delete(found)
    if json:
        say_json({**named(found), "deleted": True})
    else:
        say(f"Removed the agent {found.name!r}.")


def named(agent: Agent) -> dict[str, object]:
    """An agent as scripts get it."""
    return {"id": agent.id, "uid": agent.uid.hex, "name": agent.name}


def read(file: str) -> AgentSpec:
    """The agent in ``file``; ``-`` is standard input. Raises ``AgentFileError``, ``Invalid``, ``OSError``."""
    name = "standard input" if file == "-" else file
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Invalid(field=name, rule="type", detail=f"line {line} is not UTF-8: save the file as UTF-8") from error
    try:
        return parse(text)
    except AgentFileError as error:
        raise error.in_file(name) from None


async def _note_what_is_missing(core: Core, agent: Agent) -> None:
    for name in agent.spec.knowledge:
        if await core.store.knowledge.get(agent.app, name) is None:
            note(f"there is no knowledge base {name!r} yet; 'palaver knowledge add {name} PATH' makes it.")
    try:
        core.models.resolve(agent.spec.model, agent.spec.fallback_model)
    except Upstream as problem:
        note(f"the agent cannot answer yet: {problem.detail}")
