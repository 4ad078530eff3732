"""The port for models: chat, images and speech. Implemented by ``palaver.models``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

import msgspec

from palaver.core.ports.tools import ToolSpec
from palaver.core.types import (
    AnyPart,
    ModelSettings,
    Passage,
    ToolCall,
    Usage,
    Value,
)


class ModelMessage(Value, frozen=True, kw_only=True):
    """One message for the model: the parts of a user or an assistant message (tool results belong to the latter)."""

    role: Literal["user", "assistant"]
    parts: tuple[AnyPart, ...]


class Attachment(Value, frozen=True, kw_only=True):
    """A message attachment for the model: its text, its image bytes, or why there is neither (``missing``)."""

    name: str
    media_type: str = ""
    text: str | None = None
    image: bytes | None = None
    missing: str = ""


class ModelRequest(Value, frozen=True, kw_only=True):
    """The complete input of one model call."""

    model: str
    """The endpoint's name for the model: the part after the colon in ``openai:NAME``."""
    instructions: str
    history: tuple[ModelMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    settings: ModelSettings = ModelSettings()
    passages: tuple[Passage, ...] = ()
    """The retrieved passages for this question; ``instructions`` do not repeat them."""
    attachments: dict[str, Attachment] = msgspec.field(default_factory=dict[str, Attachment])
    """The contents of the history's files, by ``ref``. For a file without an entry, the model only sees the name."""
    variables: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    trace: str = ""
    """The request's trace id, for logs and for the endpoint's ``X-Request-ID``."""


class ContentDelta(Value, frozen=True, kw_only=True):
    """A piece of the answer (never empty)."""

    text: str


class ThinkingDelta(Value, frozen=True, kw_only=True):
    """A piece of reasoning (never empty)."""

    text: str
    provider_data: dict[str, Any] | None = None


class FinalData(Value, frozen=True, kw_only=True):
    """Opaque data that belongs to the text or reasoning just streamed, which ends with it: a signature, encrypted
    reasoning. The model expects it back in the next request, as ``final_data`` of the part."""

    data: dict[str, Any]


class ToolCallDelta(Value, frozen=True, kw_only=True):
    """A tool call by the model; sent once its arguments are complete."""

    call: ToolCall


class UsageDelta(Value, frozen=True, kw_only=True):
    """Cumulative token usage of this step: an endpoint that reports it with every chunk may be cut off before
    ``StepFinished``."""

    usage: Usage


class StepFinished(Value, frozen=True, kw_only=True):
    """The step is over, always last. ``reason``: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …
    ``usage`` is unknown if it was already reported by ``UsageDelta``."""

    reason: str = "stop"
    usage: Usage = Usage()


ModelDelta = ContentDelta | ThinkingDelta | FinalData | ToolCallDelta | UsageDelta | StepFinished


class ChatModel(Protocol):
    """A chat model. ``stream`` yields deltas and one ``StepFinished``; it raises ``Upstream`` when the endpoint fails.

    Closing the generator (or cancelling its task) closes the connection to the endpoint at once.
    """

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]: ...


class GeneratedImage(Value, frozen=True, kw_only=True):
    """An image and its media type."""

    content: bytes
    media_type: str


class ImageModel(Protocol):
    async def generate(self, model: str, text: str) -> GeneratedImage:
        """Raises ``Upstream``."""
        ...


class SpeechModel(Protocol):
    async def synthesize(self, model: str, text: str, voice: str) -> bytes:
        """An MP3 file. Raises ``Upstream``."""
        ...


class Models(Protocol):
    def image_model(self, spec: str | None) -> tuple[ImageModel, str] | None:
        """The image model for ``spec`` (``None``: the server's default) and its name, or ``None`` without one."""
        ...

    def speech_model(self, spec: str | None) -> tuple[SpeechModel, str] | None: ...

    def chat_model(self, spec: str | None, fallback: str | None = None) -> tuple[ChatModel, str]:
        """The chat model for ``spec`` (``openai:NAME``, ``extract``, …; ``None``: the server's default), and the NAME.
        If it fails before its first token, ``fallback`` (``None``: the server's, if any) answers instead. Raises
        ``Upstream(reason="configuration")`` for a spec that cannot work on this server."""
        ...
