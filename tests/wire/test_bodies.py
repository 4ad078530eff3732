"""Reading requests: what is a JSON object here, how its members become fields, what an Idempotency-Key is."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.requests import call

from palaver.core.problems import Invalid
from palaver.core.types import MAX_ID
from palaver.wire.bodies import MAX_DEPTH, MAX_NODES, idempotency_key, json_object, parse, valid_id

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=5)
_tokens = [
    *'{}[],:"',
    *('"a"', '"b":1', '{"a":', '{"a":1,"a":2}', "null", "true", "1", "-1", "0", "01", "1.5", "1e3", "1e999", "NaN"),
    *("-Infinity", "\\", "\\u0041", '"\\ud83d\\ude00"', '"\\ud83d"', '"\\u0000"', '"\\x"', '"\\/"', "//"),
    *("é", "🙂", "\n", "\t", "\x01", "\ufeff", "\u2028"),
]
jsonish = st.lists(st.sampled_from(_tokens), max_size=12).map("".join)


class Pair(msgspec.Struct, kw_only=True):
    first: int | str | None = None
    second: str | None = None
    theThird: list[int] | None = None  # noqa: N815


def refused(body: bytes) -> Invalid:
    with pytest.raises(Invalid) as refusal:
        json_object(body)
    assert refusal.value.field == "body"
    return refusal.value


def expected(body: bytes) -> dict[str, Any] | None:
    """What the standard library makes of ``body`` within our rules; ``None``: it is to be refused."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    try:
        value: Any = json.loads(body.decode("utf-8"), parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or _holds_infinity(value) or depth(value) > MAX_DEPTH:
        return None
    return cast("dict[str, Any]", without_nul(value))


def _holds_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_infinity, cast("dict[str, Any]", value).values()))
    if isinstance(value, list):
        return any(map(_holds_infinity, cast("list[Any]", value)))
    return isinstance(value, float) and math.isinf(value)


def depth(value: Any) -> int:
    inside: list[Any] = []
    if isinstance(value, dict):
        inside = list(cast("dict[str, Any]", value).values())
    elif isinstance(value, list):
        inside = cast("list[Any]", value)
    else:
        return 0
    return 1 + max(map(depth, inside), default=0)


def without_nul(value: Any) -> Any:
    if isinstance(value, dict):
        return {without_nul(name): without_nul(member) for name, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [without_nul(member) for member in cast("list[Any]", value)]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


# JSON ---------------------------------------------------------------------------------------------------------------


@given(objects, st.booleans(), st.sampled_from([None, 2]))
def test_every_json_object_is_read_as_what_it_is(value: dict[str, Any], ascii: bool, indent: int | None) -> None:
    assert json_object(json.dumps(value, ensure_ascii=ascii, indent=indent).encode()) == value


@given(jsonish | st.text(max_size=20))
@example('{"a":"\\ud83dabcdefghij"}')
@example('{"a":"\\ude00\\ud83d"}')
@example('{"\\udfff":1}')
@example('{"a":1}\x00')
@example('{"a":-0.0,"b":-0}')
def test_text_is_read_exactly_when_the_standard_library_reads_it_within_the_rules(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    wanted = expected(body)
    if wanted is None:
        refused(body)
    else:
        assert json_object(body) == wanted


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_invalid(body: bytes) -> None:
    if expected(body) is None:
        refused(body)


@given(objects, st.data())
def test_a_body_with_one_byte_changed_is_read_or_invalid(value: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(value, ensure_ascii=False).encode())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    wanted = expected(bytes(body))
    if wanted is None:
        refused(bytes(body))
    else:
        assert json_object(bytes(body)) == wanted


@pytest.mark.parametrize("opening", [('{"a":', "}"), ('{"a":[', "]}")])
def test_sixty_four_levels_are_read_and_sixty_five_are_not(opening: tuple[str, str]) -> None:
    before, after = opening
    levels = 1 if before.endswith(":") else 2
    body = before * (MAX_DEPTH // levels) + "1" + after * (MAX_DEPTH // levels)
    assert depth(json_object(body.encode())) == MAX_DEPTH
    assert refused(b'{"a":' + body.encode() + b"}").rule == "json"


def test_a_wide_body_is_not_taken_for_a_deep_one() -> None:
    assert len(json_object(b'{"a":[' + b",".join([b"[{}]"] * 200) + b"]}")["a"]) == 200


@pytest.mark.parametrize(
    "body", [b"[" * 500_000, b'{"a":' * 200_000, b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"]
)
def test_a_very_deep_body_is_refused_and_hurts_nobody(body: bytes) -> None:
    assert refused(body).rule == "json"


@pytest.mark.parametrize("body", [b"", b" ", b"\t\r\n  "])
def test_white_space_alone_is_an_empty_body(body: bytes) -> None:
    assert refused(body).rule == "required"
    assert json_object(body, empty_is_object=True) == {}


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"1", b"null", b"true", b"{}{}", b"{} x", b"\x0b{}", b"'a'"])
def test_whatever_is_no_object_is_malformed(body: bytes) -> None:
    assert refused(body).rule == "json"
    with pytest.raises(Invalid):
        json_object(body, empty_is_object=True)


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xe4\xb8"}',
        b'{"a":"\\ud800"}',
        b'{"a":{"b":["\\udc00"]}}',
        b'{"\\ud800":1}',
        b'{"a":"\\ud800","a":"x"}',
        b'{"a":"\\ud83d \\ude00"}',
    ],
)
def test_what_is_not_utf_8_or_half_a_character_is_malformed(body: bytes) -> None:
    assert refused(body).rule == "json"


