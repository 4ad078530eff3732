"""HTTP/1 according to RFC 9112, byte by byte where it matters."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from support.databases import Databases
from support.kit import run
from support.live_server import Served, serving

AGENT = "hello"
HOST = b"Host: x\r\n"
PLACES = {"snail": "/snail-ai/open-api/none", "wps": "/v7/none", "sonaops": "/v1/none", "native": "/palaver/v1/none"}


@pytest.fixture(scope="module")
def server(cluster: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    name, url = run(cluster.acquire())
    with serving(url, Path(tmp_path_factory.mktemp("served")), write_timeout_s=1, head_timeout_s=2) as served:
        yield served
    run(cluster.release(name))


def chat(served: Served, *, version: str = "1.1", extra: str = "", content: str = "hi") -> bytes:
    agent = served.agent({"text": AGENT})
    body = json.dumps({"agentId": agent.id, "openId": "ann", "content": content}).encode()
    secret = served.key("snail").secret
    head = (
        f"POST /snail-ai/open-api/chat HTTP/{version}\r\nHost: x\r\nSnail-Ai-Auth: {secret}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


def test_the_body_of_a_request_with_an_upgrade_header_is_read_however_the_head_is_split(server: Served) -> None:
    sent = chat(server, extra="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
    cuts = (1, 20, sent.index(b"Upgrade: h2c") + 3, sent.index(b"\r\n\r\n") + 2, sent.index(b"\r\n\r\n") + 4)
    for cut in cuts:
        with server.connection() as connection:
            connection.send_raw(sent[:cut])
            time.sleep(0.05)  # two reads, and not one
            connection.send_raw(sent[cut:])
            assert AGENT.encode() in connection.answer().body


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ],
)
def test_a_request_must_have_exactly_one_host(server: Served, head: bytes, status: int) -> None:
    with server.connection() as connection:
        connection.send_raw(head)
        assert connection.head().status == status


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    "rest",
    [
        b"\r\n\r\n",
        b"\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\r\nHost x\r\n\r\n",
        b"\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        b"\r\nHost: x\r\n" + b"A: b\r\n" * 20_000,
    ],
    ids=["no host", "two hosts", "no colon", "length", "lengths", "length and chunks", "folded", "large"],
)
def test_a_malformed_head_after_a_valid_request_line_is_refused_in_the_dialects_format(
    server: Served, place: str, rest: bytes
) -> None:
    """With its trace, and in the log."""
    with server.connection() as connection:
        connection.send_raw(f"POST {place} HTTP/1.1".encode() + rest)
        answer = connection.answer()
    assert answer.status == (431 if len(rest) > 65_536 else 400)
    assert answer.header(
        "Content-Type",
    ) in {"application/json", "application/problem+json"}
    assert isinstance(answer.json(), dict)
    assert answer.header("Connection") == "close"


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"hello\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /a b HTTP/1.1\r\n"]
)
def test_data_that_is_not_http_is_refused_at_once_with_a_trace(server: Served, sent: bytes) -> None:
    with server.connection() as connection:
        connection.send_raw(sent)
        answer = connection.answer()
        assert answer.status == 400
        assert answer.json()["trace"] == answer.header("X-Request-ID")
        assert connection.to_the_end() == b""


def test_a_raw_utf8_path_is_served_like_a_percent_encoded_one(server: Served) -> None:
    for path in ("/snail-ai/会话", "/snail-ai/%E4%BC%9A%E8%AF%9D"):
        with server.connection() as connection:
            connection.send_raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = connection.answer()
        assert (answer.status, answer.json()["msg"]) == (404, "接口不存在")


def test_an_unknown_method_is_refused_in_the_dialects_format(server: Served) -> None:
    with server.connection() as connection:
        connection.send_raw(b"FETCH /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.answer()
    assert (answer.status, answer.json()["msg"]) == (405, "请求方法不支持")


def test_an_http_1_0_response_ends_with_its_connection(server: Served) -> None:
    """curl -0"""
    with server.connection() as connection:
        connection.send_raw(chat(server, version="1.0"))
        head = connection.head()
        assert head.header("Transfer-Encoding") is None
        assert head.header("Connection") == "close"
        body = connection.to_the_end()
    events = [json.loads(line) for line in body.splitlines()]
    assert (events[-1]["type"], events[-1]["fullText"]) == ("done", AGENT)


def test_a_client_that_half_closes_gets_its_response(server: Served) -> None:
    with server.connection() as connection:
        connection.send_raw(b"GET /snail-ai/none HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.end()
        assert connection.answer().status == 404


def test_pipelined_requests_are_answered_in_order(server: Served) -> None:
    asks = [f"GET /snail-ai/none/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for number in range(100)]
    chunked = b"POST /snail-ai/none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with server.connection() as connection:
        connection.send_raw(
            b"".join(asks) + chat(server) + chunked + asks[0] + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        statuses = [connection.answer().status for _ in range(104)]
    assert statuses == [404] * 100 + [200, 404, 404, 200]


def test_the_head_timeout_applies_to_every_request_of_a_connection(server: Served) -> None:
    with server.connection() as first, server.connection() as later:
        begun = time.monotonic()
        first.send_raw(b"GET /healthz HTT")
        later.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTT")
        for connection in (first, later):
            connection.to_the_end()
            assert 1.5 < time.monotonic() - begun < 6
