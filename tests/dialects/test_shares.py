"""Whatever limit a call goes beyond: each dialect refuses it in its own form, with ``Retry-After`` where that helps."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dialects.native import client as native
from dialects.snail import client as snail
from dialects.sonaops import client as sonaops
from dialects.wps import client as wps
from dialects.wps.test_tokens import BACK, consent, exchange
from dialects.xspace import client as xspace
from dialects.xspace.test_files import UPLOAD
from dialects.xspace.test_multipart import TYPE, form
from support.http_clients import Answer, Ask
from support.live_server import HOLD, Served

from palaver.config import Settings
from palaver.core.chat import NewMessage
from palaver.core.types import Agent, ApiKey, Conversation, Text
from palaver.store.quotas import QuotaKind

USER = "ann"
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
OWN: dict[str, dict[str, Any]] = {
    "native": {},
    "snail": {"auto_register": True},
    "sonaops": {"default_user": USER, "reject_repeated_request_id": True},
    "wps": {"default_user": USER, "redirect_uris": [BACK], "auto_approve_user": USER},
    "xspace": {"default_user": USER},
}
"""Settings of each dialect's credential."""
FORMS: dict[str, dict[str, tuple[int, str, bool]]] = {
    "native": {
        "rate": (429, '"rate_limited"', True),
        "day": (429, '"rate_limited"', True),
        "usage": (429, '"used_up"', False),
        "waiting": (429, '"busy"', True),
        "overload": (503, '"overloaded"', True),
        "full": (429, '"full"', False),
        "file": (400, '"size"', False),
        "body": (413, '"too_large"', False),
    },
    "snail": {
        "rate": (429, "请求过于频繁，请稍后再试", True),
        "usage": (429, "请求过于频繁，请稍后再试", True),
        "waiting": (200, "会话繁忙，请稍后再试", False),
        "overload": (200, "会话繁忙，请稍后再试", False),
        "full": (200, "存储配额已用完", False),
        "body": (413, "请求体过大", False),
    },
    "sonaops": {
        "rate": (200, '"code":10429', True),
        "usage": (200, '"code":10403', False),
        "waiting": (200, '"code":10429', False),
        "overload": (200, '"code":10429', False),
        "full": (200, "storage quota exceeded", False),
        "body": (413, '"code":10413', False),
    },
    "wps": {
        "rate": (429, '"code":429000001', True),
        "usage": (429, '"code":429000001', False),
        "waiting": (429, '"code":429000001', True),
        "overload": (429, '"code":429000001', True),
        "full": (429, "storage quota exceeded", False),
        "body": (413, '"code":413000001', False),
    },
    "xspace": {
        "rate": (200, '"code":"4290"', False),
        "day": (200, '"code":"4290"', False),
        "usage": (200, '"code":"4290"', False),
        "waiting": (200, "Agent正在执行任务", False),
        "overload": (200, "Agent正在执行任务", False),
        "full": (200, "Storage quota exceeded.", False),
        "file": (200, "File quota exceeded", False),
        "body": (200, "Request body too large", False),
    },
}
"""By dialect and reason: status, words, and whether it says when to try again."""


@dataclass(kw_only=True)
class Guest:
    """Somebody with a credential of a dialect, of an application of its own, and a conversation."""

    served: Served
    dialect: str
    application: str
    key: ApiKey
    agent: Agent
    conversation: Conversation

    def say(self, text: str = "hi") -> Ask:
        """A message to the conversation."""
        place = self.conversation
        match self.dialect:
            case "native":
                path = f"conversations/{place.uid.hex}/messages"
                return native.Caller(self.served, self.key, user=USER).request("POST", path, {"content": text})
            case "snail":
                caller = snail.Caller(self.served, self.key)
                return caller.request(caller.members(self.agent, text, user=USER, conversationId=place.uid.hex))
            case "sonaops":
                return sonaops.Caller(self.served, self.key, user=USER).asks(self.agent, place.uid.hex, text)
            case "wps":
                body = {"text": text, "stream": True, "session_id": str(place.uid)}
                return wps.Caller(self.served, self.key).request("POST", wps.chat(self.agent), body)
            case _:
                return xspace.Caller(self.served, self.key).request(
                    "POST", xspace.chat_path(place.id), {"message": text}
                )

    def begin(self) -> Ask:
        """A call that begins a conversation."""
        match self.dialect:
            case "native":
                body = {"agent": self.agent.uid.hex, "content": "hi"}
                return native.Caller(self.served, self.key, user=USER).request("POST", "messages", body)
            case "snail":
                caller = snail.Caller(self.served, self.key)
                return caller.request(caller.members(self.agent, user=USER))
            case "sonaops":
                body = {"agentId": str(self.agent.uid)}
                headers = {"X-Request-ID": self.served.new_name("request")}
                return sonaops.Caller(self.served, self.key, user=USER).request(sonaops.CREATE, body, headers=headers)
            case "wps":
                body = {"text": "hi", "stream": True}
                return wps.Caller(self.served, self.key).request("POST", wps.chat(self.agent), body)
            case _:
                return xspace.Caller(self.served, self.key).request("POST", xspace.ADD, {"agentId": self.agent.id})

    def upload(self, size: int) -> Ask:
        if self.dialect == "native":
            headers = {"Content-Type": "text/plain"}
            caller = native.Caller(self.served, self.key, user=USER)
            return caller.request("POST", "files", b"x" * size, query="name=a.txt", headers=headers)
        body = form(("; name=file; filename=a.txt", b"x" * size))
        return xspace.Caller(self.served, self.key).request("POST", UPLOAD, body, headers={"Content-Type": TYPE})


