"""Limits of a key, and unexpected errors."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from dialects.xspace.client import ADD, LIST, Caller, call, chat_path, data, refused, update_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.live_server import Served
from support.requirements import shows

from palaver.core.problems import Busy, Internal, NotFound, Upstream
from palaver.dialects.xspace import requirements
from palaver.dialects.xspace.errors import CONVERSATION_FILES, refuse

DAILY = "Exceeded daily request frequency limit."
MINUTE = "Exceeded per-minute request frequency limit."


@pytest.mark.parametrize(
    ("setting", "english", "chinese"),
    [("rpm", MINUTE, "每分钟请求次数超限"), ("rpd", DAILY, "每日请求次数超限"), ("total", DAILY, "每日请求次数超限")],
)
@shows(requirements.limits, requirements.languages, requirements.status_200)
def test_requests_beyond_a_limit_are_rejected(served: Served, setting: str, english: str, chinese: str) -> None:
    limit: dict[str, Any] = {setting: 2}
    caller = Caller(served, served.key("xspace", **limit))
    query = "agentId=1"
    for _ in range(2):
        data(caller.get("/api/v1/chat/conversation/list", query))
    refused(caller.get("/api/v1/chat/conversation/list", query), "4290", english)
    zh = {"Accept-Language": "zh-CN"}
    refused(caller.get("/api/v1/agent", headers=zh), "4290", chinese)
    raw = caller.get("/api/f/a/b/c/d")
    assert raw.status == 429
    assert int(raw.header("Retry-After") or "") >= 1


@shows(requirements.internal_errors)
def test_unexpected_errors() -> None:
    for problem in (Internal(reason="database", detail="secret"), Upstream(reason="cut"), NotFound(noun="model")):
        reply = refuse(problem, call())
        assert reply.status == 200
        assert '"code":"5000"' in reply.body.decode()
        assert '"message":"系统开小差啦，请稍后重试"' in reply.body.decode()
    reply = refuse(Internal(reason="database"), call(route=CONVERSATION_FILES))
    assert '"code":"9999","displayCode":"9999","message":"Failed to query file list"' in reply.body.decode()
    assert "minute" in refuse(Busy(reason="rate"), call()).body.decode()


_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_names = st.sampled_from(
    [
        "message",
        "topic",
        "firstMessage",
        "icon",
        "agentId",
        "variables",
        "variableParams",
        "attachments",
        "conversationId",
    ]
)
_bodies = st.binary(max_size=30) | st.dictionaries(_names, _values, max_size=4).map(
    lambda body: json.dumps(body).encode()
)
_texts = st.text(max_size=8).map(quote) | st.sampled_from(["%00", "%ff", "..", "%2F", "-1", "9" * 19])


@given(body=_bodies, ref=_texts, query=_texts)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@shows(requirements.internal_errors, requirements.body_errors)
def test_no_request_causes_an_unexpected_error(served: Served, body: bytes, ref: str, query: str) -> None:
    caller = Caller(served, served.key("xspace", kind="agent", agent="nobody"))
    ref = ref or "x"
    for path in (
        ADD,
        update_path(ref),
        chat_path(ref),
        "/api/v1/chat",
        "/api/v1/conversation/create",
        "/api/v1/file/upload",
    ):
        answer = caller.post(path, body, headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert answer.status == 200
        assert b'"code":"5000"' not in answer.body
    for path in (
        chat_path(f"{ref}/messages"),
        chat_path(f"{ref}/files"),
        chat_path(f"1/file/{ref}"),
        f"/api/f/a/b/c/{ref}",
        LIST,
    ):
        answer = caller.get(path, f"agentId=1&topic={query}&index={query}&limit={query}")
        assert answer.status in {200, 404}
        assert b'"code":"5000"' not in answer.body
        assert b'"code":"9999"' not in answer.body


@shows(requirements.list_rules)
def test_any_text_can_be_searched_in_topics(served: Served) -> None:
    agent = served.agent("x")
    caller = Caller(served)
    conversation = caller.add(agent, topic="a\0b")
    for query in ("%00", "a%00B", "A%EF%BF%BDb"):
        assert [one["id"] for one in data(caller.get(LIST, f"agentId={agent.id}&topic={query}"))] == [conversation]
    assert data(caller.get(LIST, f"agentId={agent.id}&topic=%27%20OR%201")) == []
