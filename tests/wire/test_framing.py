"""Bytes from values: ASCII JSON, one event as one piece."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palaver.wire.framing import (
    WRITE_BYTES,
    EscapedText,
    ascii_json,
    ascii_text,
    compact_json,
    ndjson_line,
    split_writes,
    sse,
)

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


@given(values(anything))
@example({"a": ["中文\u2028\x00\x1f\x7f\x80🙂", {"\ud83d": "\ude42"}], "b": [True, None, -1, 2**64 - 1, {}]})
@example("a\ud83d")
@example(1e-05)
def test_ascii_json_is_the_standard_librarys_but_for_delete(value: Any) -> None:
    written = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    assert _floats_alike(ascii_json(value)) == _floats_alike(written.encode())


def _floats_alike(written: bytes) -> bytes:
    """Two libraries write 1e+16 and 1e16, 1e-05 and 0.00001."""
    return re.sub(rb"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?", lambda found: repr(float(found[0])).encode(), written)


def test_escaping_costs_what_copying_costs() -> None:
    text = "中a🙂\u2028" * 250_000
    began = time.process_time()
    ascii_json({"text": text})
    assert time.process_time() - began < 0.3, "the standard library takes 0.03 s, a callback for each character 0.7 s"


@given(st.lists(anything, max_size=8))
def test_a_text_that_grows_is_written_as_it_would_be_at_once(texts: list[str]) -> None:
    escaped = EscapedText()
    assert [escaped.add(text) for text in texts] == [ascii_text(text).encode() for text in texts]
    assert b"".join(split_writes(b'"', escaped, b'"')) == ascii_text("".join(texts)).encode()
    assert bool(escaped) == any(texts)


def test_a_short_text_goes_out_in_one_write_and_a_long_one_in_several() -> None:
    escaped = EscapedText()
    escaped.add("中" * 10)
    assert len(split_writes(b'{"a":"', escaped, b'","b":"', escaped, b'"}')) == 1
    for _ in range(1000):
        escaped.add("中" * 1000)
    pieces = split_writes(b'{"a":"', escaped, b'","b":"', escaped, b'"}')
    assert max(map(len, pieces)) < 2 * WRITE_BYTES
    assert json.loads(b"".join(pieces)) == {"a": "中" * 1_000_010, "b": "中" * 1_000_010}


@given(values(whole))
def test_compact_json_has_no_space_and_leaves_characters_as_they_are(value: Any) -> None:
    encoded = compact_json(value)
    assert json.loads(encoded.decode()) == value
    assert b"\n" not in encoded


def test_members_keep_their_order() -> None:
    assert compact_json({"b": 1, "a": [1, 2], "用": None}) == '{"b":1,"a":[1,2],"用":null}'.encode()
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
    written = ndjson_line(value)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert b"\r" not in written


def test_an_event_has_a_name_data_and_an_empty_line() -> None:
    assert sse("done", b'{"a":1}') == b'event:done\ndata:{"a":1}\n\n'
