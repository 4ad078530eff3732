"""Whatever callers of surface B send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dialects.snail.client_b import SEARCH, B, Caller
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.live_server import Served
from support.requirements import shows

from palaver.app import all_dialects
from palaver.dialects.snail import requirements_b

FIELDS = (
    *("agentId", "openId", "content", "conversationId", "title", "page", "size", "ttlSeconds", "trustedCredential"),
    *("externalId", "nickname", "avatarUrl", "sid", "disabledMcpServerIds", "disabledSkillIds", "ragId", "query"),
)
CALLS = [
    (route.method, route.path)
    for dialect in all_dialects()
    if dialect.name == "snail"
    for route in dialect.routes
    if route.path.startswith(B) or route.path == SEARCH
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["ann", "1", "-1", "0", " 1 ", "٣", "1" * 4000, "\0", "x" * 300, "'", "\u2028", "🙂", "%00", "9223372036854775808"]
)
numbers = st.integers() | st.sampled_from([1, 0, 2**53, 2**63 - 1, 2**63, 10**300]) | st.floats(allow_nan=False)
values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), numbers, texts, st.lists(numbers | texts, max_size=2), st.just({})
)

given_fields = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    served.agent("yes")
    program = Caller(served, auto_register=True)
    program.auth["Snail-Ai-Auth"] = program.key.secret
    return program


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    call=st.sampled_from(CALLS),
    fields=st.dictionaries(st.sampled_from(FIELDS), values, max_size=6),
    known=st.booleans(),
)
@shows(requirements_b.b_any_fields)
def test_whatever_the_fields_hold_the_answer_is_one_of_the_vendors(
    program: Caller, call: tuple[str, str], fields: dict[str, Any], known: bool
) -> None:
    if known:  # get past what is required
        fields = {"agentId": 1, "openId": "ann", "content": "hi", "title": "t", **fields}
    answer = program.ask(*call, fields)
    assert answer.status == 200
    if answer.header("Content-Type") == "application/json":
        envelope = json.loads(answer.body)
        assert envelope["status"] in {0, 1, 5001}
        assert envelope["status"] == envelope["code"] or envelope["status"] == 5001
        assert "系统异常" not in envelope["message"]
    else:
        assert answer.writes[-1].startswith(b"event:done\n")
