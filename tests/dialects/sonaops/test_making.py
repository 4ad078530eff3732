"""Pictures, spoken messages and suggestions, with an endpoint that makes them."""

from __future__ import annotations

import base64
from collections.abc import Generator
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from dialects.sonaops.client import IMAGE, INSPIRATION, TTS, USER, Caller, data, frames, named, refused
from support.http_clients import Answer, Ask
from support.live_server import Served
from support.model_endpoint import Upstream, begin, speech
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.sonaops import requirements

SETTINGS = {"image_model": "openai:img-1", "speech_model": "openai:tts-1", "site_url": "https://agents.example/"}
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
JPEG = b"\xff\xd8\xff\xe0"
MP3 = b"ID3\x04\x00\xff\xfb\x90\x00"
SUGGESTED = "1. What next?\n- Why?\n\n" + "x" * 201 + "\nHow?\nToo many"


class Endpoint:
    """What the endpoint does next, and what it was asked."""

    def __init__(self) -> None:
        self.upstream = Upstream((self.act,))
        self.status = 200
        self.picture = PNG

    async def act(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"error": {"message": "a secret"}}, status=self.status)
        if request.path.endswith("/images/generations"):
            return web.json_response({"data": [{"b64_json": base64.b64encode(self.picture).decode()}]})
        if request.path.endswith("/audio/speech"):
            return web.Response(body=MP3, content_type="audio/mpeg")
        response = await begin(request)
        await response.write(speech(SUGGESTED))
        return response

    @property
    def asked(self) -> list[Any]:
        return self.upstream.bodies


@pytest.fixture(scope="module")
def served(served: Served) -> Generator[Served]:
    """The server, knowing the endpoint that every test finds as ``endpoint``."""
    peer = Endpoint()
    context = Upstream.serving(peer.act)
    peer.upstream = served.do(context.__aenter__())
    served.core.models._base_url = peer.upstream.url  # pyright: ignore[reportPrivateUsage]
    _endpoints.append(peer)
    yield served
    served.do(context.__aexit__(None, None, None))


_endpoints: list[Endpoint] = []


@pytest.fixture
def endpoint(served: Served) -> Endpoint:
    """The endpoint, as nobody has asked it yet."""
    peer = _endpoints[-1]
    peer.status, peer.picture = 200, PNG
    peer.asked.clear()
    return peer


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("yes")


def spoken(caller: Caller, agent: Agent) -> str:
    """The id of a new answer."""
    return frames(caller.say(agent, caller.create(agent)).body)[-1][1]["messageId"]


def sound(served: Served, url: str, **how: Any) -> Answer:
    return served.ask(Ask(method="GET", path=url.removeprefix("https://agents.example"), **how))


# Pictures -----------------------------------------------------------------------------------------------------------


