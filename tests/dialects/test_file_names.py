"""File names at every route that takes a file: what is no UTF-8 is refused, what is too long keeps its ending."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from dialects.native import client as native
from dialects.xspace import client as xspace
from support.http_clients import Answer
from support.live_server import Served

from palaver import app

UPLOADS = {
    f"{dialect.name} {route.method} {route.path}" for dialect in app.all_dialects() for route in dialect.routes
    if route.upload
}  # fmt: skip
GBK = "价格表.txt".encode("gbk")
LONG = "表" * 300 + ".csv"


def by_native(served: Served, name: bytes) -> Answer:
    return native.Caller(served).ask("POST", "files", b"content", query=f"name={quote(name)}")


def by_native_unescaped(served: Served, name: bytes) -> Answer:
    caller = native.Caller(served)
    target = b"POST /palaver/v1/files?name=" + name + b" HTTP/1.1\r\n"
    head = f"Host: test\r\nAuthorization: Bearer {caller.key.secret}\r\nX-User-ID: ann\r\nContent-Length: 7\r\n\r\n"
    with served.connection() as connection:
        connection.send_raw(target + head.encode() + b"content")
        return connection.answer()


def _posted(served: Served, disposition: bytes) -> Answer:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; ' + disposition
    body = head + b"\r\nContent-Type: text/csv\r\n\r\ncontent\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return xspace.Caller(served, default_user="ann").post("/api/v1/file/upload", body, headers=headers)


def by_xspace(served: Served, name: bytes) -> Answer:
    return _posted(served, b'filename="' + name + b'"')


def by_xspace_extended(served: Served, name: bytes) -> Answer:
    return _posted(served, f"filename=a.csv; filename*=UTF-8''{quote(name)}".encode())


Upload = Callable[[Served, bytes], Answer]
WAYS: dict[str, tuple[str, Upload]] = {
    "native": ("native POST /palaver/v1/files", by_native),
    "native, unescaped": ("native POST /palaver/v1/files", by_native_unescaped),
    "xspace": ("xspace POST /api/v1/file/upload", by_xspace),
    "xspace, extended": ("xspace POST /api/v1/file/upload", by_xspace_extended),
}


def test_every_upload_is_tried_here() -> None:
    assert {route for route, _ in WAYS.values()} == UPLOADS


def kept(served: Served) -> list[str]:
    """The names of all files."""
    return [row["name"] for row in served.do(served.core.store.db.fetch("SELECT name FROM file ORDER BY id"))]


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_is_no_utf8_is_refused(served: Served, way: str) -> None:
    before = kept(served)
    answer = WAYS[way][1](served, GBK)
    assert answer.status == 400 or answer.json().get("code") == "4000", answer.body
    assert kept(served) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_long_name_is_refused_or_keeps_its_ending(served: Served, way: str) -> None:
    before = kept(served)
    answer = WAYS[way][1](served, LONG.encode())
    stored = kept(served)[len(before) :]
    assert answer.status == (200 if stored else 400)
    assert [(len(name), name[-5:]) for name in stored] in ([], [(255, "表.csv")])
