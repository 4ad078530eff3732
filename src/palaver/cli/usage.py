"""What help says of options that name no form of their own: ``TEXT`` instead of a Python type, nothing for a switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

HELP = ["-h", "--help"]
FORMS: dict[Any, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH", bool: ""}


def command_tree(cli: typer.Typer) -> TyperGroup:
    """The commands of ``cli``, their options' forms in the words of whoever types them."""
    tree = typer.main.get_group(cli)
    _name_forms(tree)
    return tree


def _name_forms(command: Any) -> None:
    for parameter in (*command.params, command.get_help_option(typer.Context(command, help_option_names=HELP))):
        if parameter.metavar is None:
            parameter.metavar = FORMS.get(parameter.type_descriptor.annotation)
    for below in getattr(command, "commands", {}).values():
        _name_forms(below)
