"""The model behind an endpoint, over real sockets: what arrives, what is tried again, what is closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import aiohttp
import pytest
from aiohttp import web
from support.model_endpoint import (
    DONE,
    Act,
    Upstream,
    answer,
    chunk,
    cut,
    deaf,
    endless,
    event,
    raw,
    silence,
    speech,
    stream,
)
from support.model_runner import asked, called, finished, joined, listen, listen_to_the_end, run, said

from palaver.core.ports.models import ContentDelta, ModelDelta, StepFinished, UsageDelta
from palaver.core.problems import Upstream as Failure
from palaver.core.types import Usage
from palaver.models.openai import OpenAIModel, Timeouts

KEY = "sk-secret-of-this-test"
REFUSAL = b'{"error": {"message": "You shall not pass", "code": "no_pass"}}'


def ask(
    *acts: Act, timeouts: Timeouts | None = None, retries: int = 2
) -> tuple[list[ModelDelta], Failure | None, Upstream]:
    """One question to an endpoint with ``acts``: the deltas, the problem, and the endpoint."""

    async def work() -> tuple[list[ModelDelta], Failure | None, Upstream]:
        async with Upstream.serving(*acts) as upstream, upstream.client(timeouts=timeouts, retries=retries) as model:
            return *await listen_to_the_end(model.stream(asked())), upstream

    return run(work())


def failure(*acts: Act, timeouts: Timeouts | None = None, retries: int = 0) -> Failure:
    _, problem, _ = ask(*acts, timeouts=timeouts, retries=retries)
    assert problem is not None
    assert KEY not in problem.detail
    return problem


# Answers ------------------------------------------------------------------------------------------------------------


async def test_an_answer_streams_and_the_question_arrives() -> None:
    async with Upstream.serving(stream(speech("Hel", "lo"))) as upstream, upstream.client() as model:
        request = asked("Hi", instructions="Be brief.")
        assert said(await listen(model.stream(request))) == "Hello"
        (body,), (headers,) = upstream.bodies, upstream.headers
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert headers["Content-Type"] == "application/json"
        assert "X-Request-ID" not in headers


async def test_without_a_key_there_is_no_authorization() -> None:
    async with Upstream.serving(stream(speech("x"))) as upstream, upstream.client(api_key=None) as model:
        await listen(model.stream(asked()))
        assert "Authorization" not in upstream.headers[0]


@pytest.mark.parametrize(("trace", "sent"), [("abc-123", "abc-123"), ("a\r\nX-Evil: 1", None), ("größer", None)])
async def test_the_trace_goes_along_when_a_header_can_hold_it(trace: str, sent: str | None) -> None:
    async with Upstream.serving(stream(speech("x"))) as upstream, upstream.client() as model:
        request = asked()
        await listen(model.stream(type(request)(model="m", instructions="", history=request.history, trace=trace)))
        assert upstream.headers[0].get("X-Request-ID") == sent


async def test_a_stream_cut_at_every_byte_is_the_same_answer() -> None:
    whole = chunk({"content": "Wie geht’s? 😀"}) + speech("!") + DONE

    acts = [stream(whole[:at], whole[at:]) for at in range(1, len(whole))]
    async with Upstream.serving(*acts) as upstream, upstream.client() as model:
        for _ in acts:
            assert joined(await listen(model.stream(asked()))) == [
                ContentDelta(text="Wie geht’s? 😀!"),
                StepFinished(),
            ]


async def test_the_first_words_arrive_before_the_last_are_written() -> None:
    told = asyncio.Event()

    async def act(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "first"}))
        await told.wait()
        await response.write(speech("last"))
        return response

    async with Upstream.serving(act) as upstream, upstream.client() as model:
        heard: list[ModelDelta] = []
        async for delta in model.stream(asked()):
            heard.append(delta)
            told.set()
        assert heard == [ContentDelta(text="first"), ContentDelta(text="last"), StepFinished()]


def test_an_answer_in_one_json_object_is_taken() -> None:
    whole = (
        b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    )
    deltas, problem, _ = ask(answer(200, whole))
    assert problem is None
    usage = Usage(prompt=1, completion=2)
    assert deltas == [ContentDelta(text="x"), UsageDelta(usage=usage), StepFinished(usage=usage)]


def test_a_tool_call_arrives_whole() -> None:
    piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}
    deltas, _, _ = ask(stream(chunk({"tool_calls": [piece]}), chunk(finish="tool_calls"), DONE))
    assert called(deltas)[0].arguments == {"x": 1}


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "text/plain", "application/octet-stream"])
def test_a_stream_is_read_whatever_it_calls_itself(content_type: str) -> None:
    deltas, _, _ = ask(stream(speech("x"), content_type=content_type))
    assert said(deltas) == "x"


async def test_a_large_question_is_sent_whole() -> None:
    async with Upstream.serving(answer(503, b""), stream(speech("x"))) as upstream, upstream.client() as model:
        await listen(model.stream(asked("a" * 3_000_000)))
        assert [len(body["messages"][0]["content"]) for body in upstream.bodies] == [3_000_000] * 2


async def test_answers_read_to_their_end_share_one_connection() -> None:
    async with Upstream.serving(stream(speech("x"))) as upstream, upstream.client() as model:
        for _ in range(3):
            await listen(model.stream(asked()))
        assert len(upstream.connections) == 1


def test_a_connection_left_open_after_the_last_word_is_not_waited_for() -> None:
    deltas, problem, upstream = ask(silence(speech("x")))
    assert (said(deltas), problem) == ("x", None)
    assert upstream.abandoned.is_set()


def test_a_connection_cut_after_the_finish_reason_is_an_end() -> None:
    deltas, problem, _ = ask(cut(chunk({"content": "x"}), chunk(finish="length")))
    assert problem is None
    assert finished(deltas).reason == "length"


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "rejected"),
        (401, "rejected"),
        (403, "rejected"),
        (404, "rejected"),
        (422, "rejected"),
        (429, "limit"),
        (500, "refused"),
        (503, "refused"),
        (529, "refused"),
    ],
)
def test_a_status_is_a_reason_and_the_body_its_detail(status: int, reason: str) -> None:
    problem = failure(answer(status, REFUSAL))
    assert (problem.reason, problem.status) == (reason, status)
    assert problem.detail == f"HTTP {status}: You shall not pass (no_pass)"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"error": "plain"}', "plain"),
        (b'{"message": "m"}', "m"),
        (b'{"detail": [{"msg": "field required"}]}', "field required"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><head><title>502 Bad Gateway</title><style>b{}</style></head><body>\n<h1>Oh &amp; no", "Oh & no"),
        (b'{"error": {"message": "Incorrect API key provided: sk-secret-of-this-test."}}', "provided: …."),
        (b"wrong " * 49 + b"sk-secret-of-this-test", "wrong …"),
        (b'{"error": {"message": "wrong key sk-abcd*******wxyz"}}', "wrong key sk-…"),
        (b"x" * 5000, "x" * 299 + "…"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "Unauthorized"),
    ],
)
def test_an_error_body_of_any_kind_is_told_in_one_line(body: bytes, shown: str) -> None:
    detail = failure(answer(401, body)).detail
    assert detail.endswith(shown)
    assert "\n" not in detail
    assert "{}" not in detail


def test_a_redirect_is_not_followed_but_told() -> None:
    problem = failure(answer(308, b"", Location="https://b.example/v1"))
    assert problem.reason == "rejected"
    assert "https://b.example/v1" in problem.detail


def test_a_web_page_is_no_answer() -> None:
    problem = failure(answer(200, b"<html>Welcome!", "text/html"))
    assert (problem.reason, "OPENAI_BASE_URL" in problem.detail) == ("malformed", True)


def test_a_limit_says_how_long_to_wait() -> None:
    assert failure(answer(429, REFUSAL, Retry_After="17")).retry_after == 17
    assert failure(answer(429, REFUSAL, Retry_After="17", Retry_After_Ms="1500")).retry_after == 1.5
    assert failure(answer(429, REFUSAL, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")).retry_after == 0
    assert failure(answer(429, REFUSAL, Retry_After="soon")).retry_after is None


def test_an_error_in_the_stream_is_a_refusal_after_the_words_before_it() -> None:
    deltas, problem, upstream = ask(stream(chunk({"content": "x"}) + event({"error": {"message": "out of memory"}})))
    assert said(deltas) == "x"
    assert problem == Failure(reason="refused", detail="out of memory")
    assert len(upstream.bodies) == 1


def test_a_chunk_that_is_no_json_is_malformed() -> None:
    assert failure(stream(b"data: {oops\n\n")).reason == "malformed"


def test_an_endless_line_is_malformed() -> None:
    assert failure(stream(*[b"x" * 2**20] * 17)).reason == "malformed"


@pytest.mark.parametrize(
    "said",
    [
        [b"SSH-2.0-OpenSSH_9.9\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\nzz\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", speech("x")[:40]],
        [],
    ],
)
async def test_whatever_a_server_sends_instead_of_http_is_a_problem(said: list[bytes]) -> None:
    async with raw(said) as url, aiohttp.ClientSession() as session:
        _, problem = await listen_to_the_end(OpenAIModel(lambda: session, base_url=url, retries=0).stream(asked()))
        assert problem is not None
        assert problem.reason in {"malformed", "cut", "connect"}


# Cuts and silence ---------------------------------------------------------------------------------------------------


def test_a_connection_cut_in_mid_answer_is_a_cut_and_not_tried_again() -> None:
    deltas, problem, upstream = ask(cut(chunk({"content": "x"})))
    assert said(deltas) == "x"
    assert problem is not None
    assert problem.reason == "cut"
    assert len(upstream.bodies) == 1


def test_an_end_without_a_finish_reason_is_a_cut() -> None:
    assert failure(stream(chunk({"content": "x"}))).reason == "cut"


def test_silence_instead_of_an_answer_runs_out_and_is_not_tried_again() -> None:
    deltas, problem, upstream = ask(silence(), timeouts=Timeouts(first_byte=0.05))
    assert problem == Failure(reason="timeout", detail="no answer within 0.05 s")
    assert (deltas, len(upstream.bodies)) == ([], 1)
    assert upstream.abandoned.is_set()


def test_headers_alone_are_no_first_byte() -> None:
    async def headers(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    assert failure(headers, timeouts=Timeouts(first_byte=0.05)).detail == "no answer within 0.05 s"


def test_an_answer_that_falls_silent_runs_out() -> None:
    deltas, problem, upstream = ask(silence(chunk({"content": "x"})), timeouts=Timeouts(idle=0.05))
    assert said(deltas) == "x"
    assert problem == Failure(reason="timeout", detail="no data for 0.05 s")
    assert upstream.abandoned.is_set()


async def test_a_slow_reader_is_not_a_silent_endpoint() -> None:
    acts = stream(chunk({"content": "x"}), speech("y"))
    async with Upstream.serving(acts) as upstream, upstream.client(timeouts=Timeouts(idle=0.02)) as model:
        heard: list[ModelDelta] = []
        async for delta in model.stream(asked()):
            heard.append(delta)
            # Longer than the endpoint may be silent: this wait is ours.
            await asyncio.sleep(0.1)
        assert said(heard) == "xy"


def test_a_silent_error_body_does_not_hide_the_status() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403)
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    assert failure(refuse, timeouts=Timeouts(first_byte=0.05)).status == 403


# Trying again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_refusal_is_tried_again(status: int) -> None:
    deltas, problem, upstream = ask(answer(status, REFUSAL), answer(status, REFUSAL), stream(speech("x")))
    assert (said(deltas), problem, len(upstream.bodies)) == ("x", None, 3)
    assert upstream.bodies[0] == upstream.bodies[2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_a_lasting_refusal_is_not_tried_again(status: int) -> None:
    _, problem, upstream = ask(answer(status, REFUSAL), stream(speech("x")))
    assert problem is not None
    assert len(upstream.bodies) == 1


def test_a_third_refusal_is_the_last() -> None:
    _, problem, upstream = ask(answer(503, REFUSAL))
    assert problem is not None
    assert (problem.status, len(upstream.bodies)) == (503, 3)


def test_a_connection_that_breaks_before_the_headers_is_tried_again() -> None:
    deltas, problem, upstream = ask(cut(), stream(speech("x")))
    assert (said(deltas), problem, len(upstream.bodies)) == ("x", None, 2)


async def test_nobody_listening_is_a_problem_of_the_connection() -> None:
    async with Upstream.serving(stream()) as upstream:
        url = upstream.url
    async with aiohttp.ClientSession() as session:
        model = OpenAIModel(lambda: session, base_url=url, backoff=0.001)
        _, problem = await listen_to_the_end(model.stream(asked()))
        assert problem is not None
        assert (problem.reason, url in problem.detail) == ("connect", True)


def test_a_short_retry_after_is_waited_for() -> None:
    began = time.monotonic()
    _, problem, _ = ask(answer(429, REFUSAL, Retry_After_Ms="150"), stream(speech("x")))
    assert problem is None
    assert time.monotonic() - began >= 0.15


def test_a_long_retry_after_is_handed_on_at_once() -> None:
    _, problem, upstream = ask(answer(429, REFUSAL, Retry_After="3600"), stream(speech("x")))
    assert problem is not None
    assert (problem.retry_after, len(upstream.bodies)) == (3600, 1)


def test_an_empty_purse_is_not_tried_again() -> None:
    _, problem, upstream = ask(answer(429, b'{"error":{"message":"Pay","code":"insufficient_quota"}}'))
    assert problem is not None
    assert len(upstream.bodies) == 1


# Hanging up ---------------------------------------------------------------------------------------------------------


def hanging_up(act: Act, hang_up: Callable[[OpenAIModel], Awaitable[None]]) -> float:
    """Seconds from hanging up until the endpoint sees the connection closed."""

    async def work() -> float:
        async with Upstream.serving(act) as upstream, upstream.client() as model:
            task = asyncio.ensure_future(hang_up(model))
            await upstream.asked.wait()
            await asyncio.wait({task}, timeout=0.05)
            if not task.done():
                task.cancel()
            began = time.monotonic()
            await upstream.abandoned.wait()
            return time.monotonic() - began

    return run(work())


async def after_the_first_word(model: OpenAIModel) -> None:
    async with aclosing(model.stream(asked())) as deltas:
        async for _ in deltas:
            return


async def never(model: OpenAIModel) -> None:
    await listen(model.stream(asked()))


def test_closing_the_generator_closes_the_connection() -> None:
    assert hanging_up(endless(chunk({"content": "x"})), after_the_first_word) < 1


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(silence(), id="before the headers"),
        pytest.param(silence(b": wait\n\n"), id="before the first word"),
        pytest.param(silence(chunk({"content": "x"})), id="in mid answer"),
        pytest.param(endless(chunk({"content": "x"})), id="while it speaks"),
    ],
)
def test_cancelling_the_task_closes_the_connection(act: Act) -> None:
    assert hanging_up(act, never) < 1


async def test_cancelling_during_the_pause_before_a_retry_asks_no_more() -> None:
    async with Upstream.serving(answer(429, REFUSAL, Retry_After="9")) as upstream, upstream.client() as model:
        task = asyncio.ensure_future(listen(model.stream(asked())))
        await upstream.asked.wait()
        await asyncio.wait({task}, timeout=0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()
        assert len(upstream.bodies) == 1


async def test_cancelling_while_connecting_closes_the_connection() -> None:
    async with deaf() as (url, connected, abandoned), aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(listen(OpenAIModel(lambda: session, base_url=url).stream(asked())))
        await connected.wait()
        task.cancel()
        await abandoned.wait()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_a_connection_that_cannot_be_made_runs_out_and_is_tried_again() -> None:
    async with deaf() as (url, _, abandoned), aiohttp.ClientSession() as session:
        model = OpenAIModel(lambda: session, base_url=url, timeouts=Timeouts(connect=0.05), backoff=0.001)
        _, problem = await listen_to_the_end(model.stream(asked()))
        assert problem == Failure(reason="timeout", detail=f"no connection to {url} within 0.05 s")
        await abandoned.wait()


# Proxies ------------------------------------------------------------------------------------------------------------


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream.serving(stream(speech("x"))) as proxy, aiohttp.ClientSession() as session:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1").replace("//", "//me:pw@"))
        monkeypatch.setenv("no_proxy", "b.example")
        model = OpenAIModel(lambda: session, base_url="http://a.example/v1", api_key=KEY)
        assert said(await listen(model.stream(asked()))) == "x"
        assert proxy.headers[0]["Host"] == "a.example"
        assert proxy.headers[0]["Proxy-Authorization"] == "Basic bWU6cHc="
        assert proxy.headers[0]["Authorization"] == f"Bearer {KEY}"
