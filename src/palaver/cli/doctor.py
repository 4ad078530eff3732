"""``palaver doctor`` and ``palaver config``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import typer
from rich.text import Text

from palaver.cli.command import Data, DatabaseUrl, Json, run
from palaver.cli.terminal import out, print_json, table
from palaver.config import Settings, load, setting_docs
from palaver.doctor import Finding, examine
from palaver.logs import configure_logs

_MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "bold red")}


def add_to(cli: typer.Typer) -> None:
    cli.command()(doctor)
    cli.command("config")(show_settings)


def doctor(*, data: Data = None, database: DatabaseUrl = None, json: Json = False) -> None:
    """Check settings, database, clock, models, credentials and port, and explain how to fix any problem."""
    configure_logs(Settings(log_level="error"))  # before the settings are loaded: they may be the problem
    findings = run(_examine({"data": data, "database_url": database}, show=not json))
    healthy = all(finding.level != "wrong" for finding in findings)
    if json:
        print_json({"ok": healthy, "findings": findings})
    raise typer.Exit(0 if healthy else 1)


async def _examine(options: Mapping[str, str | None], *, show: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in examine(os.environ, options):
        findings.append(finding)
        if show:
            _print(finding)
    return findings


def _print(finding: Finding) -> None:
    mark, style = _MARKS[finding.level]
    line = Text.assemble((f"{mark:<6}", style), f"{finding.subject}: {finding.says}")
    if finding.remedy:
        line.append(f" → {finding.remedy}", style="" if finding.level == "wrong" else "dim")
    out.print(line, soft_wrap=True)


def show_settings(*, data: Data = None, database: DatabaseUrl = None, json: Json = False) -> None:
    """Show every setting, its value, and where it was set."""
    options = {"data": data, "database_url": database}
    settings = load(os.environ, options)
    rows = [
        (name, _shown(settings, name), _where(settings, name, default, options), meaning)
        for name, default, meaning in setting_docs()
    ]
    if json:
        print_json([{"name": row[0], "value": row[1], "from": row[2], "meaning": row[3]} for row in rows])
    else:
        table(("SETTING", "VALUE", "FROM", "MEANING"), rows, nothing="")


def _shown(settings: Settings, name: str) -> object:
    """A setting's value with secrets hidden."""
    value: object = getattr(settings, name)
    if name in {"master_key", "fallback_api_key"} and value is not None:
        return "(hidden)"
    if name in {"database_url", "database_direct_url"} and isinstance(value, str) and (password := _password(value)):
        return value.replace(f":{password}@", ":***@")
    return value


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def _where(settings: Settings, name: str, default: str, options: Mapping[str, str | None]) -> str:
    if options.get(name) is not None:
        return "command line"
    variables = [variable for variable, value in os.environ.items() if value and variable.startswith("PALAVER_")]
    if any(variable.removeprefix("PALAVER_").lower() == name for variable in variables):
        return "environment"
    value: object = getattr(settings, name)
    same = value is None or name == "data" or str(value).lower().removesuffix(".0") == default.lower()
    return "default" if same else "palaver.toml"
