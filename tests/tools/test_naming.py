"""What a fetched file is called and is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.tools.naming import LONGEST, media_type, name

URL = "https://files.example/dir/%E4%BD%A0%20b.md?download=other.pdf"


@pytest.mark.parametrize(
    ("header", "called"),
    [
        ('attachment; filename="a;b.txt"', "a;b.txt"),
        ("attachment; filename=a.txt", "a.txt"),
        ("inline; FileName=a.txt; filename*=UTF-8''%E4%BD%A0%E5%A5%BD.txt", "你好.txt"),
        ("attachment; filename*=UTF-8''%e4%bd%a0.txt; filename=a.txt", "你.txt"),
        ("attachment; filename*=gb18030''%C4%E3.txt", "你.txt"),
        ("attachment; filename*0*=UTF-8''%e4%bd%a0; filename*1=b.txt", "你b.txt"),
        ("attachment; filename=你好.txt", "你好.txt"),
        ('attachment; filename="a\\"b.txt"', 'a"b.txt'),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\dir\\\\a.txt"', "a.txt"),
        ("attachment; filename*=UTF-8''..%2f..%2fa.txt", "a.txt"),
        ("attachment; filename*=UTF-8''a%00%0d%0ab.txt", "a b.txt"),
        ("attachment; filename*=UTF-8''invoice%E2%80%AEfdp.exe", "invoice fdp.exe"),
        ("attachment; filename=.profile", "profile"),
        ("attachment; filename=..", "你 b.md"),
        ("attachment; filename*=UTF-8''", "你 b.md"),
        ("attachment", "你 b.md"),
        (";;;=", "你 b.md"),
        ("", "你 b.md"),
    ],
)
def test_a_file_is_called_what_its_header_says_else_what_its_url_ends_with(header: str, called: str) -> None:
    assert name({"Content-Disposition": header}, URL) == called


@pytest.mark.parametrize("url", ["https://files.example", "https://files.example/", "https://files.example/dir/?a.txt"])
def test_a_file_that_nobody_named_has_no_name(url: str) -> None:
    assert name({}, url) == ""


@given(st.text() | st.text(alphabet="filename*='0\"; %25;=utf-8\0\\").map("attachment; filename".__add__))
def test_a_name_is_short_and_can_be_seen_whatever_a_header_says(header: str) -> None:
    called = name({"Content-Disposition": header}, URL)
    assert 0 < len(called) <= LONGEST
    assert not {"/", "\\"} & set(called)
    assert not [one for one in called if unicodedata.category(one)[0] in "CZ" and one != " "]


def test_a_name_in_an_address_may_be_written_as_browsers_in_china_did() -> None:
    assert name({}, "https://files.example/%BC%DB%B8%F1%B1%ED.txt") == "价格表.txt"


def test_a_long_name_keeps_its_ending() -> None:
    called = name({}, "https://files.example/" + "a" * 500 + ".pdf")
    assert (len(called), called[-5:]) == (LONGEST, "a.pdf")


@pytest.mark.parametrize(
    ("header", "called", "kind"),
    [
        ("text/html; charset=gbk", "a.md", "text/html"),
        ("Image/PNG", "", "image/png"),
        ("application/vnd.ms-excel.sheet.macroEnabled.12", "", "application/vnd.ms-excel.sheet.macroenabled.12"),
        ("application/octet-stream", "a.pdf", "application/pdf"),
        ("binary/octet-stream", "a.md", "text/markdown"),
        ("", "a.PNG", "image/png"),
        ("nonsense", "a.txt", "text/plain"),
        ("", "a.unheard-of", "application/octet-stream"),
        ("", "http://x/a;b.txt", "text/plain"),
        ("", "", "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_header_says_else_what_its_name_ends_with(header: str, called: str, kind: str) -> None:
    assert media_type({"Content-Type": header}, called) == kind
