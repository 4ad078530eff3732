"""``palaver key``: credentials. A change is in force in running servers at once: the store tells them."""

from __future__ import annotations

import re
import secrets
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperCommand

from palaver.app import Core, all_dialects
from palaver.cli.command import AnyApp, App, Json, Yes, assignment, checked_name, on_core, only_app, records_audit
from palaver.cli.terminal import day, moment, print_json, print_line, print_note, table
from palaver.core.problems import Conflict, Invalid, NotFound
from palaver.core.types import ApiKey, Application, clean
from palaver.doctor import WEAK, unknown_agents, weak_signature
from palaver.store.api_keys import ApiKeyUse
from palaver.store.secrets import parse_master_key, replace_master_key_file
from palaver.wire.contract import Dialect
from palaver.wire.settings import read_settings

NEW_MASTER_KEY = "master.key.new"
"""Beside the old one's file until the database has taken the new key."""

_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_OVERLAP_S = 30 * 86_400

group = typer.Typer(name="key", help="Create, list, rotate and revoke API credentials.", no_args_is_help=True)


def dialect_named(name: str | Dialect) -> Dialect:
    if isinstance(name, Dialect):
        return name
    known = {dialect.name: dialect for dialect in all_dialects()}
    if name not in known:
        raise typer.BadParameter(f"there is no dialect {name!r}; choose one of: {', '.join(known)}")
    return known[name]


class SettingsHelp(TyperCommand):
    """A command whose help ends with the dialects and their settings, which take time to load."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.epilog = "\n\n".join(_every_setting())
        super().format_help(ctx, formatter)


def _every_setting() -> list[str]:
    dialects = all_dialects()
    counts = Counter(one.name for dialect in dialects for one in dialect.settings)
    shared = [name for name, count in counts.items() if count == len(dialects)]
    own = {dialect.name: [one.name for one in dialect.settings if one.name not in shared] for dialect in dialects}
    return [
        f"Dialects: {', '.join(own)}.",
        f"Settings for all dialects: {', '.join(shared)}.",
        *(f"Additional settings for {name}: {', '.join(names)}." for name, names in own.items() if names),
        "'palaver key settings DIALECT' says what each means.",
    ]


def duration(text: str | int) -> int:
    """Seconds of ``90s``, ``15m``, ``1h``, ``2d``."""
    if isinstance(text, int):
        return text
    match = _DURATION.fullmatch(text.strip())
    seconds = 0 if match is None else int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= LONGEST_OVERLAP_S:
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
@on_core
@records_audit("key create", "dialect", "set_", "id", "label")
async def create(
    core: Core,
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
    settings = read_settings(dict(map(assignment, set_ or ())), dialect.settings)
    enabled = settings.pop("enabled", True)
    new_id, new_secret = dialect.new_credential(secrets.token_bytes(32))
    if secret == "-":  # noqa: S105  the sign for standard input
        secret = sys.stdin.readline()
    owner = await core.store.applications.get_or_create(checked_name(app))
    key = await core.store.keys.create(
        owner,
        dialect.name,
        new_id if id is None else _kept("--id", id),
        new_secret if secret is None else _kept("--secret", secret),
        settings,
        enabled=enabled,
        label=_label(label),
    )
    await _note_strangers(core, owner, key)
    if weak_signature(key):
        print_note(f"{WEAK}: 'palaver key set {key.id} signature=hmac-sha256' changes it.")
    if json:
        print_json(credential(owner.name, key, secret=True))
    else:
        _print(owner.name, key)


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
@on_core
async def list_(
    core: Core,
    *,
    app: AnyApp = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="Also show the secrets.")] = False,
    json: Json = False,
) -> None:
    """List the credentials."""
    keys = await core.store.keys.list_all(await only_app(core, app))
    uses = await core.store.keys.list_uses()
    rows = [(name, key, use) for name, key in keys if (use := uses.get((key.app, key.number))) is not None]
    if json:
        print_json([_listed(name, key, use, secret=secrets) for name, key, use in rows])
        return
    extra = ("SECRET",) if secrets else ()
    table(
        ("APP", "DIALECT", "ID", "LABEL", "ENABLED", "CREATED", "LAST USED", "CALLS", "SETTINGS", *extra),
        [
            (
                *(name, key.dialect, key.id, key.label, key.enabled),
                *(day(use.created), moment(use.last_used) if use.last_used else "never", use.calls),
                *(_line(key.settings), *((key.secret,) if secrets else ())),
            )
            for name, key, use in rows
        ],
        nothing="No credentials yet; create one with 'palaver key create --app NAME --dialect DIALECT'.",
    )


@group.command("set", cls=SettingsHelp)
@on_core
@records_audit("key set", "id", "dialect", "settings", "unset", "label")
async def set_(
    core: Core,
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
    key = await _one(core, id, dialect)
    known = dialect_named(key.dialect).settings
    if unknown := sorted(set(unset or ()) - {one.name for one in known}):
        read_settings(dict.fromkeys(unknown), known)
    changed = {**key.settings, **read_settings(dict(map(assignment, settings or ())), known)}
    enabled = changed.pop("enabled", key.enabled) if "enabled" not in (unset or ()) else True
    kept = {name: value for name, value in changed.items() if name not in (unset or ())}
    key = await core.store.keys.update(key, kept, enabled=enabled, label=key.label if label is None else _label(label))
    app = await _owner(core, key)
    await _note_strangers(core, app, key)
    if json:
        print_json(credential(app.name, key, secret=False))
    else:
        _print(app.name, key, secret=False)


@group.command()
@on_core
@records_audit("key disable", "id", "dialect")
async def disable(core: Core, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Disable a credential: every call with it is rejected. Running servers apply it at once."""
    await _switch(core, await _one(core, id, dialect), enabled=False, json=json)


