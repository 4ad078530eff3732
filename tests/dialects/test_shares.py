"""Whatever limit a call goes beyond: each dialect refuses it in its own form, with ``Retry-After`` where that helps."""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.adapters import ADAPTERS
from support.contract import DIALECTS
from support.http_clients import Ask
from support.limits import USER, Guest, Refusal, Refusals, assert_refused, new_guest
from support.live_server import HOLD, Served

from palaver.config import Settings
from palaver.core.chat import NewMessage
from palaver.core.types import Text
from palaver.store.quotas import QuotaKind

SETTINGS: dict[str, Any] = {
    "max_live_runs": 8,
    "max_application_runs": 4,
    "max_credential_runs": 2,
    "max_waiting_turns": 0,
    "max_buffered_bytes": 1,
    "max_spooled_bytes": 1,
    "max_body_bytes": 150_000,
    "max_user_files_bytes": 3000,
    "max_application_files_bytes": 5000,
}
LIMITS = {name: adapter.limits for name, adapter in ADAPTERS.items()}


def guest_of(served: Served, dialect: str, **settings: Any) -> Guest:
    return new_guest(served, dialect, LIMITS[dialect], **settings)


def upload(guest: Guest, dialect: str, size: int) -> Ask:
    request = LIMITS[dialect].upload
    assert request is not None
    return request(guest, size)


# Reaching limits ----------------------------------------------------------------------------------------------------


@contextmanager
def used(served: Served, dialect: str, limit: str) -> Generator[Ask]:
    """One call was made, of one that the credential may make."""
    guest = guest_of(served, dialect, **{limit: 1})
    served.do(served.core.admission.charge(guest.key))
    yield LIMITS[dialect].send(guest, "hi")


@contextmanager
def slots(served: Served, dialect: str, share: str) -> Generator[Ask]:
    """All runs are taken that the share has."""
    guest = guest_of(served, dialect, **({"max_runs": 1} if share == "max_runs" else {}))
    app, number = guest.key.app, guest.key.number

    def name(at: int) -> tuple[int, int]:
        strangers = {"max_live_runs": (10**9 + at, at), "max_application_runs": (app, 10**9 + at)}
        return strangers.get(share, (app, number))

    taken: list[tuple[int, int]] = []

    async def take() -> None:
        taken.extend(
            name(at) for at in range(20) if served.core.runs.slots.acquire(*name(at), guest.key.setting("max_runs"))
        )

    async def give_back() -> None:
        for each in taken:
            served.core.runs.slots.release(*each)

    served.do(take())
    expected = {"max_live_runs": 8, "max_application_runs": 4, "max_credential_runs": 2, "max_runs": 1}
    try:
        assert len(taken) == expected[share]
        yield LIMITS[dialect].send(guest, "hi")
    finally:
        served.do(give_back())


@contextmanager
def waiting(served: Served, dialect: str) -> Generator[Ask]:
    """The conversation has a turn at work, whose reader is there."""
    guest = guest_of(served, dialect)
    held = served.agent("so far", HOLD, application=guest.application, name=guest.agent.name)
    who = served.principal(guest.key, USER)
    place = guest.conversation.id
    sent = served.do(served.core.chat.send(who, held, NewMessage(parts=(Text(text="hi"),)), conversation=place))
    try:
        yield LIMITS[dialect].send(guest, "hi")
    finally:
        assert served.stop_run(UUID(int=sent.run_uid.int))


@contextmanager
def quota(served: Served, dialect: str, kind: QuotaKind) -> Generator[Ask]:
    """As many rows as may be are there."""
    guest = guest_of(served, dialect)
    ask = LIMITS[dialect].send(guest, "hi") if kind == "conversation_messages" else LIMITS[dialect].start(guest)
    if kind == "users":
        served.do(served.core.store.db.execute("DELETE FROM end_user WHERE app = $1", guest.key.app))
        served.do(served.core.store.db.execute("SELECT pg_notify('palaver', 'users')"))
        served.agent(application=guest.application)  # waits for notices
    with served.full(kind):
        yield ask.also("Idempotency-Key", "k") if kind == "idempotency_keys" else ask


@contextmanager
def files(served: Served, dialect: str, keeper: str, size: int) -> Generator[Ask]:
    guest = guest_of(served, dialect)
    who = served.principal(guest.key, keeper)
    key = f"local/default/20260101/{served.new_name('file')}.txt"
    add = served.core.services.files.add(who, key=key, name="a.txt", media_type="text/plain", content=b"x" * 2500)
    served.do(add)
    yield upload(guest, dialect, size)


@contextmanager
def large(served: Served, dialect: str, size: int) -> Generator[Ask]:
    yield LIMITS[dialect].send(guest_of(served, dialect), "x" * size)


