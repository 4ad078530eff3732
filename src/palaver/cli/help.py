"""The value types in ``--help``: ``TEXT`` instead of a Python type, none for a flag or an argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

HELP = ["-h", "--help"]
VALUE_TYPES: dict[Any, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH", bool: ""}


def command_tree(cli: typer.Typer) -> TyperGroup:
    """The commands of ``cli``, with readable value types of their options."""
    tree = typer.main.get_group(cli)
    _name_types(tree)
    return tree


def _name_types(command: Any) -> None:
    for parameter in (*command.params, command.get_help_option(typer.Context(command, help_option_names=HELP))):
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = _nothing
        elif parameter.metavar is None:
            parameter.metavar = VALUE_TYPES.get(parameter.type_descriptor.annotation)
    for below in getattr(command, "commands", {}).values():
        _name_types(below)


def _nothing(ctx: object) -> None:
    del ctx
