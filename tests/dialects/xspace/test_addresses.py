"""Addresses of files with a token, for a page's pictures."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from dialects.xspace.client import Caller, data, refused
from dialects.xspace.test_files import send
from support.http_clients import Answer, Ask
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.xspace import requirements

AK = "/api/v1/file/ak"


def opened(served: Served, address: str, **headers: str) -> Answer:
    """What a picture's address gives to a page, which sends no key."""
    parts = urlsplit(address)
    return served.ask(Ask(method="GET", path=parts.path, query=parts.query, headers=list(headers.items())))


def address(caller: Caller, url: str, more: str = "") -> str:
    return data(caller.get(AK, query=f"fileUrl={quote(url, safe='')}{more}"))


@shows(requirements.file_addresses)
@pytest.mark.parametrize("host", ["", "http://test", "https://elsewhere.example"])
def test_an_address_with_a_token_needs_no_key(served: Served, caller: Caller, host: str) -> None:
    record = data(send(caller, b"0123456789"))
    made = address(caller, f"{host}/api/f/{record['key']}")
    plain, _, query = made.partition("?")
    assert plain == f"{host}/api/f/{record['key']}"
    assert [name for name, _ in parse_qsl(query)] == ["ak"]
    answer = opened(served, made)
    assert (answer.status, answer.body, answer.header("Content-Type")) == (200, b"0123456789", "text/plain")
    assert opened(served, made, Range="bytes=2-4").body == b"234"
    assert opened(served, made, Authorization="Bearer page-session").status == 200, "no key of ours, so none"
    assert opened(served, made, Authorization="Bearer ak-bad").status == 403
    assert opened(served, plain).status == 403


@shows(requirements.file_addresses)
def test_a_download_says_so(caller: Caller) -> None:
    url = data(send(caller, b"x"))["url"]
    made = address(caller, f"{url}?ak=old#top", "&download=true")
    assert made.startswith(f"{url}?ak=")
    assert [name for name, _ in parse_qsl(urlsplit(made).query)] == ["ak", "download"]
    assert "download" not in address(caller, url, "&download=false")


@shows(requirements.file_addresses)
def test_a_download_is_saved_where_a_picture_is_shown(served: Served, caller: Caller) -> None:
    url: str = data(send(caller, b"x"))["url"]
    shown, saved = address(caller, url), address(caller, url, "&download=true")
    for asked, kind in ((shown, "inline"), (saved, "attachment"), (f"{shown}&download=false", "inline")):
        answer = opened(served, asked)
        assert (answer.status, answer.body) == (200, b"x")
        assert (answer.header("Content-Disposition") or "").partition(";")[0] == kind
    by_key = caller.get(urlsplit(url).path, query="download=true")
    assert (by_key.header("Content-Disposition") or "").startswith("attachment;")


@shows(requirements.file_addresses)
def test_a_token_is_good_for_its_file_alone_and_as_it_was_given(served: Served, caller: Caller) -> None:
    first, second = data(send(caller, b"one"))["url"], data(send(caller, b"two"))["url"]
    token = address(caller, first).partition("ak=")[2]
    assert opened(served, f"{first}?ak={token}").body == b"one"
    for wrong in (f"{second}?ak={token}", *(f"{first}?ak={bad}" for bad in _damaged(token))):
        assert opened(served, wrong).status == 403, wrong
    listing = f"/api/v1/chat/conversation/list?ak={token}&agentId=1"
    assert opened(served, listing).json()["code"] == "4030"


def _damaged(token: str) -> list[str]:
    body, _, signature = token.partition(".")
    return [
        "",
        ".",
        "x",
        token[:-1],
        token[1:],
        body,
        f".{signature}",
        f"{body}x.{signature}",
        "A" * 5000,
        "é.é",
        "%00",
    ]


@shows(requirements.file_addresses)
def test_a_token_is_good_for_an_hour(served: Served, caller: Caller) -> None:
    record = data(send(caller, b"one"))
    people = served.core.services.users
    for life_s, status in ((3600, 200), (-1, 403)):
        token = people.sign_token(caller.key, "file", "default", (record["key"],), life_s=life_s)
        assert opened(served, f"{record['url']}?ak={token}").status == status


@shows(requirements.file_addresses)
def test_somebody_elses_file_has_no_address(served: Served, caller: Caller) -> None:
    url = data(send(caller, b"mine"))["url"]
    bob = Caller(served, default_user="bob")
    for asked in (url, "http://test/api/f/local/default/20260101/x", "/etc/passwd", "http://[", "x" * 2000):
        refused(bob.get(AK, query=f"fileUrl={quote(asked, safe='')}"), *("4040", "File does not exist."))
    required = "Required request parameter 'fileUrl' for method parameter type String is not present"
    for query in ("", "fileUrl=", "fileUrl=%20"):
        refused(caller.get(AK, query=query), "4000", required)
    refused(caller.get(AK, query=f"fileUrl={'x' * 3000}"), "4000", "fileUrl is too long")
    nobody = Caller(served, caller.key)
    nobody.auth = None
    refused(nobody.get(AK, query="fileUrl=x"), "4030", "Missing API Key.")


@shows(requirements.file_addresses)
def test_the_log_knows_no_token(served: Served, caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    made = address(caller, data(send(caller, b"mine"))["url"])
    token = made.partition("ak=")[2]
    assert opened(served, made).status == 200
    assert opened(served, made[:-1]).status == 403
    logged = capsys.readouterr().out
    assert "status=200" in logged
    assert token[:40] not in logged
