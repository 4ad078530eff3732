"""Requests to every route of every dialect, with ids in the places that the dialect's adapter names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote, urlencode

from support.adapters import ADAPTERS
from support.http_clients import Answer, Ask
from support.id_fields import IdField
from support.tenants import Belongings, World

from palaver import app
from palaver.core.types import ApiKey
from palaver.wire.contract import Route

ROUTES = {
    f"{dialect.name} {route.method} {route.path}": (dialect.name, route)
    for dialect in app.all_dialects()
    for route in dialect.routes
}
NOTHING = IdField("", ())
WITH_BODY = {"POST", "PUT"}
Sender = Callable[[Route, Mapping[str, Any]], Answer]


def sender(world: World, user: str, key: ApiKey) -> Sender:
    """An end user's request to a route, with a key that may use one agent: ``key`` in its dialect."""
    served, agents = world.served, [str(world.shared.uid)]
    builders = {
        name: adapter.requests(served, user, agents, key if key.dialect == name else None)
        for name, adapter in ADAPTERS.items()
    }

    def send(route: Route, fields: Mapping[str, Any]) -> Answer:
        path, query, body = _written(route, fields)
        request = builders[ROUTES[_id(route)][0]](route, path, query, body)
        return served.ask(request if route.method in WITH_BODY else _bodiless(request))

    return send


def _id(route: Route) -> str:
    return next(name for name, (_, one) in ROUTES.items() if one is route)


def _bodiless(ask: Ask) -> Ask:
    return replace(ask, body=b"") if ask.body == b"{}" else ask


def _written(route: Route, fields: Mapping[str, Any]) -> tuple[str, str, Any]:
    """(path, query, body) of a request."""
    path, query, members = route.path, dict[str, str](), dict[str, Any]()
    for name, value in fields.items():
        if f"{{{name}}}" in route.path:
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        elif name.startswith("?") or route.method not in WITH_BODY:
            query[name.removeprefix("?")] = value
        else:
            members[name] = value
    return path, urlencode(query), members if route.method in WITH_BODY else b""


def filled(value: Any, mine: Belongings, tried: IdField, name: str | None) -> Any:
    """The probe with bob's names, and ``name`` where ``tried`` is."""
    match value:
        case IdField() if value is tried and name is not None:
            return name
        case IdField():
            return mine.names[f"{value.kind}.{value.forms[0]}"]
        case dict():
            members = cast("dict[str, Any]", value)
            return {key: filled(member, mine, tried, name) for key, member in members.items()}
        case list():
            return [filled(member, mine, tried, name) for member in cast("list[Any]", value)]
        case _:
            return value
