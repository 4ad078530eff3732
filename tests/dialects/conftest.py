"""What the tests of dialects share: a server for each module, with the settings that it names, and its end users."""

from __future__ import annotations

from collections.abc import Generator
from types import ModuleType
from typing import Any, cast

import pytest
from support.databases import Databases
from support.kit import run
from support.live_server import Served, serving
from support.route_calls import Sender, sender
from support.tenants import ASKS, World


@pytest.fixture(scope="module")
def served(
    cluster: Databases, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Generator[Served]:
    """A server on an empty database; ``SETTINGS`` of the module are its settings."""
    module = cast("ModuleType", request.module)  # pyright: ignore[reportUnknownMemberType]
    settings: dict[str, Any] = getattr(module, "SETTINGS", {})
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data"), **settings) as server:
        yield server
    run(cluster.release(name))


@pytest.fixture(scope="module")
def world(served: Served) -> World:
    return World(served)


@pytest.fixture(scope="module")
def send(world: World) -> Sender:
    """Bob's request to a route, with a key that may use one agent."""
    return sender(world, ASKS, world.key)
