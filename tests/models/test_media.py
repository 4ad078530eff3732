"""Pictures and speech from an endpoint, over real sockets: what is asked, what is taken, what is a failure."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from support.model_endpoint import Act, Upstream, answer, cut, silence
from support.model_runner import run

from palaver.core.ports.models import GeneratedImage
from palaver.core.problems import Upstream as Failure
from palaver.models import media
from palaver.models.media import OpenAIMedia
from palaver.models.registry import ModelRegistry

KEY = "sk-secret-of-this-test"
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
MP3 = b"ID3\x04\x00\xff\xfb\x90\x00"
Result = GeneratedImage | bytes


def painted(content: bytes) -> Act:
    return answer(200, msgspec.json.encode({"created": 1, "data": [{"b64_json": base64.b64encode(content).decode()}]}))


async def paint(artist: OpenAIMedia) -> Result:
    return await artist.generate("img-1", "a cat 用户")


async def speak(artist: OpenAIMedia) -> Result:
    return await artist.synthesize("tts-1", "Hello, 你好", "English_radiant_girl")


def ask(work: Callable[[OpenAIMedia], Awaitable[Result]], *acts: Act, key: str | None = KEY) -> tuple[Result, Upstream]:
    """What comes of one call, and the endpoint."""

    async def asking() -> tuple[Result, Upstream]:
        async with Upstream.serving(*acts) as upstream, aiohttp.ClientSession() as session:
            artist = OpenAIMedia(lambda: session, base_url=upstream.url, api_key=key)
            return await work(artist), upstream

    return run(asking())


def failure(work: Callable[[OpenAIMedia], Awaitable[Result]], *acts: Act) -> Failure:
    with pytest.raises(Failure) as problem:
        ask(work, *acts)
    assert KEY not in problem.value.detail
    return problem.value


# What goes well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"who knows", "image/png"),
    ],
)
def test_a_picture_comes_with_what_it_is(content: bytes, media_type: str) -> None:
    picture, upstream = ask(paint, painted(content))
    assert picture == GeneratedImage(content=content, media_type=media_type)
    assert upstream.bodies == [
        {"model": "img-1", "prompt": "a cat 用户", "n": 1, "response_format": "b64_json"},
    ]
    assert upstream.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert upstream.headers[0]["Content-Type"] == "application/json"


def test_models_that_refuse_a_response_format_are_not_told_one() -> None:
    async def work(artist: OpenAIMedia) -> Result:
        return await artist.generate("gpt-image-1", "a cat")

    _, upstream = ask(work, painted(PNG))
    assert upstream.bodies == [{"model": "gpt-image-1", "prompt": "a cat", "n": 1}]


def test_a_text_is_spoken_as_mp3() -> None:
    said, upstream = ask(speak, answer(200, MP3, "audio/mpeg"))
    assert said == MP3
    wanted = {"model": "tts-1", "input": "Hello, 你好", "voice": "English_radiant_girl", "response_format": "mp3"}
    assert upstream.bodies == [wanted]


def test_without_a_key_none_is_sent() -> None:
    _, upstream = ask(speak, answer(200, MP3, "audio/mpeg"), key=None)
    assert "Authorization" not in upstream.headers[0]


def test_a_large_file_arrives_whole() -> None:
    large = MP3 + bytes(3 * 1024 * 1024)
    assert ask(speak, answer(200, large, "audio/mpeg"))[0] == large


# What does not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"x":' + b"[" * 100_000,
        b"{}",
        b'{"data":null}',
        b'{"data":[]}',
        b'{"data":[null]}',
        b'{"data":[{"url":"http://x/y.png"}]}',
        b'{"data":[{"b64_json":""}]}',
        b'{"data":[{"b64_json":"?"}]}',
        b'{"data":[{"b64_json":"YQ"}]}',
        b'{"data":[{"b64_json":"\xc3\xa9"}]}',
        b'{"data":[{"b64_json":7}]}',
    ],
)
def test_an_answer_without_a_picture_is_malformed(body: bytes) -> None:
    assert failure(paint, answer(200, body)).reason == "malformed"


@pytest.mark.parametrize("body", [b"", b"no such voice", b"<p>no such voice</p>", b'{"x":"no such voice"}'])
def test_an_answer_without_a_sound_is_malformed(body: bytes) -> None:
    problem = failure(speak, answer(200, body))
    assert problem.reason == "malformed"
    assert ("no such voice" in problem.detail) is bool(body)


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "rejected"), (401, "rejected"), (429, "limit"), (500, "refused"), (302, "rejected")]
)
@pytest.mark.parametrize("work", [paint, speak])
def test_a_refusal_is_told_without_the_key(
    work: Callable[[OpenAIMedia], Awaitable[Result]], status: int, reason: str
) -> None:
    body = msgspec.json.encode({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    problem = failure(work, answer(status, body, Retry_After="7", Location="http://127.0.0.1:1/"))
    assert (problem.reason, problem.status, problem.retry_after) == (reason, status, 7)


@pytest.mark.parametrize("work", [paint, speak])
def test_a_connection_that_breaks_is_a_failure(work: Callable[[OpenAIMedia], Awaitable[Result]]) -> None:
    assert failure(work, cut()).reason == "connect"
    assert failure(work, cut(b"ID3")).reason == "connect"


def test_nobody_there_is_a_failure() -> None:
    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            await speak(OpenAIMedia(lambda: session, base_url="http://127.0.0.1:1/v1/", api_key=KEY))

    with pytest.raises(Failure) as problem:
        run(work())
    assert problem.value.reason == "connect"


@pytest.mark.parametrize("pieces", [(), (b"ID3",)])
def test_an_endpoint_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]) -> None:
    monkeypatch.setattr(media, "PATIENCE_S", 0.05)
    assert failure(speak, silence(*pieces)).reason == "timeout"


def test_more_than_is_read_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "LARGEST", 1000)
    assert failure(speak, answer(200, bytes(1001), "audio/mpeg")).reason == "malformed"
    assert ask(speak, answer(200, MP3, "audio/mpeg"))[0] == MP3


async def test_who_gives_up_closes_the_connection() -> None:
    async with Upstream.serving(silence()) as upstream, aiohttp.ClientSession() as session:
        task = asyncio.create_task(paint(OpenAIMedia(lambda: session, base_url=upstream.url)))
        await upstream.asked.wait()
        task.cancel()
        await upstream.abandoned.wait()


# Which model --------------------------------------------------------------------------------------------------------


def catalog(**named: Any) -> ModelRegistry:
    return ModelRegistry(base_url="http://127.0.0.1:1/v1", **named)


def test_an_agents_model_comes_before_the_servers() -> None:
    made = catalog(image="openai:img-1", speech="openai:tts-1")
    for find, default in ((made.image_model, "img-1"), (made.speech_model, "tts-1")):
        ours, theirs = find(None), find("openai:mine")
        assert ours is not None
        assert theirs is not None
        assert (ours[1], theirs[1]) == (default, "mine")


def test_where_nobody_is_named_nobody_paints_or_speaks() -> None:
    assert catalog().image_model(None) is None
    assert catalog(image=" ").image_model(None) is None
    assert catalog().speech_model("") is None


@pytest.mark.parametrize("spec", ["extract", "scripted", "nonsense", "openai:"])
def test_what_neither_paints_nor_speaks_is_a_wrong_configuration(spec: str) -> None:
    for find in (catalog().image_model, catalog().speech_model):
        with pytest.raises(Failure) as problem:
            find(spec)
        assert problem.value.reason == "configuration"
