"""``palaver user``: what is kept of one end user, handed out or removed."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from palaver.app import Core
from palaver.cli.command import Json, OnlyApp, Yes, on_core, records_audit, the_only_app
from palaver.cli.terminal import print_json, print_line, print_note
from palaver.core.problems import NotFound
from palaver.store.files import PIECE_BYTES

group = typer.Typer(name="user", help="Export or delete all data stored about an end user.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="USER", help="End user's name or issued uid.", show_default=False)]


@group.command()
@on_core
@records_audit("user forget")
async def forget(
    core: Core,
    user: Name,
    *,
    app: OnlyApp = None,
    yes: Yes = False,  # noqa: ARG001  asked before
    json: Json = False,
) -> None:
    """Permanently delete an end user with conversations, messages, files, tokens and subscriptions. Answers in
    progress are stopped."""
    owner = await the_only_app(core, app)
    removed = await core.store.user_data.delete(owner.id, await core.store.users.find(owner.id, user))
    if json:
        print_json({"user": user, "removed": removed})
        return
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in removed.items() if count)
    print_line(f"Deleted for {user!r}: {counts}." if counts else f"No data is stored about {user!r}.")


@group.command()
@on_core
async def export(
    core: Core,
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
    owner = await the_only_app(core, app)
    one = await core.store.users.find(owner.id, user)
    if one is None:
        raise NotFound(noun="user", ref=user)
    lines = 0
    with _opened(output) as out:
        async for entry in core.store.user_data.export(owner.id, one):
            out.write(msgspec.json.encode(entry) + b"\n")
            lines += 1
            if files is not None and entry["type"] == "file":
                await _write_file(core, owner.id, entry["key"], files / str(entry["id"]))
    if output is not None:
        print_note(f"Wrote {lines} lines to {output}.")


async def _write_file(core: Core, app: int, key: str, place: Path) -> None:
    file = await core.store.files.get(app, key)
    if file is None:  # removed meanwhile
        return
    _make_folder(place.parent)
    with _opened(place) as out:
        for start in range(0, file.size, PIECE_BYTES):
            out.write(await core.store.files.content(file, start=start, length=PIECE_BYTES))


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
