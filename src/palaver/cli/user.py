"""``palaver user``: export or delete the data of one end user."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from palaver.cli.command import Json, OnlyApp, Yes, on_admin, only_application
from palaver.cli.terminal import print_json, print_line, print_note
from palaver.core.admin.admin import Admin

group = typer.Typer(name="user", help="Export or delete all data stored about an end user.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="USER", help="End user's name or issued uid.", show_default=False)]


@group.command()
@on_admin
async def forget(
    admin: Admin,
    user: Name,
    *,
    app: OnlyApp = None,
    yes: Yes = False,  # noqa: ARG001  its callback prompts
    json: Json = False,
) -> None:
    """Permanently delete an end user with conversations, messages, files, tokens and subscriptions. Answers in
    progress are stopped."""
    removed = await admin.users.delete(await only_application(admin, app), user)
    if json:
        print_json({"user": user, "removed": removed})
        return
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in removed.items() if count)
    print_line(f"Deleted for {user!r}: {counts}." if counts else f"No data is stored about {user!r}.")


@group.command()
@on_admin
async def export(
    admin: Admin,
    user: Name,
    *,
    app: OnlyApp = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write to this file instead of standard output.", show_default=False
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            "--files",
            metavar="DIR",
            help="Write the contents of files into this folder, named by id.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,  # noqa: ARG001  it is JSON in any case
) -> None:
    """Export all data stored about an end user as JSON Lines: user, conversations, messages, files."""
    owner, end_user = await admin.users.get(await only_application(admin, app), user)
    lines = 0
    with _opened(output) as out:
        async for entry in admin.users.export(owner, end_user):
            out.write(msgspec.json.encode(entry) + b"\n")
            lines += 1
            if files is not None and entry["type"] == "file":
                await _write_file(await admin.users.file_content(owner, entry["key"]), files / str(entry["id"]))
    if output is not None:
        print_note(f"Wrote {lines} lines to {output}.")


async def _write_file(content: AsyncIterator[bytes] | None, path: Path) -> None:
    if content is None:  # deleted since it was listed
        return
    _make_folder(path.parent)
    with _opened(path) as out:
        async for chunk in content:
            out.write(chunk)


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _opened(path: Path | None) -> Generator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with path.open("wb") as out:
        yield out