@contextmanager
def spooled(served: Served, dialect: str) -> Generator[Ask]:
    yield upload(guest_of(served, dialect), dialect, 200_000)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit: the reason of its refusal, what reaches it, and the dialects that have calls which it limits."""

    refusal: Callable[[Refusals], Refusal | None]
    reach: Callable[[Served, str], AbstractContextManager[Ask]]
    dialects: tuple[str, ...] = tuple(LIMITS)


DAILY = tuple(name for name, limits in LIMITS.items() if limits.refusals.daily_rate is not None)
UPLOADS = tuple(name for name, limits in LIMITS.items() if limits.upload is not None)
REQUEST_IDS = tuple(name for name, limits in LIMITS.items() if limits.checks_request_ids)
CASES: Mapping[str, Limit] = {
    "rpm": Limit(lambda r: r.rate, lambda s, d: used(s, d, "rpm")),
    "rpd": Limit(lambda r: r.daily_rate, lambda s, d: used(s, d, "rpd"), DAILY),
    "total": Limit(lambda r: r.usage, lambda s, d: used(s, d, "total")),
    "max_live_runs": Limit(lambda r: r.overload, lambda s, d: slots(s, d, "max_live_runs")),
    "max_application_runs": Limit(lambda r: r.overload, lambda s, d: slots(s, d, "max_application_runs")),
    "max_credential_runs": Limit(lambda r: r.overload, lambda s, d: slots(s, d, "max_credential_runs")),
    "max_runs": Limit(lambda r: r.overload, lambda s, d: slots(s, d, "max_runs")),
    "max_waiting_turns": Limit(lambda r: r.waiting, waiting),
    "max_buffered_bytes": Limit(lambda r: r.overload, lambda s, d: large(s, d, 100_000)),
    "max_spooled_bytes": Limit(lambda r: r.overload, spooled, UPLOADS),
    "max_body_bytes": Limit(lambda r: r.body, lambda s, d: large(s, d, 200_000)),
    "max_user_files_bytes": Limit(lambda r: r.file, lambda s, d: files(s, d, USER, 1000), UPLOADS),
    "max_application_files_bytes": Limit(lambda r: r.file, lambda s, d: files(s, d, "bob", 2800), UPLOADS),
    "max_users": Limit(lambda r: r.full, lambda s, d: quota(s, d, "users")),
    "max_conversations": Limit(lambda r: r.full, lambda s, d: quota(s, d, "conversations")),
    "max_user_conversations": Limit(lambda r: r.full, lambda s, d: quota(s, d, "user_conversations")),
    "max_conversation_messages": Limit(lambda r: r.full, lambda s, d: quota(s, d, "conversation_messages")),
    "max_idempotency_keys": Limit(lambda r: r.full, lambda s, d: quota(s, d, "idempotency_keys")),
    "max_request_ids": Limit(lambda r: r.full, lambda s, d: quota(s, d, "request_ids"), REQUEST_IDS),
}


@pytest.mark.parametrize(("limit", "dialect"), [(name, one) for name, limit in CASES.items() for one in limit.dialects])
def test_a_call_beyond_a_limit_is_refused_in_the_dialects_form(served: Served, limit: str, dialect: str) -> None:
    with CASES[limit].reach(served, dialect) as ask:
        answer = served.ask(ask)
    refusal = CASES[limit].refusal(LIMITS[dialect].refusals)
    assert refusal is not None
    assert_refused(answer, refusal)


@pytest.mark.parametrize("dialect", LIMITS)
def test_the_same_calls_are_answered_where_nothing_is_full(served: Served, dialect: str) -> None:
    """So that the one above can fail."""
    guest, limits = guest_of(served, dialect), LIMITS[dialect]
    for ask in (limits.send(guest, "hi"), limits.start(guest).also("Idempotency-Key", "k")):
        answer = served.ask(ask)
        assert answer.status == 200
        assert not any(refusal.text in answer.body.decode() for refusal in limits.refusals.each())
    if limits.upload is not None:
        assert served.ask(limits.upload(guest, 1000)).status in {200, 201}


# Nothing is forgotten -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", LIMITS)
def test_no_limit_of_a_dialect_is_left_out(dialect: str) -> None:
    limits = LIMITS[dialect]
    settings = {setting.name for setting in DIALECTS[dialect].settings}
    assert (limits.refusals.daily_rate is not None) == ("rpd" in settings)
    assert (limits.refusals.file is None) == (limits.upload is None)


TESTS = Path(__file__).parent.parent
ELSEWHERE = {
    "max_codes": "dialects/wps/test_tokens.py::test_codes_and_tokens_beyond_their_quota_are_refused",
    "max_tokens": "dialects/wps/test_tokens.py::test_codes_and_tokens_beyond_their_quota_are_refused",
    "max_upload_bytes": "dialects/xspace/test_files.py::test_an_upload_that_breaks_a_rule_is_refused",
    "max_unverified_connections": "e2e/test_limits.py::test_a_connection_outlives_any_number_that_come_behind_it",
    "max_page_bytes": "dialects/test_long_histories.py::test_every_message_comes_once_and_in_its_order",
    "fetch_max_bytes": "tools/test_guard.py",
    "max_answer_bytes": "core/test_answers_of_endpoints.py",
    "max_live_bytes": "core/test_writeback.py",
}
"""Limits that refuse no call, or not as a problem of a dialect: the tests that show them."""


def test_every_limit_among_the_settings_is_shown() -> None:
    limits = {name for name in Settings.__struct_fields__ if name.startswith("max_") or "_max_" in name}
    assert limits == (set(CASES) - {"rpm", "rpd", "total", "max_runs"}) | set(ELSEWHERE)


@pytest.mark.parametrize("where", sorted(set(ELSEWHERE.values())))
def test_what_shows_a_limit_is_there(where: str) -> None:
    path, _, test = where.partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not test or test in names
