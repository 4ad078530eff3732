"""Bytes from values: ASCII JSON, one event as one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palaver.wire.framing import ascii_json, ascii_text, compact, line, sse

anything = st.text(st.characters(exclude_categories=()))
whole = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)


def values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


@given(values(anything))
@example("\x7f\x80\u2028\u2029\ufeff🙂")
@example({"\x7f": "\ud800\x7f"})
def test_ascii_json_is_the_value_in_visible_ascii(value: Any) -> None:
    encoded = ascii_json(value)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert json.loads(encoded) == value


@given(anything)
@example('"\\\x00\x1f\x7f\x85\u2028\uffff\U0010ffff')
@example("\ud83d")
def test_ascii_text_is_the_text_in_visible_ascii(text: str) -> None:
    quoted = ascii_text(text)
    assert all(" " <= character <= "~" for character in quoted)
    assert json.loads(quoted) == text


@given(anything)
def test_text_is_written_one_way(text: str) -> None:
    assert json.loads(ascii_text(text)) == json.loads(ascii_json(text))


@given(values(whole))
def test_compact_json_has_no_space_and_leaves_characters_as_they_are(value: Any) -> None:
    encoded = compact(value)
    assert json.loads(encoded.decode()) == value
    assert b"\n" not in encoded


def test_members_keep_their_order() -> None:
    assert compact({"b": 1, "a": [1, 2], "用": None}) == '{"b":1,"a":[1,2],"用":null}'.encode()
    assert ascii_json({"b": 1, "a": [1, 2], "用": None}) == b'{"b":1,"a":[1,2],"\\u7528":null}'


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("~", b'"~"'),
        ("\x7f", b'"\\u007f"'),
        ("é", b'"\\u00e9"'),
        ("根据", b'"\\u6839\\u636e"'),
        ("\u2028", b'"\\u2028"'),
        ("🙂", b'"\\ud83d\\ude42"'),
        ("\n\t", b'"\\n\\t"'),
    ],
)
def test_escapes_are_lower_case_and_pairs_above_the_bmp(text: str, written: bytes) -> None:
    assert ascii_json(text) == written == ascii_text(text).encode()


@given(values(whole))
def test_a_line_is_one_line(value: Any) -> None:
    written = line(value)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert b"\r" not in written


def test_an_event_has_a_name_data_and_an_empty_line() -> None:
    assert sse("done", b'{"a":1}') == b'event:done\ndata:{"a":1}\n\n'
