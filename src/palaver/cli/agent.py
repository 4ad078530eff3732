"""``palaver agent``: agents, configured by agent files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from palaver.agentfile import AgentFileError, parse, write
from palaver.cli.command import AnyApp, App, Json, Yes, on_admin
from palaver.cli.terminal import print_json, print_line, print_note, table
from palaver.core.admin.admin import Admin
from palaver.core.admin.agents import AgentCheck
from palaver.core.problems import Conflict, Invalid
from palaver.core.types import Agent, AgentSpec

group = typer.Typer(name="agent", help="Store, check, list and delete agents.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="AGENT", help="Agent name, alias, id or uid.", show_default=False)]


@group.command()
@on_admin
async def apply(
    admin: Admin,
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
        _report_checks(await admin.agents.check(app, specs), json=json)
        return
    applied = await admin.agents.upsert_all(app, specs)
    agents = applied.agents
    for result in applied.checks:
        for problem in _problems(result):
            print_note(f"{result.name}: {problem}" if len(agents) > 1 else problem)
    if json:
        results = [agent_json(agent) for agent in agents]
        print_json(results[0] if expanded == files and len(files) == 1 else results)
        return
    for agent in agents:
        place = applied.application.name
        print_line(f"Stored the agent {agent.name!r} in {place!r}: id {agent.id}, uid {agent.uid.hex}.")


def _report_checks(checks: Sequence[AgentCheck], *, json: bool) -> None:
    problems = [(check.name, _problems(check)) for check in checks]
    if json:
        print_json([{"name": name, "ok": not texts, "lacking": texts} for name, texts in problems])
    for name, texts in problems:
        for text in texts:
            print_note(f"{name}: {text}")
        if not json and not texts:
            print_line(f"{name}: ok")
    if any(texts for _, texts in problems):
        raise typer.Exit(1)


@group.command("list")
@on_admin
async def list_(admin: Admin, *, app: AnyApp = None, json: Json = False) -> None:
    """List the agents."""
    agents = await admin.agents.list_all(app)
    if json:
        print_json(
            [
                {
                    "app": name,
                    **agent_json(agent),
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
@on_admin
async def show(admin: Admin, agent: Name, *, app: App = "demo", json: Json = False) -> None:
    """Print an agent as an agent file."""
    stored = await admin.agents.get(app, agent)
    if json:
        print_json({"app": app, **agent_json(stored), "file": write(stored.spec)})
    else:
        sys.stdout.write(write(stored.spec))


@group.command()
@on_admin
async def delete(admin: Admin, agent: Name, *, app: App = "demo", yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  its callback prompts
    """Delete an agent and its conversations."""
    deleted = await admin.agents.delete(app, agent)
    if json:
        print_json({**agent_json(deleted), "deleted": True})
    else:
        print_line(f"Deleted the agent {deleted.name!r}.")


def agent_json(agent: Agent) -> dict[str, object]:
    """An agent in ``--json`` output."""
    return {"id": agent.id, "uid": agent.uid.hex, "name": agent.name}


def read(file: str) -> AgentSpec:
    """Parse the agent file ``file``; ``-`` is standard input. Raises ``AgentFileError``, ``Invalid``, ``OSError``."""
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
    """``paths``, each folder replaced by its agent files. Raises ``Invalid`` for a folder without any."""
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


def _problems(check: AgentCheck) -> list[str]:
    """What keeps the agent from answering, each with its remedy."""
    problems = [
        f"there is no knowledge base {name!r} yet; create it with 'palaver knowledge add {name} PATH'."
        for name in check.missing_knowledge
    ]
    if check.model_problem:
        problems.append(f"the agent cannot answer yet: {check.model_problem}")
    return problems