# Filling up ---------------------------------------------------------------------------------------------------------


def guest(served: Served, dialect: str, **settings: Any) -> Guest:
    application = served.new_name("guest")
    key = served.key(dialect, application=application, **OWN[dialect], **settings)
    agent = served.agent("so be it", application=application)
    conversation = served.do(served.core.chat.create_conversation(served.principal(key, USER), agent))
    return Guest(
        served=served, dialect=dialect, application=application, key=key, agent=agent, conversation=conversation
    )


@contextmanager
def used(served: Served, dialect: str, limit: str) -> Generator[Ask]:
    """One call of one was made."""
    one = guest(served, dialect, **{limit: 1})
    served.do(served.core.admission.charge(one.key))
    yield one.say()


@contextmanager
def slots(served: Served, dialect: str, share: str) -> Generator[Ask]:
    """All runs are taken that the share has."""
    one = guest(served, dialect, **({"max_runs": 1} if share == "max_runs" else {}))
    app, number = one.key.app, one.key.number

    def name(at: int) -> tuple[int, int]:
        strangers = {"max_live_runs": (10**9 + at, at), "max_application_runs": (app, 10**9 + at)}
        return strangers.get(share, (app, number))

    taken: list[tuple[int, int]] = []

    async def take() -> None:
        taken.extend(
            name(at) for at in range(20) if served.core.runs.slots.acquire(*name(at), one.key.setting("max_runs"))
        )

    async def give_back() -> None:
        for each in taken:
            served.core.runs.slots.release(*each)

    served.do(take())
    expected = {"max_live_runs": 8, "max_application_runs": 4, "max_credential_runs": 2, "max_runs": 1}
    try:
        assert len(taken) == expected[share]
        yield one.say()
    finally:
        served.do(give_back())


@contextmanager
def waiting(served: Served, dialect: str) -> Generator[Ask]:
    """The conversation has a turn at work, whose reader is there."""
    one = guest(served, dialect)
    held = served.agent("so far", HOLD, application=one.application, name=one.agent.name)
    who = served.principal(one.key, USER)
    place = one.conversation.id
    sent = served.do(served.core.chat.send(who, held, NewMessage(parts=(Text(text="hi"),)), conversation=place))
    try:
        yield one.say()
    finally:
        assert served.stop_run(UUID(int=sent.run_uid.int))


@contextmanager
def quota(served: Served, dialect: str, kind: QuotaKind) -> Generator[Ask]:
    """As many rows as may be are there."""
    one = guest(served, dialect)
    ask = one.say() if kind == "conversation_messages" else one.begin()
    if kind == "users":
        served.do(served.core.store.db.execute("DELETE FROM end_user WHERE app = $1", one.key.app))
        served.do(served.core.store.db.execute("SELECT pg_notify('palaver', 'users')"))
        served.agent(application=one.application)  # waits for notices
    with served.full(kind):
        yield ask.also("Idempotency-Key", "k") if kind == "idempotency_keys" else ask


@contextmanager
def files(served: Served, dialect: str, keeper: str, size: int) -> Generator[Ask]:
    one = guest(served, dialect)
    who = served.principal(one.key, keeper)
    key = f"local/default/20260101/{served.new_name('file')}.txt"
    add = served.core.services.files.add(who, key=key, name="a.txt", media_type="text/plain", content=b"x" * 2500)
    served.do(add)
    yield one.upload(size)


