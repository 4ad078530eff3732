"""Pictures and speech from an endpoint that speaks OpenAI's ``/images/generations`` and ``/audio/speech``."""

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
from palaver.models.errors import error_message, excerpt, failure, redact_secrets, upstream_problem
from palaver.models.openai import UNCOMPRESSED, packed, proxy_for, read_whole

PATIENCE_S = 150.0
"""Seconds for a picture or a spoken text; pictures of 30 to 90 seconds are normal."""
LARGEST = 64 * 1024 * 1024
"""Bytes of an answer that is read."""
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"), (b"GIF8", "image/gif"))


class _Image(msgspec.Struct):
    b64_json: str | None = None


class _Images(msgspec.Struct):
    data: list[_Image] = []


class OpenAIMedia:
    """Paints and speaks. ``base_url`` ends before ``/images/generations``."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], *, base_url: str, api_key: str | None = None
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._key = api_key
        self._headers = {**UNCOMPRESSED, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._proxy = proxy_for(self._base)

    async def generate(self, model: str, text: str) -> GeneratedImage:
        """One picture of ``text``. Raises ``Upstream``."""
        asked: dict[str, Any] = {"model": model, "prompt": text, "n": 1}
        if not model.startswith("gpt-image"):  # these refuse the member and answer in base64 anyway
            asked["response_format"] = "b64_json"
        said = await self._post("images/generations", asked)
        self._succeeded(said)
        try:
            images = msgspec.json.decode(said, type=_Images).data
            content = base64.b64decode(images[0].b64_json or "", validate=True) if images else b""
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Upstream(reason="malformed", detail=f"the image answer cannot be read: {error}") from error
        if not content:
            shown = error_message(said[:4096], self._key)
            raise Upstream(reason="malformed", detail=f"the answer has no image in base64: {shown}")
        kind = next((media_type for magic, media_type in _MAGIC if content.startswith(magic)), "image/png")
        return GeneratedImage(content=content, media_type=kind)

    async def synthesize(self, model: str, text: str, voice: str) -> bytes:
        """``text`` spoken, as an MP3 file. Raises ``Upstream``."""
        said = await self._post(
            "audio/speech", {"model": model, "input": text, "voice": voice, "response_format": "mp3"}
        )
        self._succeeded(said)
        if not said or said.isascii():  # words, a page or an object: sound is never all ASCII
            detail = f"the speech answer is no sound: {error_message(said[:4096], self._key) or 'it is empty'}"
            raise Upstream(reason="malformed", detail=detail)
        return said

    def _succeeded(self, said: bytes) -> None:
        """Some endpoints say with status 200 what went wrong."""
        if said[:1].isspace() or said[:1] == b"{":
            try:
                why = failure(msgspec.json.decode(said))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return
            if why:
                raise Upstream(reason="refused", detail=excerpt(redact_secrets(why, self._key)))

    async def _post(self, path: str, asked: dict[str, Any]) -> bytes:
        url = f"{self._base}/{path}"
        headers = {"Content-Type": "application/json", **self._headers}
        body = msgspec.json.encode(asked)
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                self._session().post(
                    url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                if packing := packed(response):
                    raise Upstream(reason="malformed", detail=packing)
                said = await read_whole(response, LARGEST)
                if response.status != 200:
                    raise upstream_problem(
                        response.status, response.headers, said, phrase=response.reason or "", key=self._key
                    )
                if len(said) >= LARGEST:
                    raise Upstream(reason="malformed", detail=f"the answer has more than {LARGEST} bytes")
                return said
        except TimeoutError as error:
            raise Upstream(reason="timeout", detail=f"no answer within {PATIENCE_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            host = urlsplit(url).hostname
            detail = redact_secrets(f"{host}: {error or type(error).__name__}", self._key)
            raise Upstream(reason="connect", detail=detail) from error
