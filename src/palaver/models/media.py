"""Images and speech from an endpoint with OpenAI's ``/images/generations`` and ``/audio/speech``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from palaver.core.ports.models import GeneratedImage
from palaver.core.problems import Upstream
from palaver.models.errors import error_message, excerpt, failure_message, redact_secrets, upstream_problem
from palaver.models.openai import UNCOMPRESSED, compression_error, proxy_for, read_at_most

PATIENCE_S = 150.0
"""Seconds to wait for an image or speech; images normally take 30 to 90 seconds."""
LARGEST = 64 * 1024 * 1024
"""Maximum response size in bytes."""
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"), (b"GIF8", "image/gif"))


class _Image(msgspec.Struct):
    b64_json: str | None = None


class _Images(msgspec.Struct):
    data: list[_Image] = []


class OpenAIMedia:
    """Generates images and speech. ``base_url`` ends before ``/images/generations``."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], *, base_url: str, api_key: str | None = None
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._key = api_key
        self._headers = {**UNCOMPRESSED, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._proxy = proxy_for(self._base)

    async def generate(self, model: str, text: str) -> GeneratedImage:
        """Generate one image from the prompt ``text``. Raises ``Upstream``."""
        body: dict[str, Any] = {"model": model, "prompt": text, "n": 1}
        if not model.startswith("gpt-image"):  # these reject the member and return base64 anyway
            body["response_format"] = "b64_json"
        response = await self._post("images/generations", body)
        self._raise_if_error(response)
        try:
            images = msgspec.json.decode(response, type=_Images).data
            content = base64.b64decode(images[0].b64_json or "", validate=True) if images else b""
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Upstream(reason="malformed", detail=f"the image response cannot be read: {error}") from error
        if not content:
            message = error_message(response[:4096], self._key)
            raise Upstream(reason="malformed", detail=f"the response has no image in base64: {message}")
        kind = next((media_type for magic, media_type in _MAGIC if content.startswith(magic)), "image/png")
        return GeneratedImage(content=content, media_type=kind)

    async def synthesize(self, model: str, text: str, voice: str) -> bytes:
        """Convert ``text`` to speech: an MP3 file. Raises ``Upstream``."""
        audio = await self._post(
            "audio/speech", {"model": model, "input": text, "voice": voice, "response_format": "mp3"}
        )
        self._raise_if_error(audio)
        if not audio or audio.isascii():  # text, a page or an object: audio is never all ASCII
            detail = f"the speech response is not audio: {error_message(audio[:4096], self._key) or 'it is empty'}"
            raise Upstream(reason="malformed", detail=detail)
        return audio

    def _raise_if_error(self, response: bytes) -> None:
        """Raise ``Upstream`` for an error with status 200, as some endpoints send."""
        if response[:1].isspace() or response[:1] == b"{":
            try:
                message = failure_message(msgspec.json.decode(response))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return
            if message:
                raise Upstream(reason="refused", detail=excerpt(redact_secrets(message, self._key)))

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        url = f"{self._base}/{path}"
        headers = {"Content-Type": "application/json", **self._headers}
        data = msgspec.json.encode(body)
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                self._session().post(
                    url, data=data, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                if encoding_problem := compression_error(response):
                    raise Upstream(reason="malformed", detail=encoding_problem)
                content = await read_at_most(response, LARGEST)
                if response.status != 200:
                    raise upstream_problem(
                        response.status, response.headers, content, phrase=response.reason or "", key=self._key
                    )
                if len(content) >= LARGEST:
                    raise Upstream(reason="malformed", detail=f"the answer has more than {LARGEST} bytes")
                return content
        except TimeoutError as error:
            raise Upstream(reason="timeout", detail=f"no answer within {PATIENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            host = urlsplit(url).hostname
            detail = redact_secrets(f"{host}: {error or type(error).__name__}", self._key)
            raise Upstream(reason="connect", detail=detail) from error
