"""``palaver key``: credentials. A change is in force in running servers at once: the store tells them."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any

import msgspec
import typer

from palaver.app import Core, all_dialects
from palaver.cli.session import AnyApp, App, Json, Yes, checked_name, on_core, only_app
from palaver.cli.terminal import note, say, say_json, table
from palaver.core.problems import Conflict, NotFound
from palaver.core.types import Application, Key
from palaver.doctor import strangers
from palaver.wire.contract import Dialect
from palaver.wire.settings import read_settings

group = typer.Typer(name="key", help="Credentials: what callers prove who they are with.", no_args_is_help=True)


def dialect_named(name: str | Dialect) -> Dialect:
    if isinstance(name, Dialect):
        return name
    known = {dialect.name: dialect for dialect in all_dialects()}
    if name not in known:
        raise typer.BadParameter(f"there is no dialect {name!r}; there are: {', '.join(known)}")
    return known[name]


def setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value read as JSON where it is JSON, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    try:
        return name.strip(), msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name.strip(), value


Id = Annotated[str, typer.Argument(metavar="ID", help="The credential's id.", show_default=False)]
OfDialect = Annotated[
    str | None,
    typer.Option("--dialect", metavar="DIALECT", help="Where several dialects have that id.", show_default=False),
]


@group.command()
@on_core
async def create(
    core: Core,
    *,
    app: App = "demo",
    dialect: Annotated[
        Dialect, typer.Option(parser=dialect_named, metavar="DIALECT", help="The API it is for.", show_default=False)
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting; may be repeated.", show_default=False),
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Keep an id that callers have already.", show_default=False)
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", help="Keep a secret that callers have already; - reads it.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Make a credential, and its application if that is new."""
    settings = read_settings(dict(map(setting, set_ or ())), dialect.settings)
    new_id, new_secret = dialect.new_credential(secrets.token_bytes(32))
    if secret == "-":  # noqa: S105  the sign for standard input
        secret = sys.stdin.readline()
    owner = await core.store.applications.named(checked_name(app))
    key = await core.store.keys.create(
        owner,
        dialect.name,
        new_id if id is None else _kept("--id", id),
        new_secret if secret is None else _kept("--secret", secret),
        settings,
        enabled=settings.get("enabled", True),
    )
    await _note_strangers(core, owner, key)
    if json:
        say_json(credential(owner.name, key, secret=True))
    else:
        _print(owner.name, key)


@group.command("list")
@on_core
async def list_(
    core: Core,
    *,
    app: AnyApp = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="Show the secrets as well.")] = False,
    json: Json = False,
) -> None:
    """List the credentials."""
    keys = await core.store.keys.all(await only_app(core, app))
    if json:
        say_json([{**credential(name, key, secret=secrets), "enabled": key.enabled} for name, key in keys])
        return
    extra = ("SECRET",) if secrets else ()
    table(
        ("APP", "DIALECT", "ID", "ENABLED", "SETTINGS", *extra),
        [
            (name, key.dialect, key.id, key.enabled, _line(key.settings), *((key.secret,) if secrets else ()))
            for name, key in keys
        ],
        nothing="There is no credential; 'palaver key create --app NAME --dialect DIALECT' makes one.",
    )


@group.command()
@on_core
async def disable(core: Core, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Refuse every call with this credential, in running servers as well."""
    await _switch(core, await _one(core, id, dialect), enabled=False, json=json)


@group.command()
@on_core
async def enable(core: Core, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Admit calls with this credential again."""
    await _switch(core, await _one(core, id, dialect), enabled=True, json=json)


@group.command()
@on_core
async def rotate(core: Core, id: Id, *, dialect: OfDialect = None, json: Json = False) -> None:
    """Give a credential a new secret; the old one is worth nothing from now on."""
    key = await _one(core, id, dialect)
    _, secret = dialect_named(key.dialect).new_credential(secrets.token_bytes(32))
    key = await core.store.keys.rotate(key, secret)
    app = await _owner(core, key)
    if json:
        say_json(credential(app, key, secret=True))
    else:
        _print(app, key)


@group.command()
@on_core
async def delete(core: Core, id: Id, *, dialect: OfDialect = None, yes: Yes = False, json: Json = False) -> None:  # noqa: ARG001  asked before
    """Remove a credential for good."""
    key = await _one(core, id, dialect)
    await core.store.keys.delete(key)
    if json:
        say_json({"dialect": key.dialect, "id": key.id, "deleted": True})
    else:
        say(f"Removed the {key.dialect} credential {key.id!r}.")


def credential(app: str, key: Key, *, secret: bool) -> dict[str, Any]:
    """A credential as scripts get it."""
    settings = dict(key.settings)
    if not key.enabled or "enabled" in settings:  # the column is what counts
        settings["enabled"] = key.enabled
    shown = {"secret": key.secret} if secret else {}
    return {"dialect": key.dialect, "app": app, "id": key.id, **shown, "settings": settings}


async def _one(core: Core, id: str, dialect: str | None) -> Key:
    found = [key for key in await core.store.keys.find(id) if dialect in {None, key.dialect}]
    if not found:
        raise NotFound(noun="key", ref=id)
    if len(found) > 1:
        names = " or ".join(key.dialect for key in found)
        raise Conflict(reason="name", detail=f"several dialects have a credential {id!r}: add --dialect {names}")
    return found[0]


async def _switch(core: Core, key: Key, *, enabled: bool, json: bool) -> None:
    for changed in await core.store.keys.enable(key.id, enabled=enabled, dialect=key.dialect):
        if json:
            say_json(credential(await _owner(core, changed), changed, secret=False))
        else:
            say(f"The {changed.dialect} credential {changed.id!r} is {'enabled' if enabled else 'disabled'}.")


async def _owner(core: Core, key: Key) -> str:
    return next(app.name for app in await core.store.applications.all() if app.id == key.app)


async def _note_strangers(core: Core, app: Application, key: Key) -> None:
    agents = [agent for _, agent in await core.store.agents.all(app)]
    for name in strangers(key, agents):
        note(f"{app.name!r} has no agent {name!r} yet; 'palaver agent apply FILE --app {app.name}' makes one.")


def _kept(option: str, given: str) -> str:
    given = given.strip()
    if not given or len(given) > 255 or not given.isprintable():
        raise typer.BadParameter("1 to 255 printable characters are needed", param_hint=option)
    return given


def _print(app: str, key: Key) -> None:
    rows = [("app", app), ("dialect", key.dialect), ("id", key.id), ("secret", key.secret)]
    if key.settings:
        rows.append(("settings", _line(key.settings)))
    for name, value in rows:
        say(f"{name:<9} {value}")


def _line(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in settings.items())
