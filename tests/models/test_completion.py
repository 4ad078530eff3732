"""What endpoints answer, as deltas: no socket, only bytes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.model_endpoint import DONE, chunk, event, speech
from support.model_runner import called, finished, joined, said, thought

from palaver.core.ports.models import ModelDelta, StepFinished, ThinkingDelta, UsageDelta
from palaver.core.problems import Upstream
from palaver.core.types import Usage
from palaver.models.completion import ChatCompletionParser


def read(*pieces: bytes) -> list[ModelDelta]:
    answer = ChatCompletionParser()
    return [delta for piece in pieces for delta in answer.read(piece)] + answer.end()


def failed(*pieces: bytes) -> Upstream:
    with pytest.raises(Upstream) as caught:
        read(*pieces)
    return caught.value


def call(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> bytes:
    """A chunk with one piece of a tool call; members that are ``None`` are left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    piece = {"index": index, "id": id, "type": "function", "function": function}
    return chunk({"tool_calls": [{key: value for key, value in piece.items() if value is not None}]})


CALLED = chunk(finish="tool_calls") + DONE


# Words --------------------------------------------------------------------------------------------------------------


def test_text_comes_in_order_and_the_end_with_its_reason() -> None:
    deltas = read(speech("Hel", "lo, ", "你好"))
    assert said(deltas) == "Hello, 你好"
    assert finished(deltas) == StepFinished(reason="stop")


def test_pieces_of_one_read_come_joined() -> None:
    assert len(read(speech("a", "b", "c"))) == 2