@shows(requirements.image_data_uri, requirements.one_id_for_the_dialogue)
def test_a_picture_is_a_data_uri_beside_the_metadata_that_came(
    caller: Caller, later: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    for one in (caller, later):
        members = {"agentId": named(agent), "conversationId": one.create(agent), "text": " a cat "}
        body = data(one.post(IMAGE, {**members, "language": "zh", "metadata": {"b": [1], "a": "你"}}))
        assert list(body) == ["base64Image", "metadata"]
        assert body["base64Image"] == "data:image/png;base64," + base64.b64encode(PNG).decode()
        assert list(body["metadata"].items()) == [("b", [1]), ("a", "你")]
        endpoint.picture = JPEG
        body = data(one.post(IMAGE, members))
        assert (body["base64Image"][:22], body["metadata"]) == ("data:image/jpeg;base64", {})
        endpoint.picture = PNG
    assert [(request["model"], request["prompt"]) for request in endpoint.asked] == [("img-1", " a cat ")] * 4


@shows(requirements.image_once)
def test_a_picture_is_painted_once_for_one_idempotency_key(caller: Caller, agent: Agent, endpoint: Endpoint) -> None:
    members = {"agentId": named(agent), "conversationId": caller.create(agent), "text": "a cat"}
    endpoint.status = 500
    refused(caller.post(IMAGE, members, headers={"Idempotency-Key": "p"}), 10500, "Internal server error", http=500)
    endpoint.status = 200
    first, second = (caller.post(IMAGE, members, headers={"Idempotency-Key": "p"}) for _ in range(2))
    assert first.body == second.body
    assert (first.header("Idempotency-Replayed"), second.header("Idempotency-Replayed")) == (None, "true")
    assert first.header("X-Request-ID") != second.header("X-Request-ID")
    assert len(endpoint.asked) == 2


@shows(requirements.upstream_failure, requirements.e_internal)
def test_an_endpoint_that_fails_is_an_internal_failure(
    caller: Caller, later: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    for one, status in ((caller, 500), (later, 200)):
        members = {"agentId": named(agent), "conversationId": one.create(agent), "text": "a cat"}
        voice = {"messageId": spoken(one, agent), "processedText": "x"}
        endpoint.status = 400
        for path, body in ((IMAGE, members), (TTS, voice)):
            answer = one.post(path, body)
            refused(answer, 10500, "Internal server error", http=status)
            assert b"secret" not in answer.body
        endpoint.status = 429
        for path, body in ((IMAGE, members), (TTS, voice)):
            refused(one.post(path, body), 10429, "Too many requests, please try again later")
        endpoint.status = 200


@shows(requirements.image_unconfigured, requirements.tts_unconfigured)
def test_a_model_that_neither_paints_nor_speaks_is_none(served: Served, caller: Caller, endpoint: Endpoint) -> None:
    agent = served.agent("x", image_model="extract", speech_model="nonsense")
    members = {"agentId": named(agent), "conversationId": caller.create(agent), "text": "a cat"}
    refused(caller.post(IMAGE, members), 10400, "Agent missing image generation config")
    voice = {"messageId": spoken(caller, agent), "processedText": "x"}
    refused(caller.post(TTS, voice), 10400, "Agent missing voice config")
    assert endpoint.asked == []


# Spoken messages ----------------------------------------------------------------------------------------------------


@shows(requirements.tts_url, requirements.tts_once, requirements.tts_voice, requirements.tts_file, requirements.r10)
def test_a_message_is_spoken_once_whatever_later_calls_say(
    served: Served, caller: Caller, later: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    for one in (caller, later):
        endpoint.asked.clear()
        message = spoken(one, agent)
        url = f"https://agents.example/saas/voice-broadcast/{message}.mp3"
        for name, text in ((message, "Hello, welcome."), (str(UUID(message)), "other"), (f" {message.upper()} ", "x")):
            body = data(one.post(TTS, {"messageId": name, "processedText": text, "voiceTimbreId": "deep"}))
            assert body == {"audioUrl": url}
        (asked,) = endpoint.asked
        assert (asked["model"], asked["input"], asked["voice"]) == ("tts-1", "Hello, welcome.", "deep")
        answer = sound(served, url)
        assert (answer.status, answer.header("Content-Type"), answer.body) == (200, "audio/mpeg", MP3)
        assert answer.header("Content-Length") == str(len(MP3))


@pytest.mark.parametrize("more", [{}, {"voiceTimbreId": None}, {"voiceTimbreId": " "}])
@shows(requirements.tts_voice)
def test_without_a_voice_it_is_the_documented_one(
    caller: Caller, agent: Agent, endpoint: Endpoint, more: dict[str, Any]
) -> None:
    assert data(caller.post(TTS, {"messageId": spoken(caller, agent), "processedText": "x", **more}))
    assert endpoint.asked[0]["voice"] == "English_radiant_girl"


@shows(requirements.tts_file, requirements.tts_message)
def test_an_address_that_nobody_was_given_is_not_found(
    served: Served, caller: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    message = spoken(caller, agent)
    for name in (f"{message}.mp3", message, f"{message}.wav", "x.mp3", ".mp3", "%2e%2e"):
        refused(sound(served, f"/saas/voice-broadcast/{name}"), 10404, "Not found", http=404)
    stranger = Caller(served, caller.key, user="somebody else")
    assert data(caller.post(TTS, {"messageId": message, "processedText": "x"}))
    answer = stranger.post(TTS, {"messageId": message, "processedText": "x"})
    refused(answer, 10404, "Message not found", http=404)


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-1", 206, slice(0, 2)),
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=3-99", 206, slice(3, None)),
        ("bytes=-2", 206, slice(-2, None)),
        ("bytes=-99", 206, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
        ("bytes=-0", 200, slice(0, None)),
        ("bytes=99-", 200, slice(0, None)),
        ("bytes=3-2", 200, slice(0, None)),
        ("bytes=0-1,3-4", 200, slice(0, None)),
        ("lines=0-1", 200, slice(0, None)),
    ],
)
@shows(requirements.tts_ranges)
def test_a_stretch_of_a_spoken_file(
    served: Served, caller: Caller, agent: Agent, endpoint: Endpoint, wanted: str, status: int, part: slice
) -> None:
    url = data(caller.post(TTS, {"messageId": spoken(caller, agent), "processedText": "x"}))["audioUrl"]
    answer = sound(served, url, headers=[("Range", wanted)])
    assert (answer.status, answer.body) == (status, MP3[part])
    assert answer.header("Accept-Ranges") == "bytes"
    start, end, _ = part.indices(len(MP3))
    content_range = f"bytes {start}-{end - 1}/{len(MP3)}" if status == 206 else None
    assert answer.header("Content-Range") == content_range


@shows(requirements.tts_any_message)
def test_any_message_of_the_user_is_spoken_whichever_agents_the_key_may_use(
    served: Served, caller: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    narrow = Caller(served, served.key("sonaops", agents=["none of these"]))
    assert data(narrow.post(TTS, {"messageId": spoken(caller, agent), "processedText": "x"}))


@shows(requirements.tts_once)
def test_two_calls_at_the_same_time_give_one_address(
    served: Served, caller: Caller, agent: Agent, endpoint: Endpoint
) -> None:
    members = {"messageId": spoken(caller, agent), "processedText": "x"}
    exchanges = [served.exchange(caller.request(TTS, members)) for _ in range(5)]
    urls = {data(exchange.answer())["audioUrl"] for exchange in exchanges}
    assert len(urls) == 1
    assert sound(served, urls.pop()).body == MP3


@shows(requirements.tts_counts)
def test_repeated_calls_do_not_count_towards_total(served: Served, agent: Agent, endpoint: Endpoint) -> None:
    caller = Caller(served, served.key("sonaops", total=4))
    members = {"messageId": spoken(caller, agent), "processedText": "x"}
    for _ in range(5):
        assert data(caller.post(TTS, members))
    caller.create(agent)
    refused(caller.post(TTS, members), 10403, "API key usage limit reached")


# Suggestions --------------------------------------------------------------------------------------------------------


@shows(requirements.inspiration_replies)
def test_an_agents_own_model_suggests_three_replies(served: Served, caller: Caller, endpoint: Endpoint) -> None:
    agent = served.agent(model="openai:m", instructions="x")
    conversation = caller.create(agent)
    members = {"agentId": named(agent), "conversationId": conversation}
    assert data(caller.post(INSPIRATION, members)) == {"replies": ["What next?", "Why?", "How?"]}
    assert served.history(caller.key, USER, conversation) == []


@shows(requirements.inspiration_failure)
def test_a_model_that_fails_suggests_nothing(served: Served, caller: Caller, endpoint: Endpoint) -> None:
    agent = served.agent(model="openai:m", instructions="x", suggested_questions=("Why?",))
    endpoint.status = 400
    members = {"agentId": named(agent), "conversationId": caller.create(agent)}
    assert data(caller.post(INSPIRATION, members)) == {"replies": []}
