"""What endpoints send beside Chat Completions as they are written down, and what becomes of it.

One line for each: add what you meet.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from support.model_endpoint import DONE, Act, Upstream, answer, chunk, event, speech, stream
from support.model_runner import asked, called, finished, joined, listen_to_the_end, run, said, thought

from palaver.core.observer import NullObserver
from palaver.core.ports.models import ModelDelta, StepFinished, UsageDelta
from palaver.core.problems import Upstream as Failure
from palaver.core.suggestions import generate_suggestions
from palaver.core.titles import generate_title
from palaver.core.types import Agent, AgentSpec, Usage, new_uid
from palaver.models.completion import ChatCompletionParser
from palaver.models.media import OpenAIMedia
from palaver.models.registry import ModelRegistry

END = chunk(finish="stop") + DONE
SAYS = chunk({"content": "x"})


def data(*texts: str | bytes) -> bytes:
    """One event for each text."""
    return b"".join(b"data: %s\n\n" % (text.encode() if isinstance(text, str) else text) for text in texts)


def choice(**members: Any) -> bytes:
    return event({"choices": [members]})


def piece(**members: Any) -> bytes:
    """A piece of a tool call."""
    return chunk({"tool_calls": [members]})


def call(arguments: Any = None, **members: Any) -> bytes:
    function = {key: members.pop(key) for key in ("name",) if key in members}
    if arguments is not None:
        function["arguments"] = arguments
    return piece(**members, function=function)


def read(*pieces: bytes) -> list[ModelDelta]:
    answer = ChatCompletionParser()
    return [delta for piece in pieces for delta in answer.read(piece)] + answer.end()


def problem(*pieces: bytes) -> tuple[list[ModelDelta], Failure]:
    """What was said before the answer failed, and with what."""
    answer = ChatCompletionParser()
    deltas: list[ModelDelta] = []
    try:
        for piece in pieces:
            deltas += answer.read(piece)
        deltas += answer.end()
        answer.read(b"")
    except Failure as failure:
        return deltas, failure
    raise AssertionError(f"this is complete: {deltas}")


# Nothing at stake ---------------------------------------------------------------------------------------------------

ODDITIES: dict[str, bytes] = {
    # name: a stream that says "x", and ends well
    "usage is an empty text": SAYS + data('{"choices":[],"usage":""}') + END,
    "usage is a list": SAYS + data('{"choices":[],"usage":[]}') + END,
    "usage is NaN": SAYS + data('{"choices":[],"usage":NaN}') + END,
    "usage has NaN": SAYS + data('{"choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":Infinity}}') + END,
    "usage is negative": SAYS + data('{"choices":[],"usage":{"prompt_tokens":-1}}') + END,
    "usage is larger than any": SAYS + data('{"choices":[],"usage":{"prompt_tokens":1e300}}') + END,
    "usage is larger than a float": SAYS + data('{"choices":[],"usage":{"prompt_tokens":1' + "0" * 400 + "}}") + END,
    "usage is true": SAYS + data('{"choices":[],"usage":true}') + END,
    "usage beside the last words": chunk({"content": "x"}, finish="stop", usage={"prompt_tokens": 1}) + DONE,
    "[DONE] with a blank": SAYS + chunk(finish="stop") + b"data: [DONE] \n\n",
    "[DONE] with two blanks before": SAYS + chunk(finish="stop") + b"data:   [DONE]\n\n",
    "[DONE] twice": SAYS + END + DONE,
    "[DONE] without a space": SAYS + chunk(finish="stop") + b"data:[DONE]\n\n",
    "[DONE] without its end": SAYS + chunk(finish="stop") + b"data: [DONE]",
    "no [DONE]": SAYS + chunk(finish="stop"),
    "no finish reason": SAYS + DONE,
    "two finish reasons": SAYS + chunk(finish="stop") + END,
    "words after the finish reason": chunk(finish="stop") + SAYS + DONE,
    "an empty finish reason": choice(delta={"content": "x"}, finish_reason="") + END,
    "a finish reason of another type": choice(delta={"content": "x"}, finish_reason=False) + END,
    "ping": data("ping") + SAYS + data("ping") + END,
    "a ping with a name": b"event: ping\ndata: {}\n\n" + SAYS + END,
    "a ping as an object": data('{"type":"ping"}') + SAYS + END,
    "a text": data('"hello"') + SAYS + END,
    "a list": data("[]") + SAYS + END,
    "a number": data("1") + SAYS + END,
    "null": data("null") + SAYS + END,
    "true": data("true") + SAYS + END,
    "no data": b"data:\n\ndata: \n\ndata\n\n" + SAYS + END,
    "an object without members": data("{}") + SAYS + END,
    "a code of success": data('{"code":0,"message":"ok"}', '{"code":"200","msg":"success"}') + SAYS + END,
    "MiniMax's good base_resp": choice(delta={"content": "x"})[:-3] + b',"base_resp":{"status_code":0}}\n\n' + END,
    "a request's id": data('{"id":"1","request_id":"r","created":1}') + SAYS + END,
    "a message behind the end": SAYS + chunk(finish="stop") + data('{"message":"bye"}') + DONE,
    "a comment": b": OPENROUTER PROCESSING\n\n" + SAYS + b":\n\n" + END,
    "names, ids and retry": b"id: 1\nevent: message\nretry: 5\n" + SAYS + END,
    "unknown fields": b"meta: x\n\n" + SAYS + END,
    "a byte order mark": b"\xef\xbb\xbf" + SAYS + END,
    "a byte order mark in the data": data(b"\xef\xbb\xbf" + SAYS[6:-2]) + END,
    "CRLF": (SAYS + END).replace(b"\n", b"\r\n"),
    "CR": (SAYS + END).replace(b"\n", b"\r"),
    "no last newline": (SAYS + chunk(finish="stop")).rstrip(),
    "data over many lines": b'data: {"choices":[{"delta":\ndata: {"content":"x"}}\ndata: ]}\n\n' + END,
    "data: twice": b"data: " + SAYS + END,
    "no choices": data('{"object":"chat.completion.chunk"}') + SAYS + END,
    "choices are null": data('{"choices":null}') + SAYS + END,
    "choices of null": data('{"choices":[null]}') + SAYS + END,
    "choices of texts": data('{"choices":["x", 1]}') + SAYS + END,
    "Azure's first chunk": data('{"choices":[],"prompt_filter_results":[{"content_filter_results":{}}]}') + SAYS + END,
    "Azure's filter at work": choice(delta={}, content_filter_results={"error": {"code": "timeout"}}) + SAYS + END,
    "another choice": choice(index=1, delta={"content": "y"}) + SAYS + END,
    "no index": choice(delta={"content": "x"}) + END,
    "an index as a text": choice(index="0", delta={"content": "x"}) + END,
    "an index of null": choice(index=None, delta={"content": "x"}) + END,
    "delta is null": choice(delta=None, finish_reason=None) + SAYS + END,
    "delta is a text": choice(delta="y") + SAYS + END,
    "delta is empty": choice(delta={}) + SAYS + END,
    "role only": chunk({"role": "assistant"}) + SAYS + END,
    "a role of null": chunk({"role": None, "content": "x"}) + END,
    "content is null": chunk({"content": None}) + SAYS + END,
    "content is a number": chunk({"content": 7}) + SAYS + END,
    "content is an object": chunk({"content": {"text": "y"}}) + SAYS + END,
    "content in parts": chunk({"content": [{"type": "text", "text": "x"}, None, 7, {"type": "image_url"}, {}]}) + END,
    "content in empty parts": chunk({"content": []}) + SAYS + END,
    "message instead of delta": choice(message={"content": "x"}) + END,
    "message beside delta": choice(delta={"content": "x"}, message={"content": "x"}) + END,
    "reasoning is no text": chunk({"reasoning": {"a": 1}, "reasoning_content": []}) + SAYS + END,
    "a refusal of another type": chunk({"refusal": {}}) + SAYS + END,
    "tool calls are null": chunk({"tool_calls": None}) + SAYS + END,
    "tool calls are none": chunk({"tool_calls": []}) + SAYS + END,
    "tool calls are a text": chunk({"tool_calls": "none"}) + SAYS + END,
    "tool calls of null": chunk({"tool_calls": [None]}) + SAYS + END,
    "error is null": data('{"choices":[],"error":null}') + SAYS + END,
    "error is false": data('{"choices":[],"error":false}') + SAYS + END,
    "error is an empty object": data('{"choices":[],"error":{}}') + SAYS + END,
    "logprobs, annotations, audio": choice(logprobs=[], delta={"content": "x", "annotations": [], "audio": None}) + END,
    "created is a text": data(b'{"created":"now","model":null,"id":7,' + SAYS[7:-2]) + END,
}


@pytest.mark.parametrize("name", ODDITIES)
def test_what_is_not_needed_fails_no_answer(name: str) -> None:
    deltas = read(ODDITIES[name])
    assert said(deltas) == "x"
    assert finished(deltas).reason == "stop"
    assert not called(deltas)
    usage = finished(deltas).usage
    assert usage in {Usage(), Usage(prompt=1)}


@pytest.mark.parametrize("name", ODDITIES)
def test_no_oddity_depends_on_where_the_network_cuts(name: str) -> None:
    bytes_ = ODDITIES[name]
    alone = read(*(bytes_[at : at + 1] for at in range(len(bytes_))))
    assert joined([one for one in alone if not isinstance(one, UsageDelta)]) == joined(
        [one for one in read(bytes_) if not isinstance(one, UsageDelta)]
    )


# Tool calls ---------------------------------------------------------------------------------------------------------

CALLED = chunk(finish="tool_calls") + DONE
ONE = [("f", {"x": 1})]
TWO = [("f", {"x": 1}), ("f", {"x": 2})]
CALLS: dict[str, tuple[bytes, list[tuple[str, dict[str, Any]]]]] = {
    "a numeric id": (call('{"x":1}', index=0, id=7, name="f"), ONE),
    "a numeric id, no index": (call('{"x":', id=7, name="f") + call("1}", id=7), ONE),
    "an index as a text": (call('{"x":', index="0", id="a", name="f") + call("1}", index="0"), ONE),
    "no index": (call('{"x":', id="a", name="f") + call("1}"), ONE),
    "a call alone": (chunk({"tool_calls": {"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}}), ONE),
    "arguments as an object": (call({"x": 1}, index=0, name="f"), ONE),
    "an empty object first": (call({}, index=0, id="a", name="f") + call('{"x":1}', index=0), ONE),
    "an empty object as text first": (call("{}", index=0, id="a", name="f") + call('{"x":1}', index=0), ONE),
    "the name in every chunk": (
        call('{"x"', index=0, id="a", name="f") + call(":1}", index=0, name="f") + call("", index=0, name="f"),
        ONE,
    ),
    "a new id in every chunk": (call('{"x":', index=0, id="a", name="f") + call("1}", index=0, id="b", name="f"), ONE),
    "function is null": (piece(index=0, id="a", function=None) + call('{"x":1}', index=0, name="f"), ONE),
    "two whole, index 0, no ids": (call('{"x":1}', index=0, name="f") + call('{"x":2}', index=0, name="f"), TWO),
    "two whole, index 0, one id": (
        call('{"x":1}', index=0, id="a", name="f") + call('{"x":2}', index=0, id="a", name="f"),
        TWO,
    ),
    "two in pieces, index 0, no ids": (
        call('{"x":', index=0, name="f") + call("1}", index=0) + call('{"x":', index=0, name="f") + call("2}", index=0),
        TWO,
    ),
    "two of two tools, index 0, no ids": (
        call('{"x":1}', index=0, name="f") + call('{"y":"}{"}', index=0, name="g"),
        [("f", {"x": 1}), ("g", {"y": "}{"})],
    ),
    "two whole in one text": (call('{"x":1}\n{"x":2}', index=0, name="f"), TWO),
    "braces and quotes in texts": (
        call('{"x":"{\\"', index=0, name="f") + call('}{\\\\"', index=0, name="f") + call("}", index=0, name="f"),
        [("f", {"x": '{"}{\\'})],
    ),
    "half a surrogate in each piece": (
        call('{"x":"\\ud83d', index=0, name="f") + call('\\ude00"}', index=0),
        [("f", {"x": "😀"})],
    ),
    "half a surrogate in each text": (
        data(
            b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\\"x\\":\\"\\ud83d"}}]}}]}'
        )
        + data(b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\\ude00\\"}"}}]}}]}'),
        [("f", {"x": "😀"})],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_understood_however_they_are_numbered(name: str) -> None:
    pieces, expected = CALLS[name]
    deltas = read(pieces + CALLED)
    calls = called(deltas)
    assert [(one.name, one.arguments) for one in calls] == expected
    assert not any(one.malformed for one in calls)
    assert len({one.call_id for one in calls}) == len(calls)
    assert finished(deltas).reason == "tool_calls"


def test_what_cannot_be_stored_is_mended_before_anybody_sees_it() -> None:
    function = {"name": "f\0", "arguments": "{}"}
    odd = {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a\0b\ud83d", "function": function}]}}]}
    (only,) = called(read(data(json.dumps(odd)) + CALLED))
    assert (only.call_id, only.name) == ("a\ufffdb\ufffd", "f\ufffd")


# Halves of characters -----------------------------------------------------------------------------------------------


def delta(member: str, text: str) -> bytes:
    """A delta as Python's own JSON writes it: half a surrogate pair stays one."""
    return data(json.dumps({"choices": [{"delta": {member: text}}]}))