def test_usage_comes_in_a_last_chunk_without_choices() -> None:
    last = chunk(usage={"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46})
    assert finished(read(chunk({"content": "x"}, finish="stop") + last + DONE)).usage == Usage(prompt=12, completion=34)


def test_usage_with_every_chunk_is_passed_on_as_it_grows_and_counts_once() -> None:
    growing = b"".join(chunk({"content": "x"}, usage={"prompt_tokens": 3, "completion_tokens": n}) for n in (1, 2))
    deltas = read(growing + chunk(finish="stop") + DONE)
    assert finished(deltas).usage == Usage(prompt=3, completion=2)
    one_by_one = read(growing[: len(growing) // 2], growing[len(growing) // 2 :] + chunk(finish="stop") + DONE)
    reports = [delta.usage for delta in one_by_one if isinstance(delta, UsageDelta)]
    assert reports == [Usage(prompt=3, completion=1), Usage(prompt=3, completion=2)]


@pytest.mark.parametrize("more", [{}, {"prompt_tokens": "12"}], ids=["as documented", "beside nonsense"])
def test_cached_and_reasoning_tokens_are_counted(more: dict[str, Any]) -> None:
    usage: dict[str, Any] = {
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 30},
        **more,
    }
    counted = finished(read(chunk({"content": "x"}, finish="stop") + chunk(usage=usage) + DONE)).usage
    assert (counted.cached, counted.reasoning) == (8, 30)


def test_usage_inside_the_choice_counts_too() -> None:
    inside = event({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop", "usage": {"prompt_tokens": 5}}]})
    assert finished(read(inside + DONE)).usage == Usage(prompt=5)


@pytest.mark.parametrize(
    ("reason", "plain"),
    [
        *((reason, "stop") for reason in ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", "COMPLETE")),
        *((reason, "length") for reason in ("length", "MAX_TOKENS", "model_length", "model_context_window_exceeded")),
        *((reason, "content_filter") for reason in ("content_filter", "content-filter", "sensitive", "SAFETY")),
    ],
)
def test_finish_reasons_of_all_endpoints_are_passed_on_in_openais_words(reason: str, plain: str) -> None:
    assert finished(read(speech("x", finish=reason))).reason == plain


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_reasoning_is_thought_under_either_name(member: str) -> None:
    deltas = read(chunk({member: "Let me ", "content": None}) + chunk({member: "see."}) + speech("Yes."))
    assert (thought(deltas), said(deltas)) == ("Let me see.", "Yes.")


def test_reasoning_under_both_names_is_thought_once() -> None:
    assert thought(read(chunk({"reasoning": "Hm.", "reasoning_content": "Hm."}) + speech("x"))) == "Hm."


@pytest.mark.parametrize("member", ["content", "message"])
def test_thinking_in_the_first_words_is_told_apart(member: str) -> None:
    pieces = b"".join(
        event({"choices": [{("message" if member == "message" else "delta"): {"content": text}}]})
        for text in ("<thi", "nk>", "a</", "think>\n\n", "b")
    )
    deltas = read(pieces + chunk(finish="stop"))
    assert (thought(deltas), said(deltas)) == ("a", "b")
    assert all(delta.provider_data is None for delta in deltas if isinstance(delta, ThinkingDelta))


def test_an_answer_that_has_thought_only_is_none() -> None:
    assert failed(speech("<think>a")).reason == "refused"
    assert failed(chunk({"reasoning": "a"}, finish="length")).reason == "cut"


def test_content_may_be_a_list_of_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, None, "b"]
    assert said(read(chunk({"content": parts}) + chunk(finish="stop"))) == "ab"


def test_a_refusal_is_what_the_model_says() -> None:
    assert said(read(chunk({"content": None, "refusal": "I will not."}, finish="stop"))) == "I will not."


@pytest.mark.parametrize(
    "odd",
    [
        event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        event({"choices": None, "usage": None, "error": None}),
        event({"choices": [None]}),
        event({"choices": [{"index": None, "delta": None, "finish_reason": None}]}),
        event({"choices": [{"index": 0, "delta": {"content": None, "tool_calls": None, "role": None}}]}),
        event({"choices": [{"index": 0, "delta": {"tool_calls": [None]}, "finish_reason": ""}]}),
        event({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
        event({"choices": [{"index": 0, "delta": {"reasoning": {"not": "text"}}}]}),
        event({}),
        b": OPENROUTER PROCESSING\n\n",
        b"event: ping\ndata: \n\n",
        b'data: {"choices":[],"unknown":NaN}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":"3"}}\n\n',
    ],
)
def test_chunks_that_say_nothing_are_passed_over(odd: bytes) -> None:
    deltas = read(odd + speech("x"))
    assert said(deltas) == "x"


def test_numbers_written_as_fractions_are_whole_tokens() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3.0,"completion_tokens":4.0}}\n\n'
    assert finished(read(speech("x").removesuffix(DONE) + usage + DONE)).usage == Usage(prompt=3, completion=4)


@pytest.mark.parametrize("written", [rb"\ud83d", rb"\ude00", rb"\u0000", b"\xff", b"\xed\xa0\xbd"])
def test_text_that_cannot_be_stored_is_mended(written: bytes) -> None:
    text = said(read(b'data: {"choices":[{"delta":{"content":"a' + written + b'b"}}]}\n\n' + speech("!")))
    assert text.startswith("a\ufffd")
    assert text.endswith("b!")
    text.encode()


def test_nothing_after_done_is_read() -> None:
    assert said(read(speech("a") + speech("b"))) == "a"


def test_a_stream_may_end_without_done_and_without_its_last_blank_line() -> None:
    assert finished(read(chunk({"content": "x"}) + chunk(finish="stop").rstrip())).reason == "stop"


def test_done_without_a_finish_reason_is_an_end() -> None:
    assert finished(read(chunk({"content": "x"}) + DONE)).reason == "stop"


# Tool calls ---------------------------------------------------------------------------------------------------------


def test_parallel_calls_arrive_in_pieces_by_index() -> None:
    deltas = read(
        call(0, "call_a", "weather", "")
        + call(0, arguments='{"ci')
        + call(1, "call_b", "time", '{"zone":')
        + call(0, arguments='ty":"Kyiv"}')
        + call(1, arguments='"UTC"}')
        + CALLED
    )
    assert [(it.call_id, it.name, it.arguments) for it in called(deltas)] == [
        ("call_a", "weather", {"city": "Kyiv"}),
        ("call_b", "time", {"zone": "UTC"}),
    ]
    assert finished(deltas).reason == "tool_calls"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([call(None, "a", "f", '{"x":'), call(None, "a", None, "1}")], id="id with each piece, no index"),
        pytest.param([call(None, "a", "f", '{"x":'), call(None, None, None, "1}")], id="id once, no index"),
        pytest.param([call(0, None, "f", '{"x":'), call(0, None, None, "1}")], id="no id"),
        pytest.param([call(None, None, "f", '{"x":'), call(None, None, None, "1}")], id="neither"),
        pytest.param([call(0, "a", "f", '{"x":'), call(0, "a", "f", "1}")], id="name and id repeated"),
        pytest.param([call(0, "a", "f", '{"x":'), call(0, "b", "f", "1}")], id="a new id with each piece"),
        pytest.param([call(0, "a", "f", '{"x":'), call(0, "", "", "1}")], id="empty texts for nothing"),
        pytest.param([call(0, "a", "f", '{"x":1}')], id="whole"),
        pytest.param([call(0, "a", "f", {"x": 1})], id="arguments as an object"),
        pytest.param([call(0, "a", None, '{"x":'), call(0, None, "f", "1}")], id="name late"),
    ],
)
def test_one_call_is_understood_however_it_is_told(pieces: list[bytes]) -> None:
    (only,) = called(read(b"".join(pieces) + CALLED))
    assert (only.name, only.arguments, only.malformed) == ("f", {"x": 1}, "")
    assert only.call_id


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([call(0, "a", "f", '{"x":1}'), call(0, "b", "f", '{"x":2}')], id="all with index 0"),
        pytest.param([call(None, "a", "f", '{"x":1}'), call(None, "b", "f", '{"x":2}')], id="no index"),
        pytest.param([call(None, None, "f", '{"x":1}'), call(None, None, "f", '{"x":2}')], id="neither index nor id"),
        pytest.param([call(0, "a", "f", '{"x":1}'), call(1, "a", "f", '{"x":2}')], id="one id for both"),
        pytest.param([call(0, None, "f", '{"x":1}'), call(1, None, "f", '{"x":2}')], id="no ids"),
    ],
)
def test_two_calls_of_one_tool_stay_two(pieces: list[bytes]) -> None:
    first, second = called(read(b"".join(pieces) + CALLED))
    assert (first.arguments, second.arguments) == ({"x": 1}, {"x": 2})
    assert first.call_id != second.call_id


def test_a_name_in_pieces_is_put_together() -> None:
    (only,) = called(read(call(0, "a", "get_") + call(0, None, "weather") + call(0, None, None, "{}") + CALLED))
    assert only.name == "get_weather"


@pytest.mark.parametrize("empty", [None, "", "  ", "{}"])
def test_no_arguments_are_an_empty_object(empty: str | None) -> None:
    (only,) = called(read(call(0, "a", "f", empty) + CALLED))
    assert (only.arguments, only.malformed) == ({}, "")


@pytest.mark.parametrize("raw", ['{"x":', "[1]", "null", '"text"', "x = 1", '{"x": NaN}', '{"x": 1e999}', "[" * 5000])
def test_arguments_that_are_no_json_object_are_kept_as_text(raw: str) -> None:
    (only,) = called(read(call(0, "a", "f", raw) + CALLED))
    assert (only.arguments, only.malformed) == ({}, raw)


def test_arguments_that_cannot_be_stored_are_mended() -> None:
    (only,) = called(read(call(0, "a", "f", r'{"x\u0000":"\ud800","y":["\u0000"]}') + CALLED))
    assert only.arguments == {"x\ufffd": "\ufffd", "y": ["\ufffd"]}


@pytest.mark.parametrize("reason", ["stop", "function_call", "tool_calls"])
def test_an_answer_with_calls_ends_because_of_them(reason: str) -> None:
    assert finished(read(call(0, "a", "f", "{}") + chunk(finish=reason) + DONE)).reason == "tool_calls"


def test_a_call_cut_off_by_the_token_limit_says_so() -> None:
    deltas = read(call(0, "a", "f", '{"x":') + chunk(finish="length") + DONE)
    assert finished(deltas).reason == "length"
    assert called(deltas)[0].malformed == '{"x":'


def test_an_empty_piece_is_no_call() -> None:
    assert not called(read(call(0) + speech("x")))


def test_what_a_call_carries_for_its_endpoint_is_kept() -> None:
    signed = {"google": {"thought_signature": "c2ln"}}
    piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}
    (only,) = called(read(chunk({"tool_calls": [piece]}) + CALLED))
    assert only.provider_data == {"openai": {"extra_content": signed}}


