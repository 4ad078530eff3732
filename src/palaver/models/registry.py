"""Resolves model specs to a server's models, and owns the HTTP session they share."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
import structlog

from palaver.core.observer import NullObserver, Observer
from palaver.core.ports.models import ChatModel
from palaver.core.problems import Upstream
from palaver.models.completion import LONGEST
from palaver.models.extract import ExtractModel
from palaver.models.fallback import FallbackModel
from palaver.models.media import OpenAIMedia
from palaver.models.openai import TIMEOUTS, OpenAIModel, Timeouts
from palaver.models.scripted import ScriptedModel
from palaver.models.thinking import Mode

OPENAI_BASE_URL = "https://api.openai.com/v1"
SPECS = "'extract', 'scripted' or 'openai:NAME'"

log = structlog.get_logger("palaver.models")


class ModelRegistry:
    """Implements ``Models`` for one server.

    A spec is ``extract``, ``scripted`` or ``openai:NAME``, optionally followed by ``?thinking=…`` (see
    ``thinking.py``). ``default`` is the spec for agents without one (setting ``PALAVER_MODEL``). ``base_url`` and
    ``api_key`` configure the endpoint of ``openai:``; with a key alone it is OpenAI's own. ``fallback`` is the spec of
    the model that answers when another fails, at an endpoint of its own if ``fallback_base_url`` is set. Close it in
    the event loop it was used in.
    """

    def __init__(
        self,
        *,
        default: str = "extract",
        fallback: str | None = None,
        image: str | None = None,
        speech: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        fallback_base_url: str | None = None,
        fallback_api_key: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        longest: int = LONGEST,
    ) -> None:
        self._default = default
        self._fallback = fallback
        self._image = image
        self._speech = speech
        self._api_key = (api_key or "").strip() or None
        self._base_url = _trimmed(base_url) or (OPENAI_BASE_URL if self._api_key else None)
        self._timeouts = timeouts
        self._longest = longest
        self._http: aiohttp.ClientSession | None = None
        self._openai: OpenAIModel | None = None
        self._fallback_url = _trimmed(fallback_base_url)
        self._fallback_key = (fallback_api_key or "").strip() or (None if self._fallback_url else self._api_key)
        self._fallback_endpoint: OpenAIModel | None = None
        self._media: OpenAIMedia | None = None
        self._extract = ExtractModel()
        self._scripted = ScriptedModel()
        self.observer: Observer = NullObserver()

    def quotes_only(self, spec: str | None) -> bool:
        """Whether the model that ``spec`` names only quotes documents."""
        return (spec or self._default).strip() == "extract"

    def chat_model(self, spec: str | None, fallback: str | None = None) -> tuple[ChatModel, str]:
        """The model that ``spec`` names and its NAME, wrapped with the fallback (``None``: the server's).

        Raises ``Upstream(reason="configuration")``, also for an invalid fallback.
        """
        fallback_spec = (fallback or self._fallback or "").strip()
        if not fallback_spec:
            return self._resolve(spec, self._main_openai)
        endpoint = self._fallback_openai if self._fallback_url else self._main_openai
        fallback_model, fallback_name = self._resolve(fallback_spec, endpoint)
        try:
            primary, first_name = self._resolve(spec, self._main_openai)
        except Upstream as problem:
            log.warning("the fallback model answers", model=spec, fallback=fallback_spec, problem=problem.to_dict())
            self.observer.model_failed("", problem)
            return fallback_model, fallback_name
        return FallbackModel(primary, fallback_model, fallback_name, failed=self.observer.model_failed), first_name

    def _resolve(self, spec: str | None, endpoint: Callable[[str], OpenAIModel]) -> tuple[ChatModel, str]:
        spec = (spec or self._default).strip()
        kind, _, name = spec.partition(":")
        name = name.strip()
        match kind.strip():
            case "extract" if not name:
                return self._extract, ""
            case "scripted" if not name:
                return self._scripted, ""
            case "openai" if name:
                name, _, options = name.partition("?")
                return endpoint(spec).with_thinking(_thinking(options, spec)), name
            case "openai":
                raise _wrong(f"{spec!r} lacks the model's name: write openai:NAME (agent's model, or PALAVER_MODEL)")
            case _:
                suggestion = f"; for a model of an endpoint write 'openai:{spec}'" if spec else ""
                raise _wrong(f"{spec!r} is not a model: PALAVER_MODEL and an agent's model may be {SPECS}{suggestion}")

    def image_model(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        """The image model for ``spec`` (``openai:NAME``; ``None``: the server's) and NAME; ``None`` if none is set."""
        return self._media_model(spec or self._image)

    def speech_model(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        """The text-to-speech model for ``spec`` (``None``: the server's) and NAME; ``None`` if none is set."""
        return self._media_model(spec or self._speech)

    def _media_model(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        if not (spec or "").strip():
            return None
        model, name = self._resolve(spec, self._main_openai)
        if not isinstance(model, OpenAIModel):
            raise _wrong(f"{spec!r} is neither an image nor a speech model: write openai:NAME")
        if self._media is None:
            self._media = OpenAIMedia(self._session, base_url=self._base_url or OPENAI_BASE_URL, api_key=self._api_key)
        return self._media, name

    @property
    def has_fallback(self) -> bool:
        """Whether the server has a default fallback."""
        return bool((self._fallback or "").strip())

    async def check(self, spec: str | None = None, *, fallback: bool = False) -> str | None:
        """Check that ``spec`` works, within 5 seconds. Returns a sentence about the fault, or ``None``.
        ``fallback``: check it as a fallback; ``spec=None`` is then the server's."""
        endpoint = self._fallback_openai if fallback and self._fallback_url else self._main_openai
        try:
            model, name = self._resolve((spec or self._fallback) if fallback else spec, endpoint)
        except Upstream as problem:
            return problem.detail
        return await model.check(name) if isinstance(model, OpenAIModel) else None

    async def close(self) -> None:
        """Close every connection. The registry may be used again."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _main_openai(self, spec: str) -> OpenAIModel:
        if self._openai is None:
            if self._base_url is None:
                raise _wrong(
                    f"{spec!r} needs an endpoint: set OPENAI_API_KEY, or OPENAI_BASE_URL for one that is not OpenAI's,"
                    " or PALAVER_MODEL=extract for none"
                )
            self._openai = self._endpoint(self._base_url, self._api_key, "OPENAI_BASE_URL")
        return self._openai

    def _fallback_openai(self, _: str) -> OpenAIModel:
        if self._fallback_endpoint is None:
            self._fallback_endpoint = self._endpoint(
                self._fallback_url or "", self._fallback_key, "PALAVER_FALLBACK_BASE_URL"
            )
        return self._fallback_endpoint

    def _endpoint(self, base_url: str, api_key: str | None, variable: str) -> OpenAIModel:
        address = urlsplit(base_url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise _wrong(f"{variable} must look like {OPENAI_BASE_URL!r}, not {base_url!r}")
        return OpenAIModel(
            self._session, base_url=base_url, api_key=api_key, timeouts=self._timeouts, longest=self._longest
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            self._http = aiohttp.ClientSession(
                # Thousands of answers may stream at a time, each on its own connection.
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
                # A cookie from one conversation must not be sent with another.
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "palaver"},
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._http


def _thinking(options: str, spec: str) -> Mode:
    match options:
        case "" | "thinking=tags":
            return "tags"
        case "thinking=open":
            return "open"
        case "thinking=text":
            return "text"
        case _:
            raise _wrong(f"{spec!r}: after the '?', write thinking=tags, thinking=open or thinking=text")


def _trimmed(base_url: str | None) -> str | None:
    """``base_url`` without the path that people often paste along with it."""
    return (base_url or "").strip().rstrip("/").removesuffix("/chat/completions").rstrip("/") or None


def _wrong(detail: str) -> Upstream:
    return Upstream(reason="configuration", detail=detail)
