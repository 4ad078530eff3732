"""What belongs to somebody else answers like what there is not, at every route of every dialect, and stays as it is.

A dialect's ``id_fields`` say where ids stand; a route that is not there, or that reads an id which is not, fails here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
from dialects.xspace import client as xspace
from support.adapters import ADAPTERS
from support.http_clients import Answer
from support.id_fields import IdField, Probe
from support.route_calls import NOTHING, ROUTES, Sender, filled, sender
from support.tenants import ASKS, World

from palaver.wire.contract import Route

SETTINGS = {"heartbeat_s": 60, "run_timeout_s": 86_400}
"""The others' held runs outlive the module, however slow the machine is: their end is a change of what is theirs."""
EXEMPT = {title for adapter in ADAPTERS.values() for title in adapter.exempt_id_fields}


# Cases --------------------------------------------------------------------------------------------------------------


def _places(value: Any, at: str = "") -> Iterator[tuple[str, IdField]]:
    """(where, what) of the places in a probe."""
    match value:
        case IdField():
            yield at, value
        case dict():
            for name, member in cast("dict[str, Any]", value).items():
                yield from _places(member, name)
        case list():
            for member in cast("list[Any]", value):
                yield from _places(member, at)
        case _:
            pass


CASES = [
    pytest.param(route, probe, place, form, id=f"{title}: {at} as {form}" + (f" ({number})" if number else ""))
    for title, (dialect, route) in ROUTES.items()
    for number, probe in enumerate(ADAPTERS[dialect].id_fields.get(f"{route.method} {route.path}", ()))
    for at, place in _places(dict(probe))
    for form in place.forms
]

# Reading answers ----------------------------------------------------------------------------------------------------

_NEW = (
    (re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}"), "UUID"),
    (re.compile(r'"traceId":"\w{32}"'), "TRACE"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*"), "DATE"),
    (re.compile(r"\d{13,}"), "MILLISECONDS"),
    (re.compile(r'"durationMs":\d+'), "DURATION"),
)


def _read(answer: Answer, name: str) -> tuple[int, list[tuple[str, str]], str]:
    """The answer without what is new in every one, and without the name that was asked for."""
    headers = [
        (header, _scrubbed(value, name))
        for header, value in answer.headers
        if header.lower() not in {"x-request-id", "content-length", "date"}
    ]
    return answer.status, sorted(headers), _scrubbed(answer.body.decode(), name)


def _scrubbed(text: str, name: str) -> str:
    for spelling in {name, quote(name, safe="")}:
        text = re.sub(rf"(?<![0-9A-Za-z]){re.escape(spelling)}(?![0-9A-Za-z])", "NAME", text)
    for pattern, replacement in _NEW:
        text = pattern.sub(replacement, text)
    return text


# Tests --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "probe", "place", "form"), CASES)
def test_what_is_somebody_elses_answers_like_what_there_is_not(
    world: World, send: Sender, route: Route, probe: Probe, place: IdField, form: str
) -> None:
    title, before = f"{place.kind}.{form}", world.untouched()

    def ask(name: str | None) -> Answer:
        answer = send(route, filled(dict(probe), world.mine, place, name))
        if route.method != "GET":
            world.renew()
        return answer

    missing = world.absent.names[title]
    expected = _read(ask(missing), missing)
    apart = any(f"{route.method} {route.path} {at}" in EXEMPT for at, one in _places(dict(probe)) if one is place)
    for whose, theirs in world.candidates(place.kind).items():
        name = theirs.names[title]
        answer = ask(name)
        if not (apart and whose == "another user's"):
            assert _read(answer, name) == expected, whose
        body = answer.body.decode().replace(name, "NAME")
        assert not [one for one in theirs.secrets if one in body], whose
    assert world.untouched() == before
    if not place.silent:
        assert _read(ask(world.mine.names[title]), world.mine.names[title]) != expected, "the case shows nothing"


LEAVES_NOTHING = [title for title, (_, route) in ROUTES.items() if not (route.idempotent or route.public)]


@pytest.mark.parametrize("title", LEAVES_NOTHING)
def test_who_leaves_nothing_behind_is_no_end_user(world: World, unseen: Sender, title: str) -> None:
    """Looking, and changing what there is not, makes nobody; only what begins something does."""
    dialect, route = ROUTES[title]
    before = world.served.sql("SELECT name FROM end_user ORDER BY id")
    for probe in ADAPTERS[dialect].id_fields.get(f"{route.method} {route.path}") or ({},):
        unseen(route, filled(dict(probe), world.mine, NOTHING, None))
    assert world.served.sql("SELECT name FROM end_user ORDER BY id") == before
    world.renew()


@pytest.fixture
def unseen(world: World) -> Sender:
    """Requests of an end user that nobody has named before."""
    user = world.served.new_name("unseen")
    return sender(world, user, world.served.key("wps", default_user=user, agents=[str(world.shared.uid)]))


def test_who_begins_something_is_an_end_user(world: World, unseen: Sender) -> None:
    """So that the one above can fail."""
    before = world.served.sql("SELECT 1 FROM end_user")
    unseen(ROUTES["native POST /palaver/v1/conversations"][1], {"agent": str(world.shared.uid)})
    assert len(world.served.sql("SELECT 1 FROM end_user")) == len(before) + 1


@pytest.mark.parametrize("kind", ["another user's", "another application's"])
def test_a_stored_file_of_somebody_elses_is_forbidden(world: World, kind: str) -> None:
    caller = xspace.Caller(world.served, default_user=ASKS)
    key = world.candidates("file")[kind].names["file.key"]
    assert caller.get(f"/api/f/{key}").status == 403
    assert caller.get(f"/api/f/{world.absent.names['file.key']}").status == 404
    assert caller.get(f"/api/f/{world.mine.names['file.key']}").status == 200


# Nothing is forgotten -----------------------------------------------------------------------------------------------

_ID = re.compile(r"(?:\A|_)ids?\Z|I[dD]s?\Z|[a-z](?:Key|Url)\Z|\Afiles\Z|_token\Z")


def _fields(route: Route) -> Iterator[str]:
    """The fields of the body and query that the route declares."""
    for spec in () if route.operation is None else (route.operation.body, route.operation.query):
        if spec is not None and spec.shape is not None:
            yield from (field.encode_name for field in msgspec.structs.fields(spec.shape))


@pytest.mark.parametrize(("dialect", "route"), ROUTES.values(), ids=list(ROUTES))
def test_no_route_that_names_something_is_left_out(dialect: str, route: Route) -> None:
    title = f"{route.method} {route.path}"
    probes = ADAPTERS[dialect].id_fields.get(title)
    if title in ADAPTERS[dialect].exempt_id_fields:
        return
    assert probes is not None, f"say in id_fields.py where ids stand in {title}"
    tried = {at.removeprefix("?") for probe in probes for at, _ in _places(dict(probe))}
    segments = set(re.findall(r"\{(\w+)\}", route.path))
    assert segments <= tried, f"{segments - tried} of {title}"
    if route.public:
        return
    known = set(ADAPTERS[dialect].not_ids)
    fields = {name for name in _fields(route) if _ID.search(name)}
    assert fields <= tried | known, f"{fields - tried - known} of {title}"


def test_no_place_is_of_a_route_that_is_gone() -> None:
    listed = {f"{dialect} {title}" for dialect, adapter in ADAPTERS.items() for title in adapter.id_fields}
    assert listed <= set(ROUTES)
    assert {" ".join(title.split()[:2]) for title in EXEMPT} <= {" ".join(title.split()[1:]) for title in ROUTES}
