"""Whatever is sent, there is an answer in the vendor's form."""

from __future__ import annotations

from typing import Any

from dialects.sonaops.client import CREATE, LIST, POSTED, STREAM, Caller, envelope, stringified
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.live_server import Served
from support.requirements import shows

from palaver.core.problems import Invalid
from palaver.dialects.sonaops import requirements
from palaver.dialects.sonaops.canonical import canonical_body

NAMES = (
    "agentId",
    "conversationId",
    "text",
    "language",
    "metadata",
    "messageId",
    "processedText",
    "voiceTimbreId",
    "pageNum",
    "pageSize",
)
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
texts = plain | st.sampled_from([" ", "", "\0", "\u3000", "7", "a" * 300, "0" * 32, "'; --", "用户🙂", "../..", "%00"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=5,
)
visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)


@settings(max_examples=80, deadline=None)
@given(path=st.sampled_from(POSTED), members=st.dictionaries(st.sampled_from(NAMES), anything, max_size=6))
@shows(requirements.fuzz, requirements.c_json_always)
def test_whatever_a_signed_body_holds_the_answer_is_no_5xx(caller: Caller, path: str, members: dict[str, Any]) -> None:
    body = stringified(members).encode()
    try:
        signed = canonical_body(body)
    except Invalid:
        assume(False)
    answer = caller.post(path, body, signed=signed)
    assert answer.status < 500
    assert envelope(answer)["message"] != "Invalid signature"


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from((CREATE, STREAM)),
    body=st.binary(max_size=40),
    sent=st.dictionaries(
        st.sampled_from(("Authorization", "X-Signature", "X-Timestamp", "X-User-ID", "X-Request-ID", "Content-Type")),
        visible.map(lambda text: text.encode("latin-1")),
        max_size=3,
    ),
)
@shows(requirements.fuzz, requirements.c_json_always)
def test_whatever_is_sent_as_a_signature_the_answer_is_no_5xx(
    caller: Caller, later: Caller, path: str, body: bytes, sent: dict[str, bytes]
) -> None:
    for one in (caller, later):
        headers = {"X-Signature": "0" * 64, **sent}
        answer = one.post(path, body, signed="", headers=headers)
        assert answer.status < 500
        assert not envelope(answer)["success"]


@settings(max_examples=40, deadline=None)
@given(query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30))
@shows(requirements.fuzz, requirements.e_bad_signature)
def test_whatever_a_query_holds_the_answer_is_no_5xx(served: Served, caller: Caller, later: Caller, query: str) -> None:
    for one in (caller, later):
        answer = one.get(LIST, query, headers={"X-Signature": "0" * 64})
        assert (answer.status, envelope(answer)["message"]) == (401, "Invalid signature")
