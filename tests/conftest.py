"""What tests share: one embedded PostgreSQL for the whole session, a fresh database for every test that asks."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import settings
from support.databases import Databases
from support.kit import run
from support.stalls import STALLS
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from palaver.store.embedded import EmbeddedPostgres

SLOW = (
    "test_stopping.py",
    "test_life.py",
    "test_growth.py",
    "test_isolation.py",
    "test_overload.py",
    "test_hostile.py",
    "test_hostile_documents.py",
    "test_pgbouncer.py",
    "test_wheel.py",
    "test_bench.py",
    "test_logs.py",
    "test_bad_input.py",
    "test_exactly_once.py",
)
"""Files that take long, the longest first; then whatever else starts processes."""
APART = (
    "e2e/test_stopping.py",
    "e2e/test_life.py",
    "e2e/test_pgbouncer.py",
    "store/test_embedded.py",
    "cli/test_key.py",
    "cli/test_serve.py",
    "cli/test_database.py",
    "cli/test_agent.py",
)
"""Files that take long and whose tests share little: any process takes any of them; of others, one takes all."""


for name in (signal.SIGINT, signal.SIGQUIT):
    # Ignored where a script started the tests in the background, and then by every program that they start.
    if signal.getsignal(name) == signal.SIG_IGN:
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)


settings.register_profile("palaver", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("palaver")


class ByFile(LoadScopeScheduling):
    """What is one piece of work: a file, or a test of a file that is in ``APART``."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path.endswith(APART) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile | None:
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: needs PostgreSQL; whatever uses the fixture 'cluster' has it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that at the end no process works alone. What needs PostgreSQL is marked."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster" in item.fixturenames:
            item.add_marker("database")
    place = {name: at for at, name in enumerate(SLOW)}

    def order(item: pytest.Item) -> tuple[int, bool]:
        return place.get(item.path.name, len(SLOW)), item.get_closest_marker("e2e") is None

    items.sort(key=order)


@pytest.fixture(autouse=True)
def no_stall(request: pytest.FixtureRequest) -> Generator[None]:
    """A test fails when the event loop of a server that it uses has stalled, unless it is marked ``stalls``."""
    yield
    stalls = STALLS.take()
    if stalls and cast("pytest.Item", request.node).get_closest_marker("stalls") is None:
        pytest.fail("the event loop of a server stalled\n" + "\n".join(stalls))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Databases]:
    """An embedded PostgreSQL; all of pytest-xdist's processes use the same one, the last of them stops it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    short = Path(tempfile.gettempdir()) / f"palaver-tests-{folder.name}-{os.getuid()}"
    embedded = EmbeddedPostgres(short)
    databases = Databases(embedded.start())
    run(databases.prepare())
    yield databases
    if embedded.release():
        shutil.rmtree(short)


@pytest.fixture
def database_url(cluster: Databases) -> Generator[str]:
    """The address of a migrated, empty database of this test's own."""
    name, url = run(cluster.acquire())
    yield url
    run(cluster.release(name))
