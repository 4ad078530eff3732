"""What help says of the forms of options and arguments: ``TEXT`` instead of a Python type, nothing for a switch.

An argument's name says what it is, so nothing stands beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

HELP = ["-h", "--help"]
FORMS: dict[Any, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH", bool: ""}


def command_tree(cli: typer.Typer) -> TyperGroup:
    """The commands of ``cli``, their options' forms in the words of whoever types them."""
    tree = typer.main.get_group(cli)
    _name_forms(tree)
    return tree


def _name_forms(command: Any) -> None:
    for parameter in (*command.params, command.get_help_option(typer.Context(command, help_option_names=HELP))):
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = _nothing
        elif parameter.metavar is None:
            parameter.metavar = FORMS.get(parameter.type_descriptor.annotation)
    for below in getattr(command, "commands", {}).values():
        _name_forms(below)


def _nothing(ctx: object) -> None:
    del ctx