def test_of_a_repeated_member_the_last_one_counts() -> None:
    assert json_object(b'{"a":1,"b":2,"a":null}') == {"a": None, "b": 2}


def test_u_0000_becomes_u_fffd_wherever_it_stands() -> None:
    body = rb'{"a\u0000":"\u0000","b":["x\u0000y",{"c":"\u0000"}],"d":"\\u0000"}'
    assert json_object(body) == {"a\ufffd": "\ufffd", "b": ["x\ufffdy", {"c": "\ufffd"}], "d": "\\u0000"}


@pytest.mark.parametrize(
    "number", ["9" * 400, "-" + "9" * 400, "18446744073709551616", "1e308", "5e-324", "1E+2", "-0"]
)
def test_numbers_of_any_size_are_read(number: str) -> None:
    assert json_object(f'{{"a":{number}}}'.encode()) == {"a": json.loads(number)}


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1"])
def test_numbers_that_are_none_are_malformed(number: str) -> None:
    assert refused(f'{{"a":{number}}}'.encode()).rule == "json"


# Fields -------------------------------------------------------------------------------------------------------------


def wrong(members: dict[str, Any], *, digits: bool = False) -> str:
    with pytest.raises(Invalid) as refusal:
        parse(Pair, members, digits_are_numbers=digits)
    assert refusal.value.rule == "type"
    return refusal.value.field


def test_members_become_fields_null_is_absent_and_others_are_passed_over() -> None:
    assert parse(Pair, {"first": 1, "second": None, "theThird": [1, 2], "x": {}}) == Pair(first=1, theThird=[1, 2])


def test_the_first_wrong_field_in_the_order_of_the_shape_is_reported() -> None:
    assert wrong({"theThird": 1, "second": 2, "first": 3.5}) == "first"
    assert wrong({"theThird": 1, "second": 2}) == "second"
    assert wrong({"theThird": 1}) == "theThird"


@pytest.mark.parametrize("value", [True, False, 1.5, [], {}, [1]])
def test_a_number_is_not_a_boolean_a_fraction_or_a_container(value: Any) -> None:
    assert wrong({"first": value}) == "first"
    assert wrong({"first": value}, digits=True) == "first"


@pytest.mark.parametrize(("value", "number"), [("12", 12), (" 12 ", 12), ("-3", -3), ("007", 7), (2.0, 2), (1e3, 1000)])
def test_digits_are_numbers_where_the_dialect_says_so(value: Any, number: int) -> None:
    assert parse(Pair, {"first": value, "theThird": [value]}, digits_are_numbers=True) == Pair(
        first=number, theThird=[number]
    )


