"""Settings of credentials: what they take, and what they say when they do not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.core.problems import Invalid
from palaver.wire.contract import CredentialSetting
from palaver.wire.settings import (
    COMMON_SETTINGS,
    one_of,
    parse_bool,
    parse_limit,
    parse_text,
    parse_texts,
    read_settings,
)

KNOWN = (
    *COMMON_SETTINGS,
    CredentialSetting(name="signature", read=one_of("sha256", "hmac-sha256"), meaning="the digest"),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


def refusal(**given: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        read_settings(given, KNOWN)
    return refused.value


def test_settings_are_read_by_their_names() -> None:
    said = {"enabled": False, "rpm": 5, "total": None, "default_user": "u", "agents": ["a", 7]}
    assert read_settings(said, KNOWN) == {**said, "agents": ["a", "7"]}
    assert read_settings({}, KNOWN) == {}


def test_a_setting_there_is_not_is_refused_with_those_there_are() -> None:
    refused = refusal(rmp=5)
    assert (refused.field, refused.rule) == ("rmp", "choice")
    for setting in KNOWN:
        assert setting.name in refused.detail


def test_a_value_out_of_range_is_refused_with_what_is_allowed() -> None:
    refused = refusal(signature="md5")
    assert (refused.field, refused.rule) == ("signature", "range")
    assert "'md5'" in refused.detail
    assert "sha256 or hmac-sha256" in refused.detail


@pytest.mark.parametrize("value", [None, 0, 1, "true", "", [], {}])
def test_a_switch_is_true_or_false(value: Any) -> None:
    assert parse_bool(True) is True
    assert parse_bool(False) is False
    with pytest.raises(ValueError, match="true or false"):
        parse_bool(value)


@pytest.mark.parametrize("value", [0, -1, 2**53, 1.0, 1.5, True, False, "5", "", [], {}])
def test_a_limit_is_a_whole_number_of_at_least_one_or_null(value: Any) -> None:
    assert [parse_limit(one) for one in (None, 1, 2**53 - 1)] == [None, 1, 2**53 - 1]
    with pytest.raises(ValueError, match="at least 1"):
        parse_limit(value)


@pytest.mark.parametrize("value", [None, "", " ", "x" * 256, True, 1.5, [], ["a"], {}])
def test_a_text_is_not_blank_and_digits_are_one_too(value: Any) -> None:
    assert [parse_text(one) for one in ("a", 7, "x" * 255, " a ")] == ["a", "7", "x" * 255, " a "]
    with pytest.raises(ValueError, match="text"):
        parse_text(value)


@pytest.mark.parametrize("value", ["", [""], [None], [True], [["a"]], {}, {"a": 1}, 1.5])
def test_a_list_of_texts_takes_one_alone_and_null_for_all(value: Any) -> None:
    assert [parse_texts(one) for one in (None, [], "a", 7, ["a", 7])] == [None, [], ["a"], ["7"], ["a", "7"]]
    with pytest.raises(ValueError, match="null for all"):
        parse_texts(value)


@pytest.mark.parametrize("value", ["c", "", None, 1, True, [], ["a"], {}])
def test_a_choice_is_one_of_its_words(value: Any) -> None:
    assert one_of("a", "b")("b") == "b"
    with pytest.raises(ValueError, match="a or b"):
        one_of("a", "b")(value)


@given(st.dictionaries(st.sampled_from([setting.name for setting in KNOWN]) | st.text(max_size=4), values))
def test_any_values_are_taken_or_refused_with_a_reason(given: dict[str, Any]) -> None:
    refused: Invalid | None = None
    try:
        stored = read_settings(given, KNOWN)
    except Invalid as problem:
        stored, refused = {}, problem
    if refused is None:
        assert set(stored) == set(given)
    else:
        assert refused.field in given
        assert refused.detail