@group.command()
@on_core
@records_audit("key enable", "id", "dialect")
async def enable(core: Core, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Enable a disabled credential again."""
    await _switch(core, await _one(core, id, dialect), enabled=True, json=json)


@group.command()
@on_core
@records_audit("key rotate", "id", "dialect", "overlap")
async def rotate(
    core: Core,
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
    key = await _one(core, id, dialect)
    _, secret = dialect_named(key.dialect).new_credential(secrets.token_bytes(32))
    key = await core.store.keys.rotate(key, secret, overlap_s=overlap)
    app = (await _owner(core, key)).name
    if json:
        print_json(credential(app, key, secret=True))
    else:
        _print(app, key)


@group.command()
@on_core
@records_audit("key delete", "id", "dialect")
async def delete(core: Core, id: Id, *, dialect: OfDialect = None, yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  asked before
    """Delete a credential permanently."""
    key = await _one(core, id, dialect)
    await core.store.keys.delete(key)
    if json:
        print_json({"dialect": key.dialect, "id": key.id, "deleted": True})
    else:
        print_line(f"Deleted the {key.dialect} credential {key.id!r}.")


@group.command("rotate-master")
@on_core
@records_audit("key rotate-master")
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
    file = core.settings.folder / "master.key"
    kept = core.settings.master_key is None
    # Where it is to be found has it before anything is sealed with it, so that it cannot be lost.
    if kept:
        replace_master_key_file(file.with_name(NEW_MASTER_KEY), master)
    elif new_key_file is None:
        shown = master.hex()
        print_json({"master_key": shown}) if json else print_line(
            f"The new master key, for PALAVER_MASTER_KEY: {shown}"
        )
        sys.stdout.flush()
    count = await core.store.rotate_master_key(master)
    if kept:
        file.with_name(NEW_MASTER_KEY).replace(file)
    if json and (kept or new_key_file is not None):
        print_json({"master_key_file": str(file if kept else new_key_file)})
    print_note(f"Encrypted {count} credentials with it. Keep a copy of it, and keep the old key for older backups.")


def _key_in(file: Path) -> bytes:
    try:
        return parse_master_key(file.read_text())
    except ValueError as error:
        raise Invalid(field="--new-key-file", rule="type", detail=str(error)) from error


def credential(app: str, key: ApiKey, *, secret: bool) -> dict[str, Any]:
    """A credential as scripts get it."""
    shown = {"secret": key.secret} if secret else {}
    shown |= {"label": key.label} if key.label else {}
    if key.previous_secret is not None:
        shown["old_secret_until"] = datetime.fromtimestamp(key.previous_until, UTC).isoformat(timespec="seconds")
    return {"dialect": key.dialect, "app": app, "id": key.id, **shown, "settings": _settings(key)}


def _settings(key: ApiKey) -> dict[str, Any]:
    return key.settings if key.enabled else {**key.settings, "enabled": False}


def _listed(app: str, key: ApiKey, use: ApiKeyUse, *, secret: bool) -> dict[str, Any]:
    about = {"enabled": key.enabled, "label": key.label, "created": use.created}
    return {**credential(app, key, secret=secret), **about, "calls": use.calls, "last_used": use.last_used}


async def _one(core: Core, id: str, dialect: str | None) -> ApiKey:
    found = [key for key in await core.store.keys.list_by_id(id) if dialect in {None, key.dialect}]
    if not found:
        raise NotFound(noun="key", ref=id)
    if len(found) > 1:
        names = " or ".join(key.dialect for key in found)
        raise Conflict(reason="name", detail=f"several dialects have a credential {id!r}: add --dialect {names}")
    return found[0]


async def _switch(core: Core, key: ApiKey, *, enabled: bool, json: bool) -> None:
    for changed in await core.store.keys.set_enabled(key.id, enabled=enabled, dialect=key.dialect):
        if json:
            print_json(credential((await _owner(core, changed)).name, changed, secret=False))
        else:
            print_line(f"The {changed.dialect} credential {changed.id!r} is {'enabled' if enabled else 'disabled'}.")


async def _owner(core: Core, key: ApiKey) -> Application:
    return next(app for app in await core.store.applications.list_all() if app.id == key.app)


async def _note_strangers(core: Core, app: Application, key: ApiKey) -> None:
    agents = [agent for _, agent in await core.store.agents.list_all(app)]
    for name in unknown_agents(key, agents):
        print_note(
            f"{app.name!r} has no agent {name!r} yet; create it with 'palaver agent apply FILE --app {app.name}'."
        )


def _kept(option: str, given: str) -> str:
    given = given.strip()
    if not given or len(given) > 255 or not given.isprintable():
        raise typer.BadParameter("must be 1 to 255 printable characters", param_hint=option)
    return given


def _label(given: str | None) -> str:
    label = clean(given or "").strip()
    if len(label) > 255 or not label.isprintable():
        raise typer.BadParameter("must be at most 255 printable characters", param_hint="--label")
    return label


def _print(app: str, key: ApiKey, *, secret: bool = True) -> None:
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