@pytest.mark.parametrize("value", ["1.0", "+1", "1e3", "", " ", "１２", "0x1", "1_000", "--1"])
def test_other_texts_are_no_numbers(value: str) -> None:
    assert wrong({"theThird": [value]}, digits=True) == "theThird"


@pytest.mark.parametrize("value", ["12", " 007 ", "-0", "9" * 4400])
def test_a_text_of_digits_stays_a_text_in_a_field_of_text(value: str) -> None:
    assert parse(Pair, {"second": value}, digits_are_numbers=True) == Pair(second=value)


@pytest.mark.parametrize("value", ["1", [], [True], [None], [1.5], [[1]], {}])
def test_a_list_of_numbers_holds_nothing_else(value: Any) -> None:
    assert value == [] or wrong({"theThird": value}) == "theThird"


@given(st.dictionaries(st.sampled_from(["first", "second", "theThird", "x"]), values), st.booleans())
def test_any_members_are_read_or_invalid(members: dict[str, Any], digits: bool) -> None:
    wrong_field: str | None = None
    try:
        parse(Pair, members, digits_are_numbers=digits)
    except Invalid as refusal:
        wrong_field = refusal.field
    assert wrong_field is None or wrong_field in members


@pytest.mark.parametrize(("number", "id"), [(1, 1), (MAX_ID, MAX_ID), (0, None), (-1, None), (MAX_ID + 1, None)])
def test_an_id_is_a_positive_int64(number: int, id: int | None) -> None:
    assert valid_id(number) == id


# Idempotency-Key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "!", "~", "x" * 255, "a,b;c=d", " trimmed\t"])
def test_a_key_is_up_to_255_visible_characters(key: str) -> None:
    claim = idempotency_key(call({"Idempotency-Key": key}, b"{}"), "POST /x")
    assert claim is not None
    assert (claim.scope, claim.key) == ("POST /x", key.strip())


@pytest.mark.parametrize("key", ["", "  ", "x" * 256, "a b", "a\tb", "ключ", b"k\xa0", b"\x85k", b"k\x7f", b"k\x1f"])
def test_any_other_key_is_malformed(key: str | bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        idempotency_key(call({"Idempotency-Key": key}), "POST /x")
    assert refusal.value.field == "Idempotency-Key"


def test_without_the_header_there_is_no_claim() -> None:
    assert idempotency_key(call(), "POST /x") is None


def test_a_request_is_its_query_and_its_body() -> None:
    def digest(body: bytes, query: str = "") -> bytes:
        claim = idempotency_key(call({"Idempotency-Key": "k"}, body, query=query), "POST /x")
        assert claim is not None
        return claim.digest

    assert digest(b"{}") == digest(b"{}")
    assert len({digest(b"{}"), digest(b"{} "), digest(b"{}", "a=1"), digest(b"{}", "a=1&"), digest(b"", "{}")}) == 5


@pytest.mark.parametrize("node", ["[]", "{}", '[{"":[]}]', '{"a":"[:"}'])
def test_a_body_has_no_more_objects_arrays_and_members_than_may_be(node: str) -> None:
    each = len(re.findall(r"[\[{:]", node.replace('"[:"', "")))
    most = (MAX_NODES - 4) // each

    def body(count: int) -> bytes:
        return f'{{"text":"{"[{:" * MAX_NODES}\\"[","a":[{",".join([node] * count)}]}}'.encode()

    assert len(json_object(body(most))["a"]) == most
    with pytest.raises(Invalid) as refused:
        json_object(body(most + 1 + 4 // each))
    assert refused.value.rule == "json"


@pytest.mark.parametrize("piece", ["[", '"', '\\"[', '"[', "[\\"])
def test_brackets_are_counted_in_proportion_to_the_body(piece: str) -> None:
    body = b'{"a":"' + piece.encode() * (2**20 // len(piece))
    begun = time.process_time()
    with pytest.raises(Invalid):
        json_object(body)
    assert time.process_time() - begun < 1
