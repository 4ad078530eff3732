"""The ``palaver`` command: parses, calls ``core.admin`` or the app, prints. One module for each group of commands.

Results go to standard output, everything else to standard error. Exit codes: 0 success, 1 failure, 2 invalid command
line, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer import TyperException

import palaver
from palaver.agentfile import AgentFileError
from palaver.cli import (
    agent,
    application,
    audit,
    chat,
    conformance,
    database,
    doctor,
    key,
    knowledge,
    openapi,
    serve,
    terminal,
    user,
)
from palaver.cli.errors import describe_problem, system_error
from palaver.cli.help import HELP, command_tree
from palaver.config import SettingsError
from palaver.core.problems import Problem

cli = typer.Typer(
    name="palaver",
    help="One agent server behind several vendors' documented chat APIs.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": HELP},
)


def _version(requested: bool) -> None:
    if requested:
        terminal.print_line(f"palaver {palaver.__version__}")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """One agent server behind several vendors' documented chat APIs."""


serve.add_to(cli)
chat.add_to(cli)
cli.add_typer(agent.group)
cli.add_typer(knowledge.group)
cli.add_typer(key.group)
cli.add_typer(application.group)
cli.add_typer(user.group)
audit.add_to(cli)
database.add_to(cli)
doctor.add_to(cli)
conformance.add_to(cli)
openapi.add_to(cli)


def main() -> None:
    """Entry point. An expected error is one line on standard error, never a traceback."""
    terminal.prepare()
    try:
        code: Any = command_tree(cli)(prog_name="palaver", standalone_mode=False)
    except TyperException as error:
        if error.format_message():  # without a command, the help was shown
            terminal.print_error(_usage(error))
        code = error.exit_code
    except typer.Abort:
        code = 1
    except Problem as problem:
        terminal.print_error(describe_problem(problem))
        code = 1
    except (SettingsError, AgentFileError) as error:
        terminal.print_error(str(error))
        code = 1
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has closed it; nothing more can be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        else:
            terminal.print_error(system_error(error))
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: TyperException) -> str:
    command: str = getattr(getattr(error, "ctx", None), "command_path", "palaver")
    return f"{error.format_message().rstrip('.')} (see '{command} --help')"
