"""``palaver agent``: agents, each described by a file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from palaver.agentfile import AgentFileError, parse, write
from palaver.app import Core
from palaver.cli.command import (
    AnyApp,
    App,
    Json,
    Yes,
    checked_name,
    on_core,
    only_app,
    records_audit,
    the_agent,
    the_app,
)
from palaver.cli.terminal import print_json, print_line, print_note, table
from palaver.core.problems import Conflict, Invalid, Upstream
from palaver.core.types import Agent, AgentSpec, Application

group = typer.Typer(name="agent", help="Store, check, list and delete agents.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="AGENT", help="Agent name, alias, id or uid.", show_default=False)]


@group.command()
@on_core
@records_audit("agent apply", "files", "check")
async def apply(
    core: Core,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…",
            help="Agent files, or folders of them (*.md except README.md); - reads one from standard input.",
            show_default=False,
        ),
    ],
    *,
    app: App = "demo",
    check: Annotated[
        bool, typer.Option("--check", help="Store nothing; exit with 1 if an agent could not answer.")
    ] = False,
    json: Json = False,
) -> None:
    """Create or replace the agents described by the files. If one file has an error, nothing is stored."""
    expanded = _files(files)
    specs = [read(file) for file in expanded]
    for name, count in Counter(spec.name for spec in specs).items():
        if count > 1:
            raise Conflict(reason="name", detail=f"{count} files describe an agent {name!r}: keep one of them")
    if check:
        await _check(core, await core.store.applications.get(checked_name(app)), specs, json=json)
        return
    owner = await core.store.applications.get_or_create(checked_name(app))
    agents = [await core.store.agents.upsert(owner, spec) for spec in specs]
    for agent in agents:
        for lack in await _lacking(core, owner, agent.spec):
            print_note(f"{agent.name}: {lack}" if len(agents) > 1 else lack)
    if json:
        print_json(named(agents[0]) if expanded == files and len(files) == 1 else [named(agent) for agent in agents])
        return
    for agent in agents:
        print_line(f"Stored the agent {agent.name!r} in {owner.name!r}: id {agent.id}, uid {agent.uid.hex}.")


async def _check(core: Core, owner: Application | None, specs: Sequence[AgentSpec], *, json: bool) -> None:
    found = [(spec.name, await _lacking(core, owner, spec)) for spec in specs]
    if json:
        print_json([{"name": name, "ok": not lacking, "lacking": lacking} for name, lacking in found])
    for name, lacking in found:
        for lack in lacking:
            print_note(f"{name}: {lack}")
        if not json and not lacking:
            print_line(f"{name}: ok")
    if any(lacking for _, lacking in found):
        raise typer.Exit(1)


@group.command("list")
@on_core
async def list_(core: Core, *, app: AnyApp = None, json: Json = False) -> None:
    """List the agents."""
    agents = await core.store.agents.list_all(await only_app(core, app))
    if json:
        print_json(
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
        nothing="No agents yet; create one with 'palaver agent apply FILE'.",
    )


@group.command()
@on_core
async def show(core: Core, agent: Name, *, app: App = "demo", json: Json = False) -> None:
    """Print an agent as an agent file."""
    found = await the_agent(core, await the_app(core, app), agent)
    if json:
        print_json({"app": app, **named(found), "file": write(found.spec)})
    else:
        sys.stdout.write(write(found.spec))


@group.command()
@on_core
@records_audit("agent delete", "agent")
async def delete(core: Core, agent: Name, *, app: App = "demo", yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  asked before
    """Delete an agent and its conversations."""
    found = await the_agent(core, await the_app(core, app), agent)
    await core.store.agents.delete(found)
    if json:
        print_json({**named(found), "deleted": True})
    else:
        print_line(f"Deleted the agent {found.name!r}.")


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


def _files(paths: Sequence[str]) -> list[str]:
    """``paths``, with the files of a folder in its place. Raises ``Invalid`` for a folder without any."""
    files: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            files.append(path)
            continue
        inside = [str(file) for file in sorted(Path(path).glob("*.md")) if file.name.lower() != "readme.md"]
        if not inside:
            raise Invalid(field=path, rule="required", detail="this folder has no agent file (*.md)")
        files += inside
    return files


async def _lacking(core: Core, owner: Application | None, spec: AgentSpec) -> list[str]:
    """What keeps the agent from answering, each with what to do."""
    lacking = [
        f"there is no knowledge base {name!r} yet; create it with 'palaver knowledge add {name} PATH'."
        for name in spec.knowledge
        if owner is None or await core.store.knowledge.get(owner.id, name) is None
    ]
    try:
        core.models.chat_model(spec.model, spec.fallback_model)
    except Upstream as problem:
        lacking.append(f"the agent cannot answer yet: {problem.detail}")
    return lacking