@pytest.mark.parametrize("member", ["content", "reasoning_content", "reasoning"])
def test_halves_of_a_surrogate_pair_are_joined_across_deltas(member: str) -> None:
    pieces = [delta(member, "a\ud83d"), delta(member, "\ude00b\ud83d"), delta(member, ""), delta(member, "\ude01")]
    for deltas in (read(*pieces, SAYS + END), read(b"".join(pieces) + SAYS + END)):
        assert said(deltas) + thought(deltas) in {"a😀b😁x", "xa😀b😁"}


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([delta("content", "a\ud83d"), delta("content", "b")], "a\ufffdb"),
        ([delta("content", "a\ud83d")], "a\ufffd"),
        ([delta("content", "\ude00a")], "\ufffda"),
        ([delta("content", "a\ud83d"), SAYS], "a\ufffdx"),
        ([delta("content", "a\ud83d"), delta("content", "\ud83d"), delta("content", "\ude00")], "a\ufffd😀"),
        ([delta("content", "a\ud83d"), delta("reasoning", "r"), delta("content", "\ude00")], "a\ufffd\ufffd"),
    ],
)
def test_half_a_pair_without_the_other_is_marked(pieces: list[bytes], text: str) -> None:
    assert said(read(*pieces, END)) == said(read(b"".join(pieces) + END)) == text


