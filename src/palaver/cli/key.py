"""``palaver key``: credentials."""

from __future__ import annotations

import re
import secrets
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperCommand

from palaver.app import Core, all_dialects
from palaver.cli.command import AnyApp, App, Json, Yes, actor, assignment, on_admin, on_core
from palaver.cli.terminal import day, moment, print_json, print_line, print_note, table
from palaver.core.admin.admin import Admin
from palaver.core.admin.credentials import CredentialDetails, ListedCredential
from palaver.core.problems import Invalid
from palaver.core.types import ApiKey
from palaver.doctor import WEAK, weak_signature
from palaver.installation import pending_master_key
from palaver.store.secrets import parse_master_key
from palaver.wire.contract import Dialect

_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_OVERLAP_S = 30 * 86_400

group = typer.Typer(name="key", help="Create, list, rotate and revoke API credentials.", no_args_is_help=True)


def dialect_named(name: str | Dialect) -> Dialect:
    if isinstance(name, Dialect):
        return name
    dialects = {dialect.name: dialect for dialect in all_dialects()}
    if name not in dialects:
        raise typer.BadParameter(f"there is no dialect {name!r}; choose one of: {', '.join(dialects)}")
    return dialects[name]


class SettingsHelp(TyperCommand):
    """A command whose help ends with the dialects and their settings, loaded only then."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.epilog = "\n\n".join(_settings_help())
        super().format_help(ctx, formatter)


def _settings_help() -> list[str]:
    dialects = all_dialects()
    counts = Counter(one.name for dialect in dialects for one in dialect.settings)
    shared = [name for name, count in counts.items() if count == len(dialects)]
    own = {dialect.name: [one.name for one in dialect.settings if one.name not in shared] for dialect in dialects}
    return [
        f"Dialects: {', '.join(own)}.",
        f"Settings for all dialects: {', '.join(shared)}.",
        *(f"Additional settings for {name}: {', '.join(names)}." for name, names in own.items() if names),
        "'palaver key settings DIALECT' explains them.",
    ]


def duration(text: str | int) -> int:
    """Parse a duration such as ``90s``, ``15m``, ``1h`` or ``2d``, in seconds."""
    if isinstance(text, int):
        return text
    match = _DURATION.fullmatch(text.strip())
    seconds = 0 if match is None else int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= MAX_OVERLAP_S:
        raise typer.BadParameter(f"{text!r} is not a duration from 1s to 30d, such as 90s, 15m, 1h or 2d")
    return seconds


Id = Annotated[str, typer.Argument(metavar="ID", help="Credential id.", show_default=False)]
OfDialect = Annotated[
    str | None,
    typer.Option("--dialect", metavar="DIALECT", help="Dialect, if several dialects have that id.", show_default=False),
]


Label = Annotated[
    str | None,
    typer.Option("--label", help="Label shown in lists, such as the customer's name.", show_default=False),
]


@group.command(cls=SettingsHelp)
@on_admin
async def create(
    admin: Admin,
    *,
    app: App = "demo",
    dialect: Annotated[
        Dialect,
        typer.Option(
            parser=dialect_named, metavar="DIALECT", help="The dialect (API) the credential is for.", show_default=False
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a setting; can be repeated.", show_default=False),
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Use this existing id instead of a generated one.", show_default=False)
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", help="Use this existing secret; - reads it from standard input.", show_default=False),
    ] = None,
    label: Label = None,
    json: Json = False,
) -> None:
    """Create a credential, and its application if it does not exist."""
    settings = _assignments(set_)
    if secret == "-":  # noqa: S105  the sign for standard input
        secret = sys.stdin.readline()
    with _named_options():
        created = await admin.credentials.create(app, dialect.name, settings, id=id, secret=secret, label=label)
    _note_unknown_agents(created)
    if weak_signature(created.key):
        print_note(f"{WEAK}: 'palaver key set {created.key.id} signature=hmac-sha256' changes it.")
    _print(created, secret=True, json=json)


@group.command("settings")
def settings_(
    dialect: Annotated[
        Dialect, typer.Argument(parser=dialect_named, metavar="DIALECT", help="The dialect (API).", show_default=False)
    ],
    *,
    json: Json = False,
) -> None:
    """List the available settings of a credential."""
    if json:
        print_json([{"name": one.name, "meaning": one.meaning} for one in dialect.settings])
    else:
        table(("SETTING", "MEANING"), [(one.name, one.meaning) for one in dialect.settings], nothing="")


@group.command("list")
@on_admin
async def list_(
    admin: Admin,
    *,
    app: AnyApp = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="Also show the secrets.")] = False,
    json: Json = False,
) -> None:
    """List the credentials."""
    credentials = await admin.credentials.list_all(app)
    if json:
        print_json([_listed_json(listed, secret=secrets) for listed in credentials])
        return
    extra = ("SECRET",) if secrets else ()
    table(
        ("APP", "DIALECT", "ID", "LABEL", "ENABLED", "CREATED", "LAST USED", "CALLS", "SETTINGS", *extra),
        [
            (
                *(one.application, one.key.dialect, one.key.id, one.key.label, one.key.enabled, day(one.use.created)),
                *(moment(one.use.last_used) if one.use.last_used else "never", one.use.calls),
                *(_line(one.key.settings), *((one.key.secret,) if secrets else ())),
            )
            for one in credentials
        ],
        nothing="No credentials yet; create one with 'palaver key create --app NAME --dialect DIALECT'.",
    )


@group.command("set", cls=SettingsHelp)
@on_admin
async def set_(
    admin: Admin,
    id: Id,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE…", help="Settings to change.", show_default=False)
    ] = None,
    *,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="NAME", help="Remove a setting; can be repeated.", show_default=False),
    ] = None,
    label: Label = None,
    dialect: OfDialect = None,
    json: Json = False,
) -> None:
    """Change settings of a credential; others are unchanged. Running servers apply it at once."""
    values = _assignments(settings)
    with _named_options():
        changed = await admin.credentials.update(id, values, unset=unset or (), label=label, dialect=dialect)
    _note_unknown_agents(changed)
    _print(changed, secret=False, json=json)


@group.command()
@on_admin
async def disable(admin: Admin, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Disable a credential: every call with it is rejected. Running servers apply it at once."""
    _print_state(await admin.credentials.disable(id, dialect), json=json)


