"""Response bodies, and the envelope that they share. Source: wire specification ``sonaops.md``, sections 3 to 5."""

from __future__ import annotations

from hashlib import sha512
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec
from msgspec import Meta

from palaver.core.types import Agent
from palaver.wire.contract import Request, ResponseType
from palaver.wire.responses import JSONValue, json_response

OK = 10200
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
T = TypeVar("T")


class SonaopsEnvelope(msgspec.Struct, Generic[T], kw_only=True, rename="camel"):
    """The envelope of every response except streams and audio files."""

    code: Annotated[int, Meta(description="10200 for success.")]
    success: bool
    message: str
    data: T
    trace_id: Annotated[str, Meta(pattern="^[A-Za-z0-9]{32}$", description="Unique per response.")]
    timestamp: Annotated[str, Meta(pattern="^[0-9]+$", description="Epoch milliseconds.")]


class SonaopsError(msgspec.Struct, kw_only=True, rename="camel"):
    """An error response."""

    code: int
    success: bool
    message: str
    data: None
    trace_id: str
    timestamp: str


class ConversationCreated(msgspec.Struct, kw_only=True, rename="camel"):
    conversation_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="A UUID without hyphens.")]


class SonaopsAgent(msgspec.Struct, kw_only=True, rename="camel"):
    agent_id: str
    name: str
    avatar: str | None
    description: str
    greeting: str
    voice_id: str | None


class SonaopsAgentList(msgspec.Struct, kw_only=True):
    agents: list[SonaopsAgent] = msgspec.field(name="list")
    total: Annotated[int, Meta(ge=0, description="Across all pages.")]


class SuggestedReplies(msgspec.Struct, kw_only=True):
    replies: Annotated[list[str], Meta(max_length=3)]


class ImageResponse(msgspec.Struct, kw_only=True, rename="camel"):
    base64_image: Annotated[str, Meta(description="A `data:` URI.")]
    metadata: dict[str, Any]


class SpeechResponse(msgspec.Struct, kw_only=True, rename="camel"):
    audio_url: str


def ok_response(shape: type[T]) -> ResponseType[JSONValue[T]]:
    """A ``shape`` in the envelope."""

    def envelope(request: Request, data: T) -> SonaopsEnvelope[T]:
        return SonaopsEnvelope(
            code=OK,
            success=True,
            message="OK",
            data=data,
            trace_id=trace_id(request),
            timestamp=timestamp(request),
        )

    return json_response(cast("Any", SonaopsEnvelope)[shape], envelope)


def error(request: Request, code: int, message: str) -> SonaopsError:
    return SonaopsError(
        code=code,
        success=False,
        message=message,
        data=None,
        trace_id=trace_id(request),
        timestamp=timestamp(request),
    )


def trace_id(request: Request) -> str:
    """32 letters and digits derived from the request's random trace id, so unique per response."""
    number = int.from_bytes(sha512(request.trace.encode()).digest(), "big")
    letters: list[str] = []
    for _ in range(32):
        number, at = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[at])
    return "".join(letters)


def timestamp(request: Request) -> str:
    """The time of the request, in milliseconds since the epoch."""
    return str(int(request.now * 1000))


def agent_response(agent: Agent) -> SonaopsAgent:
    spec = agent.spec
    return SonaopsAgent(
        agent_id=spec.alias[0] if spec.alias else str(agent.uid),
        name=spec.name,
        avatar=spec.icon,
        description=spec.description,
        greeting=spec.opening_message,
        voice_id=spec.extra.get("sonaops", {}).get("voiceId"),
    )
