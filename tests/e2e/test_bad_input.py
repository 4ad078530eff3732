"""Invalid input gets the vendor's error format or a closed connection: never a 5xx, never a hang."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.server_process import Installation, installed, lines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

ECHO = "---\nname: echo\nmodel: scripted\n---\n"


class Target:
    """A running server, with a good key and an agent that says back what it hears."""

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.secret: str = place.key()["secret"]
        self.agent: int = place.agent(ECHO)["id"]
        self.headers = {"Snail-Ai-Auth": self.secret, "Content-Type": "application/json"}

    def post(self, body: bytes | Any, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.place.url}/snail-ai/open-api/chat", data=body, headers={**self.headers, **headers}, timeout=15
        )

    def raw(self, sent: bytes, within: float = 15) -> bytes:
        """What the server says to bytes that may be no HTTP, until it closes; so many seconds may pass in silence."""
        with socket.create_connection(("127.0.0.1", self.place.port), timeout=within) as connection:
            received = b""
            with suppress(ConnectionError):
                connection.sendall(sent)
                while piece := connection.recv(65536):
                    received += piece
            return received


@pytest.fixture(scope="module")
def target() -> Generator[Target]:
    with installed(True, PALAVER_DEMO="false", PALAVER_HEAD_TIMEOUT_S="3", PALAVER_BODY_TIMEOUT_S="3") as place:
        place.start()
        yield Target(place)
        assert place.server is not None
        assert place.server.poll() is None
        logged = place.log.read_text()
        assert "Traceback" not in logged
        assert '"level": "error"' not in logged


def refused(response: requests.Response) -> str:
    """The message of a refusal in the vendor's form."""
    assert response.status_code < 500
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert list(body) == ["code", "msg", "data", "status", "message", "type"]
    assert (body["code"], body["data"], body["type"]) == (0, None, "error")
    assert body["msg"] == body["message"]
    return body["msg"]


def nested(depth: int) -> bytes:
    return b'{"agentId":1,"openId":"u","content":"x","deep":%s%s}' % (b"[" * (depth - 1), b"]" * (depth - 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"agentId":1,}',
        b"{'agentId':1}",
        b'{"content":"\xff\xfe"}',
        b'\xef\xbb\xbf{"agentId":1}',
        b'{"content":"\\ud800"}',
        b'{"content":"\\udc00\\ud800"}',
        b'{"content":NaN}',
        b'{"content":"a\nb"}',
        b'{"a":1}{"a":1}',
        nested(65),
        nested(100_000),
        b'{"agentId":' + b"9" * 5000 + b"}",
        b"\x00" * 100,
        b"agentId=1&openId=u&content=x",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(target: Target, body: bytes) -> None:
    assert refused(target.post(body)) == "请求体不是合法的 JSON"


def test_the_deepest_nesting_that_may_be_is_taken(target: Target) -> None:
    body = nested(64).replace(b'"agentId":1', b'"agentId":%d' % target.agent)
    assert list(lines(target.post(body)))[-1]["type"] == "done"


@pytest.mark.parametrize("chunked", [False, True])
def test_two_mebibytes_are_too_much_with_and_without_a_length(target: Target, chunked: bool) -> None:
    body = json.dumps({"agentId": target.agent, "openId": "u", "content": "x" * 2**21}).encode()
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    response = target.post(pieces if chunked else body)
    assert response.status_code == 413
    assert refused(response) == "请求体过大"


@pytest.mark.parametrize(
    "content",
    [
        "x" * 100_000,
        "好" * 100_000,
        "a\0b",
        "👩‍👩‍👧‍👦 🏳️‍🌈",
        "שלום עולם \u202etxet desrever",
        "line\u2028separator\u2029 \x85",
        '"quotes" \\back\\slashes \\u0000 ${turn} {{braces}} $$',
        "\ufeff\u200b\u202e",
        "e\u0301\u0323" * 50,
        "\ufdd0\U0010ffff",
    ],
)
def test_odd_text_is_answered(target: Target, content: str) -> None:
    body = json.dumps({"agentId": target.agent, "openId": "u", "content": content}).encode()
    done = list(lines(target.post(body)))[-1]
    assert done["type"] == "done"
    assert done["fullText"] == "You said: " + content.replace("\0", "\ufffd")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"\x00\x01\x02\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://[::bad HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A" * 200_000,
        b"GET /" + b"A" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_get_an_error_or_a_closed_connection(target: Target, sent: bytes) -> None:
    said = target.raw(sent)
    assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))


def test_what_never_comes_to_an_end_does_not_hang(target: Target) -> None:
    head = f"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nSnail-Ai-Auth: {target.secret}\r\n".encode()
    half = head + b'Content-Length: 100\r\n\r\n{"agentId":1'
    with ThreadPoolExecutor() as threads:
        body, *heads = threads.map(partial(target.raw, within=40), [half, head, b"GET /", b"G", b""])
    assert heads == [b"", b"", b"", b""]
    assert body.startswith(b"HTTP/1.1 200")
    assert "请求体不是合法的 JSON".encode() in body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("agentId", "openId", "content", "conversationId", "disabledMcpServerIds", "disabledSkillIds", "sid")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=10), json_values, max_size=7))
def test_any_json_object_is_answered_or_refused(target: Target, members: dict[str, Any]) -> None:
    response = target.post(json.dumps(members).encode())
    if response.headers["Content-Type"] == "application/x-ndjson":
        assert list(lines(response))[-1]["type"] == "done"
    else:
        refused(response)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused(target: Target, body: bytes) -> None:
    refused(target.post(body))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_token_is_refused(target: Target, token: str) -> None:
    response = target.post(b"{}", **{"Snail-Ai-Auth": token})
    assert response.json()["status"] == 5001
    refused(response)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_a_method_that_the_path_does_not_know_is_refused(target: Target, method: str) -> None:
    response = requests.request(method, f"{target.place.url}/snail-ai/open-api/chat", timeout=10)
    assert (response.status_code, refused(response)) == (405, "请求方法不支持")
    assert response.headers["Allow"] == "POST, OPTIONS"


def test_what_is_no_dialects_is_not_found(target: Target) -> None:
    for path in ("/nope", "/..%2f..%2fetc/passwd", "/snail-ai"):
        assert requests.get(target.place.url + path, timeout=10).status_code == 404
    assert refused(requests.get(f"{target.place.url}/snail-ai/nope", timeout=10)) == "接口不存在"
