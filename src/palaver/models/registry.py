"""The models of a server: which one a spec names, and the HTTP session they share."""

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
    """``Models`` as one server has them.

    A spec is ``extract``, ``scripted`` or ``openai:NAME``, where ``?thinking=…`` may follow (see ``thinking.py``).
    ``default`` is the spec for agents without one (setting ``PALAVER_MODEL``), ``base_url`` and ``api_key`` are those
    of the one endpoint that ``openai:`` means; with a key alone it is OpenAI's own. ``fallback`` is the spec of who
    answers when a model fails, at an endpoint of its own where ``fallback_base_url`` names one. Close it in the loop
    it was used in.
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
        self._spare_url = _trimmed(fallback_base_url)
        self._spare_key = (fallback_api_key or "").strip() or (None if self._spare_url else self._api_key)
        self._spare: OpenAIModel | None = None
        self._media: OpenAIMedia | None = None
        self._extract = ExtractModel()
        self._scripted = ScriptedModel()
        self.observer: Observer = NullObserver()

    def quotes_only(self, spec: str | None) -> bool:
        """Whether the model that ``spec`` names has no words of its own for a question."""
        return (spec or self._default).strip() == "extract"

    def chat_model(self, spec: str | None, fallback: str | None = None) -> tuple[ChatModel, str]:
        """The model that ``spec`` names and its NAME; with a fallback (``None``: the server's) behind it.

        Raises ``Upstream(reason="configuration")``, also for a fallback that cannot be.
        """
        spare = (fallback or self._fallback or "").strip()
        if not spare:
            return self._named(spec, self._main)
        second, name = self._named(spare, self._behind if self._spare_url else self._main)
        try:
            first, first_name = self._named(spec, self._main)
        except Upstream as problem:
            log.warning("the fallback model answers", model=spec, fallback=spare, problem=problem.record())
            self.observer.model_failed("", problem)
            return second, name
        return FallbackModel(first, second, name, failed=self.observer.model_failed), first_name

    def _named(self, spec: str | None, endpoint: Callable[[str], OpenAIModel]) -> tuple[ChatModel, str]:
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
                meant = f"; for a model of an endpoint write 'openai:{spec}'" if spec else ""
                raise _wrong(f"{spec!r} is not a model: PALAVER_MODEL and an agent's model may be {SPECS}{meant}")

    def image_model(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        """Who paints by ``spec`` (``openai:NAME``; ``None``: the server's), and NAME; ``None``: nobody is named."""
        return self._maker(spec or self._image)

    def speech_model(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        """Who speaks by ``spec``, and NAME; ``None``: nobody is named."""
        return self._maker(spec or self._speech)

    def _maker(self, spec: str | None) -> tuple[OpenAIMedia, str] | None:
        if not (spec or "").strip():
            return None
        model, name = self._named(spec, self._main)
        if not isinstance(model, OpenAIModel):
            raise _wrong(f"{spec!r} neither paints nor speaks: write openai:NAME")
        if self._media is None:
            self._media = OpenAIMedia(self._session, base_url=self._base_url or OPENAI_BASE_URL, api_key=self._api_key)
        return self._media, name

    @property
    def has_fallback(self) -> bool:
        """Whether the server has one for agents that name none."""
        return bool((self._fallback or "").strip())

    async def check(self, spec: str | None = None, *, fallback: bool = False) -> str | None:
        """What would keep ``spec`` from working, as a sentence for people; ``None``: nothing. At most 5 seconds.
        ``fallback``: from working as one, ``None`` then being the server's."""
        endpoint = self._behind if fallback and self._spare_url else self._main
        try:
            model, name = self._named((spec or self._fallback) if fallback else spec, endpoint)
        except Upstream as problem:
            return problem.detail
        return await model.check(name) if isinstance(model, OpenAIModel) else None

    async def close(self) -> None:
        """Close every connection. The catalog may be used again."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _main(self, spec: str) -> OpenAIModel:
        if self._openai is None:
            if self._base_url is None:
                raise _wrong(
                    f"{spec!r} needs an endpoint: set OPENAI_API_KEY, or OPENAI_BASE_URL for one that is not OpenAI's,"
                    " or PALAVER_MODEL=extract for none"
                )
            self._openai = self._endpoint(self._base_url, self._api_key, "OPENAI_BASE_URL")
        return self._openai

    def _behind(self, _: str) -> OpenAIModel:
        if self._spare is None:
            self._spare = self._endpoint(self._spare_url or "", self._spare_key, "PALAVER_FALLBACK_BASE_URL")
        return self._spare

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
                # Thousands of answers may be streaming at a time; each has a connection of its own.
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
                # What an endpoint sets for one conversation is not told to it in another.
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
            raise _wrong(f"{spec!r}: behind the '?' there may stand thinking=tags, thinking=open or thinking=text")


def _trimmed(base_url: str | None) -> str | None:
    """``base_url`` without what people paste too much."""
    return (base_url or "").strip().rstrip("/").removesuffix("/chat/completions").rstrip("/") or None


def _wrong(detail: str) -> Upstream:
    return Upstream(reason="configuration", detail=detail)