# Answers in one piece -----------------------------------------------------------------------------------------------


def test_an_answer_in_one_json_object_is_read_like_a_stream() -> None:
    message = {
        "role": "assistant",
        "reasoning_content": "Hm.",
        "content": "Let me look.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    deltas = ChatCompletionParser().whole(
        msgspec.json.encode({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage})
    )
    assert (thought(deltas), said(deltas), called(deltas)[0].arguments) == ("Hm.", "Let me look.", {"x": 1})
    assert finished(deltas) == StepFinished(reason="tool_calls", usage=Usage(prompt=1, completion=2))


def test_an_event_stream_that_calls_itself_json_is_read_all_the_same() -> None:
    assert said(ChatCompletionParser().whole(b"\n" + speech("x"))) == "x"


@pytest.mark.parametrize(("body", "reason"), [(b'{"error":"no"}', "refused"), (b"{}", "cut"), (b"<a>", "malformed")])
def test_a_json_answer_may_fail_too(body: bytes, reason: str) -> None:
    with pytest.raises(Upstream) as caught:
        ChatCompletionParser().whole(body)
    assert caught.value.reason == reason


# Failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ({"error": {"message": "Overloaded", "type": "server_error", "code": 529}}, "Overloaded (server_error)"),
        ({"error": {"message": "Too long", "code": "context_length"}}, "Too long (context_length)"),
        ({"error": "broken"}, "broken"),
        ({"error": {"code": 7}}, "{'code': 7}"),
        ({"error": {"message": "late"}, "choices": [{"delta": {"content": "x"}}]}, "late"),
    ],
)
def test_an_error_inside_the_stream_is_a_refusal(error: Any, detail: str) -> None:
    problem = failed(event(error))
    assert (problem.reason, problem.detail) == ("refused", detail)