@group.command()
@on_admin
async def enable(admin: Admin, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Enable a disabled credential again."""
    _print_state(await admin.credentials.enable(id, dialect), json=json)


@group.command()
@on_admin
async def rotate(
    admin: Admin,
    id: Id,
    *,
    overlap: Annotated[
        int,
        typer.Option(
            "--overlap", metavar="TIME", parser=duration, show_default=False,
            help="How long the old secret stays valid: 90s, 15m, 1h, 2d. Default: not at all.",
        ),
    ] = 0,
    dialect: OfDialect = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Give a credential a new secret. The old one becomes invalid immediately, or after the overlap."""
    _print(await admin.credentials.rotate(id, dialect, overlap_s=overlap), secret=True, json=json)


@group.command()
@on_admin
async def delete(admin: Admin, id: Id, *, dialect: OfDialect = None, yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  its callback prompts
    """Delete a credential permanently."""
    key = await admin.credentials.delete(id, dialect)
    if json:
        print_json({"dialect": key.dialect, "id": key.id, "deleted": True})
    else:
        print_line(f"Deleted the {key.dialect} credential {key.id!r}.")


@group.command("rotate-master")
@on_core
async def rotate_master(
    core: Core,
    *,
    new_key_file: Annotated[
        Path | None,
        typer.Option("--new-key-file", metavar="FILE", help="File with the new key; default: generate one."),
    ] = None,
    json: Json = False,
) -> None:
    """Re-encrypt all stored secrets with a new master key. Servers can keep running; credentials stay valid."""
    master = secrets.token_bytes(32) if new_key_file is None else _key_in(new_key_file)
    with pending_master_key(core.settings, master) as file:
        if file is None and new_key_file is None:  # printed first: it must not get lost
            text = master.hex()
            print_json({"master_key": text}) if json else print_line(
                f"The new master key, for PALAVER_MASTER_KEY: {text}"
            )
            sys.stdout.flush()
        count = await core.admin(actor()).credentials.rotate_master_key(master)
    if json and (file is not None or new_key_file is not None):
        print_json({"master_key_file": str(file or new_key_file)})
    print_note(f"Encrypted {count} credentials with it. Keep a copy of it, and keep the old key for older backups.")


def _key_in(file: Path) -> bytes:
    try:
        return parse_master_key(file.read_text())
    except ValueError as error:
        raise Invalid(field="--new-key-file", rule="type", detail=str(error)) from error


def credential_json(app: str, key: ApiKey, *, secret: bool) -> dict[str, Any]:
    """A credential in ``--json`` output."""
    optional = {"secret": key.secret} if secret else {}
    optional |= {"label": key.label} if key.label else {}
    if key.previous_secret is not None:
        optional["old_secret_until"] = datetime.fromtimestamp(key.previous_until, UTC).isoformat(timespec="seconds")
    return {"dialect": key.dialect, "app": app, "id": key.id, **optional, "settings": _settings(key)}


def _settings(key: ApiKey) -> dict[str, Any]:
    return key.settings if key.enabled else {**key.settings, "enabled": False}


def _listed_json(listed: ListedCredential, *, secret: bool) -> dict[str, Any]:
    key, use = listed.key, listed.use
    details = {"enabled": key.enabled, "label": key.label, "created": use.created}
    entry = credential_json(listed.application, key, secret=secret)
    return {**entry, **details, "calls": use.calls, "last_used": use.last_used}


def _print_state(changed: CredentialDetails, *, json: bool) -> None:
    key = changed.key
    if json:
        print_json(credential_json(changed.application.name, key, secret=False))
    else:
        print_line(f"The {key.dialect} credential {key.id!r} is {'enabled' if key.enabled else 'disabled'}.")


def _note_unknown_agents(details: CredentialDetails) -> None:
    app = details.application.name
    for name in details.unknown_agents:
        print_note(f"{app!r} has no agent {name!r} yet; create it with 'palaver agent apply FILE --app {app}'.")


def _assignments(texts: Sequence[str] | None) -> dict[str, Any]:
    return dict(map(assignment, texts or ()))


@contextmanager
def _named_options() -> Generator[None]:
    """Reports an invalid id, secret or label as an error of that option."""
    try:
        yield
    except Invalid as problem:
        if problem.field in {"id", "secret", "label"} and problem.rule == "length":
            raise typer.BadParameter(problem.detail, param_hint=f"--{problem.field}") from problem
        raise


def _print(details: CredentialDetails, *, secret: bool, json: bool) -> None:
    app, key = details.application.name, details.key
    if json:
        print_json(credential_json(app, key, secret=secret))
        return
    rows = [("app", app), ("dialect", key.dialect), ("id", key.id)]
    if secret:
        rows.append(("secret", key.secret))
    if key.label:
        rows.append(("label", key.label))
    if key.previous_secret is not None:
        until = datetime.fromtimestamp(key.previous_until, UTC)
        rows.append(("old secret", f"valid until {until:%Y-%m-%d %H:%M:%S} UTC"))
    if settings := _settings(key):
        rows.append(("settings", _line(settings)))
    for name, value in rows:
        print_line(f"{name:<10} {value}")


def _line(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in settings.items())
