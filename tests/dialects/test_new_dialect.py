"""A new dialect is one folder of code and one of tests: it is found, serves, streams and is in every shared suite."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from support.contract import ContractAdapter
from support.http_clients import Ask
from support.live_server import serving
from support.survey import ROOT

from palaver import app, dialects

SOURCE = '''
"""A vendor that nobody has heard of: plain text in, plain text out."""

from palaver.core.chat import NewMessage
from palaver.core.events import TextDelta
from palaver.core.problems import Unauthenticated
from palaver.core.types import Principal, RunEnded, Text
from palaver.wire.contract import CredentialClaim, Dialect, Response, Route, StreamingResponse


class TextEncoder:
    aborts_on_failure, always_heartbeat, flush_at, heartbeat = False, False, None, b"."

    def encode(self, event, now):
        match event:
            case TextDelta(text=text):
                return [text.encode()]
            case RunEnded(status=status):
                return [f"<{status}>".encode()]
            case _:
                return []

    def flush(self, now):
        return []


def claim(call):
    return CredentialClaim(secret=call.headers.get("x-word", ""))


def verify(call, key, token):
    if key is None:
        raise Unauthenticated(reason="unknown")
    return Principal(key=key, user="anybody")


def refuse(problem, call, key=None):
    return Response(status=418, body=str(problem.kind).encode(), media_type="text/plain")


async def agents(call, who, services):
    names = ",".join(one.name for one in await services.chat.agents(who))
    return Response(body=names.encode(), media_type="text/plain")


async def chat(call, who, services):
    agent = await services.chat.agent(who, call.path_params["agent"])
    turn = await services.chat.send(who, agent, NewMessage(parts=(Text(text=call.body.decode()),), trace=call.trace))
    return StreamingResponse(reader=turn.reader, replayed=turn.replayed, encoder=TextEncoder(), media_type="text/plain")


DIALECT = Dialect(
    name="parrot",
    prefixes=("/parrot/",),
    routes=(
        Route(method="GET", path="/parrot/agents", endpoint=agents, summary="list agents"),
        Route(method="POST", path="/parrot/{agent}", endpoint=chat, summary="chat"),
    ),
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=lambda seed: ("parrot-" + seed.hex()[:8], seed.hex()),
    curl=lambda sample: f"curl {sample.base_url}/parrot/agents",
)
'''
ADAPTER = '''
"""What the tests of all dialects have to know of this one."""

from dialects.parrot import client
from support.check_orders import CheckOrder, fault
from support.contract import ContractAdapter, Form, Heard
from support.histories import HistoryForm
from support.id_fields import UUIDS, IdField
from support.limits import LimitCalls, Refusal, Refusals
from support.stream_forms import StreamForm
from support.turns import FailedTurnForm, MessageForm, StopForm

from palaver.dialects.parrot import TextEncoder


def read(writes):
    return [Heard(last=write.startswith(b"<"), text=write.decode()) for write in writes]


ORDER = CheckOrder(
    name="parrot",
    valid_call=client.valid_call,
    faults=(fault("no key", 418, key=None), fault("no agent", 418, path="/parrot/none")),
    request=client.call,
    summary=client.status,
)
REFUSALS = Refusals(
    rate=Refusal(418, "busy"),
    daily_rate=None,
    usage=Refusal(418, "busy"),
    waiting=Refusal(418, "busy"),
    overload=Refusal(418, "busy"),
    full=Refusal(418, "busy"),
    file=None,
    body=Refusal(418, "invalid"),
)
ADAPTER = ContractAdapter(
    forms=(Form(name="text", encoder=TextEncoder, read=read),),
    wrong_credentials=({}, {"X-Word": "?"}),
    credentials_with=lambda text: ({"X-Word": text},),
    streams=(StreamForm(name="parrot", ask=client.stream),),
    id_fields={"GET /parrot/agents": (), "POST /parrot/{agent}": ({"agent": IdField("agent", UUIDS)},)},
    exempt_id_fields={},
    not_ids={},
    client=client.client,
    key_settings=lambda agent: {},
    sign=lambda key, request: {"X-Word": key.secret},
    requests=client.requests,
    check_orders=(ORDER,),
    limits=LimitCalls(
        settings={},
        send=client.send,
        start=client.start,
        upload=None,
        checks_request_ids=False,
        refusals=REFUSALS,
    ),
    stops=(StopForm(name="parrot", open=client.stop),),
    messages=(MessageForm(name="parrot", open=client.messages),),
    failed_turns=(FailedTurnForm(name="parrot", read=client.failed_turn),),
    histories=(HistoryForm(name="parrot", first=client.pages),),
)
'''
CLIENT = """
def stream(served, agent): ...
def client(served, agent): ...
def requests(served, user, agents, key): ...
def valid_call(served): ...
def call(served, key, call): ...
def status(answer): ...
def send(guest, text): ...
def start(guest): ...
def stop(served, agent): ...
def messages(served, agent, **settings): ...
def failed_turn(served, agent): ...
def pages(conversation): ...
"""
SUITES = (
    "dialects/test_abandoned.py",
    "dialects/test_any_pace.py",
    "dialects/test_contract.py",
    "dialects/test_every_call_counts.py",
    "dialects/test_exactly_once.py",
    "dialects/test_failed_history.py",
    "dialects/test_isolation.py",
    "dialects/test_long_answers.py",
    "dialects/test_long_histories.py",
    "dialects/test_one_conversation.py",
    "dialects/test_openapi.py",
    "dialects/test_order.py",
    "dialects/test_routes.py",
    "dialects/test_samples.py",
    "dialects/test_shares.py",
    "dialects/test_statements.py",
    "dialects/test_stop.py",
    "dialects/test_streams_end.py",
    "e2e/test_logs.py",
)
TESTS = ROOT / "tests"
NAME = f"{dialects.__name__}.parrot"


@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The vendor's folder, beside the others' for as long as a test lasts."""
    folder = tmp_path / "dialects" / "parrot"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(folder.parent)])
    monkeypatch.setattr(dialects, "parrot", None, raising=False)  # what an import sets there is gone afterwards
    importlib.invalidate_caches()
    yield
    sys.modules.pop(NAME, None)