def test_an_event_called_error_is_a_refusal_whatever_it_holds() -> None:
    assert failed(b"event: error\ndata: out of memory\n\n").detail == "out of memory"
    assert failed(b'event: error\ndata: {"message": "out"}\n\n').detail == "out"


def test_words_before_an_error_are_said_before_it_is_raised() -> None:
    answer = ChatCompletionParser()
    assert said(answer.read(chunk({"content": "x"}) + event({"error": "broken"}))) == "x"
    with pytest.raises(Upstream, match="broken"):
        answer.read(b"")
    with pytest.raises(Upstream, match="broken"):
        answer.end()


@pytest.mark.parametrize("stream", [b"", chunk({"content": "x"}), b": nothing\n\n", chunk({"content": "x"})[:-9]])
def test_an_end_before_the_finish_reason_is_a_cut(stream: bytes) -> None:
    assert failed(stream).reason == "cut"


def test_half_a_chunk_after_the_finish_reason_is_forgiven() -> None:
    assert finished(read(chunk({"content": "x"}, finish="stop") + b'data: {"choi')).reason == "stop"


@pytest.mark.parametrize("wrong", [b'{"choices":', b"[]", b"text", b'{"choices":{}}', b"[" * 100_000, b'"'])
def test_a_chunk_that_is_none_is_malformed(wrong: bytes) -> None:
    problem = failed(b"data: " + wrong + b"\n\n")
    assert problem.reason == "malformed"
    assert len(problem.detail) < 400


# However it is cut --------------------------------------------------------------------------------------------------

RECORDED = (
    b": welcome\r\n\r\n"
    + chunk({"role": "assistant", "content": ""})
    + chunk({"reasoning_content": "Wie spät ist es? 几点了？"})
    + chunk({"content": "Einen Moment 😀, "})
    + chunk({"content": "ich sehe nach."}).replace(b"\n", b"\r\n")
    + call(0, "call_a", "time", '{"zone": "Europe/')
    + call(1, "call_b", "weather", "")
    + call(0, arguments='Kyiv"}')
    + call(1, arguments='{"city": "Київ"}')
    + chunk(finish="tool_calls")
    + chunk(usage={"prompt_tokens": 3, "completion_tokens": 4})
    + DONE
)


@given(cuts=st.lists(st.integers(0, len(RECORDED)), max_size=30))
def test_where_the_network_cuts_the_answer_changes_nothing(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(RECORDED)]
    pieces = [RECORDED[start:end] for start, end in pairwise(places)]
    assert joined(read(*pieces)) == joined(read(RECORDED))


def test_an_answer_byte_by_byte_is_the_same_answer() -> None:
    assert joined(read(*(RECORDED[at : at + 1] for at in range(len(RECORDED))))) == joined(read(RECORDED))