# Failure told as success --------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    # name: an object instead of an answer, and the words that must be told
    "OpenAI": ({"error": {"message": "Overloaded", "type": "server_error"}}, "Overloaded (server_error)"),
    "error as a text": ({"error": "broken"}, "broken"),
    "vLLM, older": ({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, "too long"),
    "SGLang": ({"object": "error", "message": "aborted", "param": None, "code": 500}, "aborted"),
    "Baidu": ({"error_code": 336003, "error_msg": "the max input is 100", "id": "as-1"}, "the max input is 100"),
    "DashScope": ({"code": "DataInspectionFailed", "message": "inappropriate", "request_id": "r"}, "inappropriate"),
    "Zhipu": ({"code": 1301, "msg": "系统检测到", "success": False}, "系统检测到"),
    "MiniMax": ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "insufficient balance"),
    "MiniMax beside choices of null": (
        {"id": "1", "choices": None, "base_resp": {"status_code": 1027, "status_msg": "sensitive"}},
        "sensitive",
    ),
    "FastAPI": ({"detail": "Not enough memory"}, "Not enough memory"),
    "FastAPI's validation": ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
    "a gateway": ({"message": "API rate limit exceeded"}, "API rate limit exceeded"),
    "Anthropic": ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "Overloaded"),
    "OpenRouter": (
        {
            "id": "1",
            "object": "chat.completion.chunk",
            "error": {"code": 502, "message": "Provider disconnected"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        },
        "Provider disconnected",
    ),
    "an error of the choice": (
        {"choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "no provider"}}]},
        "no provider",
    ),
    "LiteLLM": ({"error": {"message": "litellm.APIError: x", "type": None, "code": "500"}}, "litellm.APIError: x"),
    "Spring": ({"timestamp": 1, "status": 500, "error": "Internal Server Error", "path": "/"}, "Internal Server Error"),
    "a problem document": ({"type": "about:blank", "title": "Bad Gateway", "status": 502}, "Bad Gateway"),
    "errors": ({"errors": [{"message": "first"}, {"message": "second"}]}, "first"),
    "success is false": ({"success": False, "message": "busy"}, "busy"),
    "errcode": ({"errcode": 40001, "errmsg": "invalid credential"}, "invalid credential"),
    "no words at all": ({"error_code": 7}, "7"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_told_as_success_is_a_failure(name: str) -> None:
    told, words = FAILURES[name]
    for tail in (DONE, b"", END, data("ping") + DONE):
        deltas, failure = problem(event(told) + tail)
        assert not deltas
        assert words in failure.detail
        assert failure.reason in {"refused", "limit"}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_behind_words_keeps_them(name: str) -> None:
    told, words = FAILURES[name]
    for pieces in ([SAYS, event(told) + DONE], [SAYS + event(told) + DONE]):
        deltas, failure = problem(*pieces)
        assert said(deltas) == "x"
        assert not any(isinstance(delta, StepFinished) for delta in deltas)
        assert words in failure.detail


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_one_json_object_is_a_failure(name: str) -> None:
    told, words = FAILURES[name]
    with pytest.raises(Failure) as caught:
        ChatCompletionParser().whole(json.dumps(told).encode())
    assert words in caught.value.detail


ENDS: dict[str, tuple[bytes, str, str]] = {
    # name: a stream that is no answer, how it has failed, and the words that must be told
    "[DONE] alone": (DONE, "cut", "empty"),
    "role only": (chunk({"role": "assistant", "content": ""}) + DONE, "cut", "empty"),
    "nothing at all": (b"", "cut", "without a finish reason"),
    "comments only": (b": keep-alive\n\n" * 3, "cut", "without a finish reason"),
    "an empty stop": (END, "refused", "empty (finish reason 'stop')"),
    "a blank stop": (chunk({"content": " \n"}) + END, "refused", "empty"),
    "usage and nothing else": (chunk(usage={"prompt_tokens": 1}) + DONE, "cut", "empty"),
    "thinking only": (chunk({"reasoning": "hm"}) + END, "refused", "empty"),
    "thinking until the limit": (chunk({"reasoning": "hm"}, finish="length") + DONE, "cut", "length"),
    "filtered before the first word": (chunk(finish="content_filter") + DONE, "refused", "content_filter"),
    "a text and no answer": (data("Internal Server Error"), "malformed", "Internal Server Error"),
    "a text and [DONE]": (data("upstream timed out") + DONE, "cut", "upstream timed out"),
    "no event stream": (b"upstream connect error\nreset\n", "malformed", "upstream connect error"),
    "a proxy's line behind words": (SAYS + b"upstream error: read ECONNRESET\n", "cut", "read ECONNRESET"),
    "an unknown object": (data('{"queue":7}'), "cut", '{"queue":7}'),
    "half a chunk": (SAYS + b'data: {"choi', "cut", "middle of an event"),
    "a broken chunk": (data('{"choices":[{"delta"'), "malformed", "not a chunk"),
    "choices that are none": (data('{"choices":{}}'), "malformed", "not a chunk"),
    **{
        f"finish reason {reason}": (SAYS + chunk(finish=reason) + DONE, "refused", reason.lower())
        for reason in ("error", "abort", "network_error", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL")
    },
    "a reason that nobody knows": (SAYS + chunk(finish="tired") + DONE, "refused", "tired"),
    "an empty stop of a gateway": (
        choice(delta={}, finish_reason="stop", native_finish_reason="network_error") + DONE,
        "refused",
        "network_error",
    ),
    "a stop of a gateway behind words": (
        SAYS + choice(delta={}, finish_reason="stop", native_finish_reason="error") + DONE,
        "refused",
        "error",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_answer_without_words_or_a_good_reason_is_not_complete(name: str) -> None:
    pieces, reason, words = ENDS[name]
    deltas, failure = problem(pieces)
    assert not any(isinstance(delta, StepFinished) for delta in deltas)
    assert said(deltas).strip() == ("x" if pieces.startswith(SAYS) else "")
    assert failure.reason == reason
    assert words in failure.detail


def test_a_step_behind_words_may_end_without_any() -> None:
    answer = ChatCompletionParser(spoken=True)
    assert finished(answer.read(END) + answer.end()).reason == "stop"


def test_an_error_with_the_status_of_a_limit_is_one() -> None:
    _, failure = problem(event({"error": {"code": 429, "message": "slow down"}}))
    assert (failure.reason, failure.status) == ("limit", 429)


# The same, asked of an endpoint --------------------------------------------------------------------------------------

AGENT = AgentSpec(name="a", model="openai:m")
BODIES = [
    *(
        pytest.param(event(told) + DONE, "text/event-stream", words, id=name)
        for name, (told, words) in FAILURES.items()
    ),
    *(
        pytest.param(json.dumps(told).encode(), "application/json", words, id=f"{name} as JSON")
        for name, (told, words) in FAILURES.items()
    ),
    pytest.param(b'{"error":{"message":"no such model"}}', "text/plain", "no such model", id="JSON called a text"),
    pytest.param(b'\n{"detail":"x"}', "text/event-stream", "x", id="JSON called a stream"),
    pytest.param(b"Bad Gateway", "text/plain", "Bad Gateway", id="a text"),
]


async def _with(act: Act, work: Callable[[ModelRegistry], Awaitable[Any]]) -> Any:
    async with Upstream.serving(act) as upstream:
        catalog = ModelRegistry(base_url=upstream.url, api_key="sk-secret-of-this-test")
        try:
            return await work(catalog)
        finally:
            await catalog.close()


def agent() -> Agent:
    return Agent(app=1, id=1, uid=new_uid(), spec=AGENT, created=datetime.now(UTC), modified=datetime.now(UTC))


@pytest.mark.parametrize(("body", "content_type", "words"), BODIES)
def test_a_failure_with_status_200_is_told_and_nothing_is_made_of_it(
    body: bytes, content_type: str, words: str
) -> None:
    async def work(catalog: ModelRegistry) -> tuple[str, list[str], Failure | None]:
        model, name = catalog.chat_model("openai:m")
        deltas, failure = await listen_to_the_end(model.stream(asked(model=name)))
        assert not deltas
        return (
            await generate_title(catalog, NullObserver(), agent(), "hi", None),
            await generate_suggestions(catalog, NullObserver(), agent(), []),
            failure,
        )

    named, suggested, failure = run(_with(answer(200, body, content_type), work))
    assert (named, suggested) == ("", [])
    assert failure is not None
    assert words in failure.detail


def test_neither_titles_nor_suggestions_hold_thinking() -> None:
    async def work(catalog: ModelRegistry) -> tuple[str, list[str]]:
        return await generate_title(catalog, NullObserver(), agent(), "hi", None), await generate_suggestions(
            catalog, NullObserver(), agent(), []
        )

    spoken = stream(speech("<think>\nThey want", " fruit.</think>\n\n", "Fruit"))
    assert run(_with(spoken, work)) == ("Fruit", ["Fruit"])


@pytest.mark.parametrize("name", FAILURES)
def test_neither_pictures_nor_speech_are_made_of_failures(name: str) -> None:
    told, words = FAILURES[name]
    told = {key: value for key, value in told.items() if key != "choices"}
    if not told:
        return

    async def work(catalog: ModelRegistry) -> list[str]:
        media = catalog.image_model("openai:m")
        assert media is not None
        assert isinstance(media[0], OpenAIMedia)
        details: list[str] = []
        for make in (media[0].generate("m", "a cat"), media[0].synthesize("m", "hello", "v")):
            with pytest.raises(Failure) as caught:
                await make
            details.append(caught.value.detail)
        return details

    assert all(words in detail for detail in run(_with(answer(200, json.dumps(told).encode()), work)))
