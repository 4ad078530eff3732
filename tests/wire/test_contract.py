"""Headers, as every dialect reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.wire.contract import Headers


@pytest.mark.parametrize("name", ["Snail-Ai-Auth", "snail-ai-auth", "SNAIL-AI-AUTH"])
def test_names_are_case_insensitive(name: str) -> None:
    headers = Headers([(b"sNAIL-aI-aUTH", b"x")])
    assert headers[name] == headers.get(name) == "x"
    assert name in headers


def test_values_are_trimmed() -> None:
    assert Headers([(b"a", b" \t x y \t")])["a"] == "x y"


@pytest.mark.parametrize("text", ["à", "用户\u2005", "…", "Å"])
def test_the_last_byte_of_a_character_is_no_white_space(text: str) -> None:
    assert Headers([(b"a", text.encode())])["a"].encode("latin-1") == text.encode()


def test_of_a_repeated_header_the_last_one_counts() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"2"), (b"A", b"3")])
    assert dict(headers) == {"a": "3", "b": "2"}
    assert len(headers) == 2


def test_what_is_not_there_is_not_there() -> None:
    with pytest.raises(KeyError):
        Headers([])["a"]
    assert Headers([]).get("a") is None


@given(st.binary())
def test_any_bytes_are_a_value(value: bytes) -> None:
    assert Headers([(b"a", value)])["a"].encode("latin-1") == value.strip(b" \t")
