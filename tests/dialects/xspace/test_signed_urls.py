"""Signed URLs of files, for the images of a page."""

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


def get_without_key(served: Served, url: str, **headers: str) -> Answer:
    """The response to a page, which sends no key."""
    parts = urlsplit(url)
    return served.ask(Ask(method="GET", path=parts.path, query=parts.query, headers=list(headers.items())))


def sign(caller: Caller, url: str, more: str = "") -> str:
    return data(caller.get(AK, query=f"fileUrl={quote(url, safe='')}{more}"))


@shows(requirements.signed_urls)
@pytest.mark.parametrize("host", ["", "http://test", "https://elsewhere.example"])
def test_a_signed_url_needs_no_key(served: Served, caller: Caller, host: str) -> None:
    record = data(send(caller, b"0123456789"))
    signed = sign(caller, f"{host}/api/f/{record['key']}")
    plain, _, query = signed.partition("?")
    assert plain == f"{host}/api/f/{record['key']}"
    assert [name for name, _ in parse_qsl(query)] == ["ak"]
    answer = get_without_key(served, signed)
    assert (answer.status, answer.body, answer.header("Content-Type")) == (200, b"0123456789", "text/plain")
    assert get_without_key(served, signed, Range="bytes=2-4").body == b"234"
    assert get_without_key(served, signed, Authorization="Bearer page-session").status == 200, "no key of ours, so none"
    assert get_without_key(served, signed, Authorization="Bearer ak-bad").status == 403
    assert get_without_key(served, plain).status == 403


@shows(requirements.signed_urls)
def test_a_signed_download_url_contains_the_parameter(caller: Caller) -> None:
    url = data(send(caller, b"x"))["url"]
    signed = sign(caller, f"{url}?ak=old#top", "&download=true")
    assert signed.startswith(f"{url}?ak=")
    assert [name for name, _ in parse_qsl(urlsplit(signed).query)] == ["ak", "download"]
    assert "download" not in sign(caller, url, "&download=false")


@shows(requirements.signed_urls)
def test_a_download_is_an_attachment_otherwise_the_file_is_inline(served: Served, caller: Caller) -> None:
    url: str = data(send(caller, b"x"))["url"]
    inline, attachment = sign(caller, url), sign(caller, url, "&download=true")
    for signed, kind in ((inline, "inline"), (attachment, "attachment"), (f"{inline}&download=false", "inline")):
        answer = get_without_key(served, signed)
        assert (answer.status, answer.body) == (200, b"x")
        assert (answer.header("Content-Disposition") or "").partition(";")[0] == kind
    by_key = caller.get(urlsplit(url).path, query="download=true")
    assert (by_key.header("Content-Disposition") or "").startswith("attachment;")


@shows(requirements.signed_urls)
def test_a_token_is_valid_only_for_its_file_and_unchanged(served: Served, caller: Caller) -> None:
    first, second = data(send(caller, b"one"))["url"], data(send(caller, b"two"))["url"]
    token = sign(caller, first).partition("ak=")[2]
    assert get_without_key(served, f"{first}?ak={token}").body == b"one"
    for wrong in (f"{second}?ak={token}", *(f"{first}?ak={bad}" for bad in _damaged(token))):
        assert get_without_key(served, wrong).status == 403, wrong
    listing = f"/api/v1/chat/conversation/list?ak={token}&agentId=1"
    assert get_without_key(served, listing).json()["code"] == "4030"


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


@shows(requirements.signed_urls)
def test_a_token_expires(served: Served, caller: Caller) -> None:
    record = data(send(caller, b"one"))
    people = served.core.services.users
    for life_s, status in ((3600, 200), (-1, 403)):
        token = people.sign_token(caller.key, "file", "default", (record["key"],), life_s=life_s)
        assert get_without_key(served, f"{record['url']}?ak={token}").status == status


@shows(requirements.signed_urls)
def test_another_users_file_cannot_be_signed(served: Served, caller: Caller) -> None:
    url = data(send(caller, b"mine"))["url"]
    bob = Caller(served, default_user="bob")
    for file_url in (url, "http://test/api/f/local/default/20260101/x", "/etc/passwd", "http://[", "x" * 2000):
        refused(bob.get(AK, query=f"fileUrl={quote(file_url, safe='')}"), *("4040", "File does not exist."))
    required = "Required request parameter 'fileUrl' for method parameter type String is not present"
    for query in ("", "fileUrl=", "fileUrl=%20"):
        refused(caller.get(AK, query=query), "4000", required)
    refused(caller.get(AK, query=f"fileUrl={'x' * 3000}"), "4000", "fileUrl is too long")
    nobody = Caller(served, caller.key)
    nobody.auth = None
    refused(nobody.get(AK, query="fileUrl=x"), "4030", "Missing API Key.")


@shows(requirements.signed_urls)
def test_tokens_are_not_logged(served: Served, caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    signed = sign(caller, data(send(caller, b"mine"))["url"])
    token = signed.partition("ak=")[2]
    assert get_without_key(served, signed).status == 200
    assert get_without_key(served, signed[:-1]).status == 403
    logged = capsys.readouterr().out
    assert "status=200" in logged
    assert token[:40] not in logged
