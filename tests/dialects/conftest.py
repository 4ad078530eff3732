"""What the tests of dialects share: one server a module, with the settings that the module names."""

from __future__ import annotations

from collections.abc import Generator
from types import ModuleType
from typing import Any, cast

import pytest
from support.databases import Databases
from support.kit import run
from support.live_server import Served, serving


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
