"""What a caller may search is what the agents know that it may use, at every route that searches."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import pytest
from dialects.snail.client import FAR, jwt
from dialects.snail.client_b import SEARCH, B, Caller, good
from support.http_clients import Answer, Ask
from support.live_server import APPLICATION, Served

from palaver import app
from palaver.core.types import ApiKey
from palaver.knowledge.ingest import ingest

ROUTES = {
    f"{dialect.name} {route.method} {route.path}": route
    for dialect in app.all_dialects()
    for route in dialect.routes
    if "knowledge" in cast("FunctionType", inspect.unwrap(route.endpoint)).__code__.co_names
}
BASES = ("of both", "of one", "of a disabled agent", "of nobody")


def by_secret(served: Served, key: ApiKey) -> list[tuple[str, str | bytes]]:
    return [("Snail-Ai-Auth", key.secret)]


def by_own_token(served: Served, key: ApiKey) -> list[tuple[str, str | bytes]]:
    return [("Snail-Ai-Auth", f"Bearer {jwt({'appId': key.id, 'exp': FAR}, key.secret)}")]


def by_embed_token(served: Served, key: ApiKey) -> list[tuple[str, str | bytes]]:
    caller = Caller(served, key)
    open_id = caller.register("in-a-browser")
    token: str = good(caller.post(f"{B}/embed-token", openId=open_id))["token"]
    return [("Snail-Ai-Auth", f"Bearer {token}")]


@pytest.fixture(scope="module")
def bases(served: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The application's knowledge bases by name, each with one document."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "a.md").write_text("An apple keeps well.")

    async def fill(name: str) -> int:
        shelf = served.core.store.knowledge
        owner = await served.core.store.applications.get_or_create(APPLICATION)
        await ingest(shelf, owner.id, name, [folder])
        return await shelf.get_or_create(owner.id, name)

    return {name: served.do(fill(name)) for name in BASES}


@pytest.fixture(scope="module")
def agent(served: Served, bases: dict[str, int]) -> str:
    """The agent that a restricted key may use; there are two others."""
    served.agent(name="other", knowledge=("of both",))
    served.agent(name="disabled", knowledge=("of a disabled agent",), enabled=False)
    return str(served.agent(name="chosen", knowledge=("of both", "of one")).uid)


def search_on_snail(served: Served, headers: list[tuple[str, str | bytes]], base: int) -> Answer:
    body = json.dumps({"ragId": base, "query": "apple"}).encode()
    return served.ask(Ask(path=SEARCH, headers=headers, body=body))


SEARCHES: dict[str, Callable[[Served, list[tuple[str, str | bytes]], int], Answer]] = {
    f"snail POST {SEARCH}": search_on_snail,
}


def test_every_route_that_searches_is_asked_here() -> None:
    assert set(SEARCHES) == set(ROUTES)
    for route in ROUTES.values():
        assert route.operation is not None
        assert "knowledge" in route.operation.not_found


@pytest.mark.parametrize("credential", [by_secret, by_own_token, by_embed_token])
@pytest.mark.parametrize("route", SEARCHES)
@pytest.mark.parametrize(
    ("agents", "known"),
    [
        (None, {"of both", "of one"}),
        ("chosen", {"of both", "of one"}),
        ("other", {"of both"}),
        ("disabled", set[str]()),
        ("nobody", set[str]()),
    ],
)
def test_a_caller_searches_what_its_agents_know(
    served: Served,
    bases: dict[str, int],
    agent: str,
    agents: str | None,
    known: set[str],
    route: str,
    credential: Callable[[Served, ApiKey], list[tuple[str, str | bytes]]],
) -> None:
    settings: dict[str, Any] = {} if agents is None else {"agents": [agent if agents == "chosen" else agents]}
    headers = credential(served, served.key("snail", **settings))
    unknown = SEARCHES[route](served, headers, max(bases.values()) + 1)
    for name, base in bases.items():
        answer = SEARCHES[route](served, headers, base)
        if name in known:
            assert "An apple keeps well." in answer.body.decode()
        else:
            assert (answer.status, answer.body) == (unknown.status, unknown.body)