@contextmanager
def large(served: Served, dialect: str, size: int) -> Generator[Ask]:
    yield guest(served, dialect).say("x" * size)


@contextmanager
def spooled(served: Served, dialect: str) -> Generator[Ask]:
    yield guest(served, dialect).upload(200_000)


Filling = Callable[[Served, str], Any]
ALL = tuple(FORMS)
UPLOADS = ("native", "xspace")
CASES: Mapping[str, tuple[tuple[str, ...], str, Filling]] = {
    "rpm": (ALL, "rate", lambda s, d: used(s, d, "rpm")),
    "rpd": (("native", "xspace"), "day", lambda s, d: used(s, d, "rpd")),
    "total": (ALL, "usage", lambda s, d: used(s, d, "total")),
    "max_live_runs": (ALL, "overload", lambda s, d: slots(s, d, "max_live_runs")),
    "max_application_runs": (ALL, "overload", lambda s, d: slots(s, d, "max_application_runs")),
    "max_credential_runs": (ALL, "overload", lambda s, d: slots(s, d, "max_credential_runs")),
    "max_runs": (ALL, "overload", lambda s, d: slots(s, d, "max_runs")),
    "max_waiting_turns": (ALL, "waiting", waiting),
    "max_buffered_bytes": (ALL, "overload", lambda s, d: large(s, d, 100_000)),
    "max_spooled_bytes": (UPLOADS, "overload", spooled),
    "max_body_bytes": (ALL, "body", lambda s, d: large(s, d, 200_000)),
    "max_user_files_bytes": (UPLOADS, "file", lambda s, d: files(s, d, USER, 1000)),
    "max_application_files_bytes": (UPLOADS, "file", lambda s, d: files(s, d, "bob", 2800)),
    "max_users": (ALL, "full", lambda s, d: quota(s, d, "users")),
    "max_conversations": (ALL, "full", lambda s, d: quota(s, d, "conversations")),
    "max_user_conversations": (ALL, "full", lambda s, d: quota(s, d, "user_conversations")),
    "max_conversation_messages": (ALL, "full", lambda s, d: quota(s, d, "conversation_messages")),
    "max_idempotency_keys": (ALL, "full", lambda s, d: quota(s, d, "idempotency_keys")),
    "max_request_ids": (("sonaops",), "full", lambda s, d: quota(s, d, "request_ids")),
}
"""Of each limit: the dialects that can meet it, the reason they are told, and what fills it up."""


@pytest.mark.parametrize(("limit", "dialect"), [(limit, one) for limit, case in CASES.items() for one in case[0]])
def test_a_call_beyond_a_limit_is_refused_in_the_dialects_form(served: Served, limit: str, dialect: str) -> None:
    _, reason, filling = CASES[limit]
    with filling(served, dialect) as ask:
        answer = served.ask(ask)
    refused(answer, *FORMS[dialect][reason])


def refused(answer: Answer, status: int, words: str, retry: bool) -> None:
    said = answer.body.decode()
    assert words in said or json.dumps(words)[1:-1] in said, said
    assert answer.status == status
    waits = answer.header("Retry-After")
    assert (waits is not None) == retry
    assert waits is None or int(waits) >= 1


@pytest.mark.parametrize("dialect", ALL)
def test_the_same_calls_are_answered_where_nothing_is_full(served: Served, dialect: str) -> None:
    """So that the one above can fail."""
    one = guest(served, dialect)
    for ask in (one.say(), one.begin().also("Idempotency-Key", "k")):
        answer = served.ask(ask)
        assert answer.status == 200
        assert not any(words in answer.body.decode() for _, words, _ in FORMS[dialect].values())
    if dialect in UPLOADS:
        assert served.ask(one.upload(1000)).status in {200, 201}


@pytest.mark.parametrize("kind", ["codes", "tokens"])
def test_codes_and_tokens_beyond_their_quota_are_refused(served: Served, kind: QuotaKind) -> None:
    key = guest(served, "wps").key
    with served.full(kind):
        answer = consent(served, key) if kind == "codes" else exchange(served, key, grant_type="client_credentials")
    refused(answer, *FORMS["wps"]["full"])


# Nothing is forgotten -----------------------------------------------------------------------------------------------

TESTS = Path(__file__).parent.parent
ELSEWHERE = {
    "max_codes": "dialects/test_shares.py::test_codes_and_tokens_beyond_their_quota_are_refused",
    "max_tokens": "dialects/test_shares.py::test_codes_and_tokens_beyond_their_quota_are_refused",
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
