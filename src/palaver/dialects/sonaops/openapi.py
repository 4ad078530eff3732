"""OpenAPI descriptions of this dialect's operations, with the vendor's own examples where its page has them.

Source: the vendor's page "创建会话", and the wire specification ``sonaops.md``.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.dialects.sonaops.auth import HMAC_SHA256, SHA256
from palaver.dialects.sonaops.errors import EVENT_STREAM
from palaver.dialects.sonaops.media import MP3
from palaver.dialects.sonaops.requests import DEFAULT_VOICE
from palaver.dialects.sonaops.responses import (
    OK,
    ConversationCreated,
    ImageResponse,
    SonaopsAgent,
    SonaopsAgentList,
    SonaopsEnvelope,
    SonaopsError,
    SpeechResponse,
    SuggestedReplies,
)
from palaver.dialects.sonaops.stream import SonaopsEncoder
from palaver.wire.contract import MAX_REQUEST_ID
from palaver.wire.operation import (
    BodySpec,
    DialectInfo,
    Operation,
    Parameter,
    QuerySpec,
    ResponseSpec,
    SecurityScheme,
    example_run,
)
from palaver.wire.user_header import MAX_USER, USER

SPEC = "wire specification `sonaops.md`, section"


def _success(meaning: str, data: Any) -> ResponseSpec:
    envelope = SonaopsEnvelope(
        code=OK,
        success=True,
        message="OK",
        data=data,
        trace_id="9fU0kfWy3E8YFGjS5S8bLPlAXG8xhdTH",
        timestamp="1773298769366",
    )
    return ResponseSpec(meaning=meaning, examples={"success": msgspec.to_builtins(envelope)})


# Operations ---------------------------------------------------------------------------------------------------------

_AGENT, _CONVERSATION = "72cdefc1-940c-428d-bd8e-198386f3de5c", "a1b2c3d4e5f60718293a4b5c6d7e8f90"
_PLACE = {"agentId": _AGENT, "conversationId": _CONVERSATION}
_STREAM = SonaopsEncoder(UUID(_CONVERSATION), UUID(int=0x5B1F0A9C3D7E4C21A6B8F0E1D2C3B4A5))

CREATE = Operation(
    source=f'the vendor\'s page "创建会话"; {SPEC} 5.1',
    body=BodySpec(
        required=("agentId",),
        examples={"the vendor's": {"agentId": "agent-uuid"}},
    ),
    responses=(_success("The new conversation.", ConversationCreated(conversation_id=_CONVERSATION)),),
    not_found=("agent",),
)
_AGENT_PAGE = _success(
    "A page of the agents.",
    SonaopsAgentList(
        agents=[SonaopsAgent(agent_id=_AGENT, name="Weather", avatar=None, description="", greeting="", voice_id=None)],
        total=1,
    ),
)
LIST = Operation(
    source=f"{SPEC} 5.2",
    body=BodySpec(examples={"second page": {"pageNum": 2, "pageSize": 20}}, empty=True),
    responses=(_AGENT_PAGE,),
)
LIST_BY_QUERY = Operation(
    source=f"{SPEC} 5.2",
    query=QuerySpec(example={"pageNum": 1}),
    responses=(_AGENT_PAGE,),
)
STREAM = Operation(
    source=f"{SPEC}s 5.3 and 6",
    body=BodySpec(
        required=("agentId", "conversationId", "text"),
        examples={"a message": {**_PLACE, "text": "What is the weather like?"}},
    ),
    responses=(
        ResponseSpec(
            meaning="Server-sent events: `message` and `thinking`, then `message_end` and `message_saved`, or `error`.",
            media_type=EVENT_STREAM,
            examples={
                "a turn": b"".join(piece for event in example_run() for piece in _STREAM.encode(event, 0)).decode()
            },
        ),
    ),
    not_found=("agent", "conversation"),
)
INSPIRATION = Operation(
    source=f"{SPEC} 5.4",
    body=BodySpec(required=("agentId", "conversationId"), examples={"for a conversation": {**_PLACE}}),
    responses=(_success("At most three suggestions.", SuggestedReplies(replies=["And tomorrow?"])),),
    not_found=("agent", "conversation"),
)
IMAGE = Operation(
    source=f"{SPEC} 5.5",
    body=BodySpec(
        required=("agentId", "conversationId", "text"),
        examples={"a picture": {**_PLACE, "text": "a lighthouse in the rain"}},
    ),
    responses=(
        _success(
            "The image.",
            ImageResponse(base64_image="data:image/png;base64,iVBORw0KGgo=", metadata={}),
        ),
    ),
    more="Generating an image may take a minute or more.",
    not_found=("agent", "conversation"),
)
SPEECH = Operation(
    source=f"{SPEC} 5.6",
    body=BodySpec(
        required=("messageId", "processedText"),
        examples={
            "a message": {
                "messageId": "5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5",
                "processedText": "It is sunny.",
                "voiceTimbreId": DEFAULT_VOICE,
            }
        },
    ),
    responses=(
        _success(
            "The URL of the audio file.",
            SpeechResponse(audio_url="https://example.com/saas/voice-broadcast/5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5.mp3"),
        ),
    ),
    more="Speech is synthesized once per message; later requests return the same URL, whatever their text.",
    not_found=("message",),
)
SOUND = Operation(
    source=f"{SPEC}s 1 and 5.6",
    responses=(
        ResponseSpec(
            meaning="The audio file.",
            media_type=MP3,
            headers=(Parameter(name="Accept-Ranges", meaning="`bytes`."),),
        ),
        ResponseSpec(
            meaning="The part requested by a `Range` header.",
            status=206,
            media_type=MP3,
            headers=(Parameter(name="Content-Range", meaning="The range of the part."),),
        ),
    ),
    not_found=("file",),
)


# Common to all operations -------------------------------------------------------------------------------------------

INFO = DialectInfo(
    title="Sonaops Open API",
    meaning="Every request is signed: `X-Signature` covers its fields and the credential's secret. "
    f"The credential's setting `signature` selects the scheme: `{SHA256}`, or `{HMAC_SHA256}` of the later generation.",
    refusal=SonaopsError,
    schemes=(
        SecurityScheme(name="key", kind="bearer", meaning="The credential's id (`apiKey`)."),
        SecurityScheme(
            name="signature",
            header="X-Signature",
            meaning="64 hex digits: SHA-256 of the canonical fields and the secret, or HMAC-SHA256 with the secret.",
        ),
    ),
    needs=(("key", "signature"),),
    path=(
        Parameter(
            name="name",
            meaning="A message's id followed by `.mp3`.",
            example="5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5.mp3",
        ),
    ),
    headers=(
        Parameter(
            name=USER,
            meaning=f"The end user, percent-encoded if necessary; defaults to the credential's `default_user`."
            f" Required, and signed, with `{HMAC_SHA256}`.",
            shape=Annotated[str, Meta(max_length=MAX_USER)],
            example="user-123",
        ),
        Parameter(
            name="X-Timestamp",
            meaning=f"Unix seconds, at most 300 off. Required, and signed, with `{HMAC_SHA256}`.",
        ),
        Parameter(
            name="X-Request-ID", meaning=f"Returned in the response if it has at most {MAX_REQUEST_ID} characters."
        ),
    ),
    credential_variants=({"signature": SHA256}, {"signature": HMAC_SHA256}),
)
