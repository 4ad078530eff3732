"""What core needs of models: chat, images and speech. ``palaver.models`` implements it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal, Protocol

import msgspec

from palaver.core.ports.tools import ToolSpec
from palaver.core.types import (
    AnyPart,
    Passage,
    ToolCall,
    Usage,
    Value,
)


class ModelMessage(Value, frozen=True, kw_only=True):
    """One entry of what a model reads: a user's or an assistant's parts (an assistant's tool results among them)."""

    role: Literal["user", "assistant"]
    parts: tuple[AnyPart, ...]


class Attachment(Value, frozen=True, kw_only=True):
    """A file beside a message as a model may see it: its text, a picture's bytes, or why there is neither."""

    name: str
    media_type: str = ""
    text: str | None = None
    image: bytes | None = None
    missing: str = ""


class ModelRequest(Value, frozen=True, kw_only=True):
    """Everything a model gets to see for one step."""

    model: str
    """The name the endpoint knows the model by: what follows the colon in ``openai:NAME``."""
    instructions: str
    history: tuple[ModelMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    passages: tuple[Passage, ...] = ()
    """What retrieval found for this question; ``instructions`` do not repeat them."""
    attachments: dict[str, Attachment] = msgspec.field(default_factory=dict[str, Attachment])
    """What stands in the history's files, by their ``ref``. One that is not here is only named."""
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


class ToolCallDelta(Value, frozen=True, kw_only=True):
    """The model wants a tool called; sent once its arguments are complete."""

    call: ToolCall


class UsageDelta(Value, frozen=True, kw_only=True):
    """The tokens of this step so far, not since the last one: an endpoint that reports them with every piece may be
    cut off before ``StepFinished``."""

    usage: Usage


class StepFinished(Value, frozen=True, kw_only=True):
    """The step is over, always last. ``reason``: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …
    ``usage`` is unknown where a ``UsageDelta`` has said all there was."""

    reason: str = "stop"
    usage: Usage = Usage()


ModelDelta = ContentDelta | ThinkingDelta | ToolCallDelta | UsageDelta | StepFinished


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
        """Who paints by ``spec`` (``None``: by the server's default), and the model's name; ``None``: nobody does."""
        ...

    def speech_model(self, spec: str | None) -> tuple[SpeechModel, str] | None: ...

    def chat_model(self, spec: str | None, fallback: str | None = None) -> tuple[ChatModel, str]:
        """The model that ``spec`` (``openai:NAME``, ``extract``, …; ``None``: the server's default) names, and the
        NAME. Where it fails before its first word, the one that ``fallback`` (``None``: the server's, if any) names
        answers. Raises ``Upstream(reason="configuration")`` for a spec that cannot work here."""
        ...