def test_a_folder_is_a_dialect(parrot: None, database_url: str, tmp_path: Path) -> None:
    names = [dialect.name for dialect in app.all_dialects()]
    assert names == sorted({*names, "parrot"})
    assert len(names) == 6
    with serving(database_url, tmp_path / "data") as served:
        agent = served.agent("turn ${turn}: ${content}", name="parrot")
        headers = [("X-Word", served.key("parrot").secret)]
        listed = served.ask(Ask(method="GET", path="/parrot/agents", headers=headers))
        assert (listed.status, listed.body) == (200, b"parrot")
        with served.connection() as connection:
            connection.send(Ask(path=f"/parrot/{agent.uid}", headers=headers, body="你好".encode()))
            answer = connection.answer()
        assert (answer.status, answer.header("Content-Type"), answer.complete) == (200, "text/plain", True)
        assert answer.body.replace(b".", b"").decode() == "turn 1: 你好<complete>"
        assert served.ask(Ask(path=f"/parrot/{agent.uid}", headers=[("X-Word", "?")])).status == 418
        assert served.ask(Ask(method="GET", path="/parrot/a/b/c", headers=headers)).status == 418
        assert json.loads(served.ask(Ask(path="/v1/chat/stream")).body)["code"] == 10401


def test_without_its_folder_there_is_none() -> None:
    assert "parrot" not in [dialect.name for dialect in app.all_dialects()]


# Its tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the vendor's two folders."""
    nothing_built = shutil.ignore_patterns("*.pyc.*", "*.js", "node_modules")  # compiled modules save time
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=nothing_built)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    source, tests = tmp_path / "src" / "palaver" / "dialects" / "parrot", tmp_path / "tests" / "dialects" / "parrot"
    source.mkdir()
    tests.mkdir()
    (source / "__init__.py").write_text(SOURCE)
    (tests / "contract_adapter.py").write_text(ADAPTER)
    (tests / "client.py").write_text(CLIENT)
    return tmp_path


def collect(project: Path) -> subprocess.CompletedProcess[str]:
    suites = [f"tests/{suite}" for suite in SUITES]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *suites]
    environment = {**kept, "PYTHONPATH": str(project / "src")}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_it_is_in_every_shared_suite(project: Path) -> None:
    collected = collect(project)
    assert collected.returncode == 0, collected.stdout[-3000:]
    tests = [line.partition("::") for line in collected.stdout.splitlines()]
    without = [suite for suite in SUITES if not any(suite in file and "parrot" in test for file, _, test in tests)]
    assert without == []


def test_every_suite_that_knows_all_dialects_is_shared() -> None:
    """In the code: a suite is here once it takes its cases from the adapters or the routes of all dialects."""
    folder = TESTS / "dialects"
    knowing = {f"dialects/{path.name}" for path in folder.glob("test_*.py") if "support.adapters" in path.read_text()}
    assert knowing - set(SUITES) == {*ONE_FORM, f"dialects/{Path(__file__).name}"}


ONE_FORM = {"dialects/test_deletion.py", "dialects/test_slow_readers.py"}
"""Suites that take one dialect or form of them, or count those that they try."""


def test_no_shared_suite_names_a_dialects_client() -> None:
    """So that a new dialect needs nothing in it."""
    importing = [suite for suite in SUITES if re.search(r"^from dialects\.", (TESTS / suite).read_text(), re.MULTILINE)]
    assert importing == WITH_TESTS_OF_ONE_DIALECT


WITH_TESTS_OF_ONE_DIALECT = [
    "dialects/test_every_call_counts.py",
    "dialects/test_exactly_once.py",
    "dialects/test_isolation.py",
    "dialects/test_long_answers.py",
    "dialects/test_streams_end.py",
]
"""Suites that test a feature of one vendor too, beside what they test of all dialects."""


def test_a_dialect_without_tests_fails_every_suite(project: Path) -> None:
    shutil.rmtree(project / "tests" / "dialects" / "parrot")
    assert_nothing_is_collected(project, "No module named 'dialects.parrot'")


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("    client=client.client,\n", "client"),
        ('    stops=(StopForm(name="parrot", open=client.stop),),\n', "stops"),
    ],
    ids=["client", "stops"],
)
def test_a_member_that_is_left_out_fails_every_suite(project: Path, member: str, name: str) -> None:
    adapter = project / "tests" / "dialects" / "parrot" / "contract_adapter.py"
    assert member in ADAPTER
    adapter.write_text(ADAPTER.replace(member, ""))
    assert_nothing_is_collected(project, f"missing 1 required keyword-only argument: '{name}'")


def test_no_member_has_a_default() -> None:
    members = dataclasses.fields(ContractAdapter)
    assert [member.name for member in members if member.default is not dataclasses.MISSING] == []


def assert_nothing_is_collected(project: Path, reason: str) -> None:
    collected = collect(project)
    assert collected.returncode != 0
    assert reason in collected.stdout + collected.stderr
    assert "::" not in collected.stdout
