"""Descriptions and examples for the OpenAPI document. Examples are the vendor's if its page has one.

Source: the vendor's page "更新会话主题", and the wire specification ``xspace.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.core.problems import Noun
from palaver.core.types import (
    Agent,
    AgentSpec,
    Conversation,
    File,
    Message,
    RunEnded,
    Status,
    StoredFile,
    Text,
    Thinking,
)
from palaver.dialects.xspace.auth import USER_NAME, USER_NUMBER
from palaver.dialects.xspace.envelope import XSpaceEnvelope, XSpaceError, done_envelope, ok_envelope
from palaver.dialects.xspace.errors import EVENT_STREAM
from palaver.dialects.xspace.logo import SVG
from palaver.dialects.xspace.requests import UploadForm
from palaver.dialects.xspace.responses import (
    FileList,
    NamedFile,
    agent_detail,
    conversation_dto,
    file_item,
    file_record,
    message_dto,
)
from palaver.dialects.xspace.stream import XSpaceEncoder, rejection
from palaver.wire.contract import Headers, Request
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
from palaver.wire.user_header import MAX_USER

SPEC = "wire specification `xspace.md`, section"
ANY = "*/*"
"""Bytes of any type."""


# Examples -----------------------------------------------------------------------------------------------------------

_RUN = UUID(int=0x5B1F0A9C3D7E4C21A6B8F0E1D2C3B4A5)
_KEY = "local/default/20260413/0123456789abcdef0123456789abcdef.txt"
_CREATED = datetime(2026, 4, 13, 13, 7, 10, tzinfo=UTC)
_PUBLISHED = datetime(2026, 4, 5, 16, 35, 39, tzinfo=UTC)
_REQUEST = Request(
    method="GET",
    path="",
    target="",
    headers=Headers(()),
    route="",
    path_params={},
    body=b"",
    now=1_776_085_673.993,
    trace=f"{279_749:032x}",
    base_url="https://example.com",
)
_TASK_AGENT = Agent(
    app=1,
    id=1596,
    uid=UUID(int=0x72CDEFC11940C428DBD8E198386F3DE5),
    spec=AgentSpec(
        name="TaskAgentTest",
        icon="https://testagent.xspaceagi.com/api/logo/agent/TaskAgentTest",
        extra={"xspace": {"type": "TaskAgent"}},
    ),
    created=_PUBLISHED,
    modified=_PUBLISHED,
)
_AGENT = Agent(
    app=1,
    id=1596,
    uid=UUID(int=0x72CDEFC11940C428DBD8E198386F3DE5),
    spec=AgentSpec(name="Weather"),
    created=_PUBLISHED,
    modified=_PUBLISHED,
)
_CONVERSATION = Conversation(
    app=1,
    id=1545552,
    uid=UUID(int=0x3787CF89001F43BD832B7ADEB8134D96),
    user=1,
    agent=_TASK_AGENT.id,
    alias=None,
    title="自定义会话主题",
    opening="",
    created=_CREATED,
    modified=datetime(2026, 4, 13, 13, 7, 54, tzinfo=UTC),
)
_MESSAGE = message_dto(
    Message(
        app=1,
        id=102,
        uid=_RUN,
        conversation=_CONVERSATION.id,
        role="assistant",
        parts=(Thinking(text="look it up"), Text(text="It is sunny.")),
        created=datetime(2026, 4, 13, 13, 7, 22, tzinfo=UTC),
        ended=RunEnded(status=Status.COMPLETE, at=1_776_085_642_000),
    ),
    _CONVERSATION,
    _REQUEST,
)
_FILE = StoredFile(
    app=1,
    id=7,
    uid=UUID(int=7),
    user=1,
    key=_KEY,
    name="a.txt",
    media_type="text/plain",
    size=12,
    digest=b"",
    details={"targetType": "Default", "targetId": -1, "metadata": None},
    created=_CREATED,
)


def _example(meaning: str, envelope: XSpaceEnvelope[Any]) -> ResponseSpec:
    return ResponseSpec(meaning=meaning, examples={"success": msgspec.to_builtins(envelope)})


def _success(meaning: str, data: Any) -> ResponseSpec:
    return _example(meaning, ok_envelope(_REQUEST, data))


_NEW_ID = _success("The new conversation's id.", 1545552)
_DONE = _example("Done.", done_envelope(_REQUEST))
_DTO = conversation_dto(_CONVERSATION, _TASK_AGENT, _REQUEST)
_THE_CONVERSATION = _success("The conversation.", _DTO)
_THE_CONVERSATIONS = _success("Conversations, most recently modified first.", [_DTO])
_BOTH: tuple[Noun, ...] = ("conversation", "user")


def _stream() -> str:
    """The stream of an example run."""
    encoder = XSpaceEncoder(_RUN, 1_776_085_641_000)
    return b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()


_STREAM = ResponseSpec(
    meaning="Server-sent events: `MESSAGE`, `PROCESSING`, `HEART_BEAT`, and finally `FINAL_RESULT`.",
    media_type=EVENT_STREAM,
    examples={
        "a turn": _stream(),
        "not accepted": b"".join(rejection("Conversation does not exist.")).decode(),
    },
)


def _bytes(meaning: str) -> tuple[ResponseSpec, ...]:
    accept_ranges = Parameter(name="Accept-Ranges", meaning="`bytes`.")
    content_range = Parameter(name="Content-Range", meaning="The range returned, and the size of the file.")
    return (
        ResponseSpec(
            meaning=meaning,
            media_type=ANY,
            headers=(accept_ranges, Parameter(name="ETag", meaning="Identifies the content.")),
        ),
        ResponseSpec(meaning="The requested range of the file.", status=206, media_type=ANY, headers=(content_range,)),
        ResponseSpec(
            meaning="The file does not contain the requested range.",
            status=416,
            shape=XSpaceError,
            headers=(content_range,),
        ),
    )


UPDATE = Operation(
    source=f'the vendor\'s page "更新会话主题"; {SPEC} 5.1',
    body=BodySpec(
        examples={
            "the vendor's": {"firstMessage": "你好,请问今天天气怎么样?"},
            "a topic": {"topic": "自定义会话主题"},
        },
    ),
    responses=(_THE_CONVERSATION,),
    more="Either `firstMessage` or `topic` is required; `topic` takes precedence.",
    not_found=_BOTH,
)
ADD = Operation(
    source=f"{SPEC} 5.2",
    body=BodySpec(
        required=("agentId",),
        examples={"a conversation": {"agentId": 1596, "variables": {"city": "Oslo"}}},
    ),
    responses=(_NEW_ID,),
    not_found=("agent", "user"),
)
DETAIL = Operation(source=f"{SPEC} 5.3", responses=(_THE_CONVERSATION,), not_found=_BOTH)
LIST = Operation(
    source=f"{SPEC} 5.3",
    query=QuerySpec(required=("agentId",), example={"agentId": 1596}),
    responses=(_THE_CONVERSATIONS,),
    not_found=("user",),
)
DELETE = Operation(source=f"{SPEC} 5.3", responses=(_DONE,), not_found=_BOTH)
CHAT = Operation(
    source=f"{SPEC} 7",
    body=BodySpec(
        examples={
            "a message": {"message": "What is the weather like?"},
            "with a file": {"message": "What does it say?", "attachments": [{"fileKey": _KEY, "fileName": "a.txt"}]},
        },
    ),
    responses=(_STREAM,),
    more="A `message`, an attachment, or both. If the message cannot be accepted, the stream contains the error.",
    not_found=("user",),
)
STOP = Operation(source=f"{SPEC} 7.4", responses=(_DONE,), not_found=_BOTH)
MESSAGES = Operation(
    source=f"{SPEC} 6.2",
    query=QuerySpec(example={"limit": 10}),
    responses=(_success("The newest messages, oldest first.", [_MESSAGE]),),
    not_found=_BOTH,
)
FILES = Operation(
    source=f"{SPEC} 6.3",
    responses=(
        _success(
            "The files attached to messages.",
            FileList(
                files=[
                    file_item(
                        NamedFile(name="a.txt", file=File(ref=_KEY, name="a.txt", media_type="text/plain")),
                        _CONVERSATION,
                    )
                ]
            ),
        ),
    ),
    not_found=_BOTH,
)
FILE = Operation(
    source=f"{SPEC} 6.3",
    responses=(
        *_bytes("The file."),
        ResponseSpec(
            meaning="The file is on another server.",
            status=302,
            media_type="",
            headers=(Parameter(name="Location", meaning="Its URL, as attached to a message."),),
        ),
    ),
    not_found=("conversation", "file", "user"),
)
NO_FILE = Operation(source=f"{SPEC} 6.3", more="Always an error: the file's name is missing.", not_found=("user",))
UPLOAD = Operation(
    source=f"{SPEC} 6.3",
    body=BodySpec(
        shape=UploadForm,
        required=("file",),
        media_type="multipart/form-data",
        files=("file",),
    ),
    responses=(_success("The stored file.", file_record(_FILE, _REQUEST)),),
    not_found=("user",),
)
LOGO = Operation(
    source="The vendor's page, `data.agent.icon`",
    responses=(
        ResponseSpec(
            meaning="The name's first letter on a coloured square, whether or not the agent exists.",
            media_type=SVG,
            headers=(
                Parameter(name="Cache-Control", meaning="One day."),
                Parameter(name="X-Content-Type-Options", meaning="`nosniff`."),
            ),
        ),
    ),
)
SIGNED_URL = Operation(
    source=f"{SPEC} 1.1",
    query=QuerySpec(required=("fileUrl",), example={"fileUrl": f"https://example.com/api/f/{_KEY}"}),
    responses=(
        _success(
            "The URL with a token: valid for that file, without an API key, for one hour.",
            f"https://example.com/api/f/{_KEY}?ak=eyJ.sig",
        ),
    ),
    not_found=("file", "user"),
)
STORED_FILE = Operation(
    source=f"{SPEC} 1.1, 6.3",
    responses=_bytes("The file."),
    not_found=("file", "user"),
)


# Legacy routes ------------------------------------------------------------------------------------------------------

_LEGACY = "For keys that are bound to an agent."
_LEGACY_NOUNS: tuple[Noun, ...] = ("agent", "conversation", "user")

AGENT = Operation(
    source=f"{SPEC} 6.4",
    more=_LEGACY,
    responses=(_success("The agent.", agent_detail(_AGENT, _REQUEST)),),
    not_found=("agent", "user"),
)
CREATE = Operation(
    source=f"{SPEC} 1.2",
    more=_LEGACY,
    body=BodySpec(examples={"with variables": {"variables": {"city": "Oslo"}}}, empty=True),
    responses=(_NEW_ID,),
    not_found=("agent", "user"),
)
WITH_MESSAGES = Operation(
    source=f"{SPEC} 5.4",
    more=_LEGACY,
    responses=(
        _success(
            "The conversation with its newest messages.",
            conversation_dto(_CONVERSATION, _TASK_AGENT, _REQUEST, messages=[_MESSAGE]),
        ),
    ),
    not_found=_LEGACY_NOUNS,
)
LEGACY_DELETE = Operation(source=f"{SPEC} 1.2", more=_LEGACY, responses=(_DONE,), not_found=_LEGACY_NOUNS)
CONVERSATIONS = Operation(
    source=f"{SPEC} 5.4", more=_LEGACY, responses=(_THE_CONVERSATIONS,), not_found=("agent", "user")
)
LEGACY_CHAT = Operation(
    source=f"{SPEC}s 1.2 and 7",
    more=_LEGACY,
    body=BodySpec(
        required=("conversationId",),
        examples={"a message": {"conversationId": 1545552, "message": "What is the weather like?"}},
    ),
    responses=(_STREAM,),
    not_found=_LEGACY_NOUNS,
)
LEGACY_STOP = Operation(source=f"{SPEC} 7.4", more=_LEGACY, responses=(_DONE,), not_found=_LEGACY_NOUNS)
SUGGEST = Operation(
    source=f"{SPEC} 5.4",
    more=_LEGACY,
    responses=(_success("At most three suggestions.", ["And tomorrow?"]),),
    not_found=_LEGACY_NOUNS,
)


# Common properties --------------------------------------------------------------------------------------------------

_REF = "The conversation's `id` or `uid`."

INFO = DialectInfo(
    title="Nuwax / XSpaceAGI, open conversation API",
    meaning="Every response except streams and files has HTTP status 200; `code` tells success from errors.",
    refusal=XSpaceError,
    schemes=(SecurityScheme(name="key", kind="bearer", meaning="The credential's secret, `ak-…`."),),
    needs=(("key",),),
    path=(
        Parameter(name="conversationId", meaning=_REF, shape=int | str, example=1545552),
        Parameter(name="id", meaning=_REF, shape=int | str, example=1545552),
        Parameter(name="path", meaning="The file's name in the list of files.", example="a.txt"),
        Parameter(name="storage", meaning="The first part of the file's key.", example="local"),
        Parameter(name="target", meaning="The second part.", example="default"),
        Parameter(name="day", meaning="The third part.", example="20260413"),
        Parameter(name="name", meaning="The last part.", example="0123456789abcdef0123456789abcdef.txt"),
    ),
    headers=(
        Parameter(
            name=USER_NAME,
            meaning="The end user's name, percent-encoded if it is not ASCII; honored for keys with `act_for_users`.",
            shape=Annotated[str, Meta(max_length=MAX_USER)],
        ),
        Parameter(name=USER_NUMBER, meaning="The end user's number, instead of the name.", shape=int),
        Parameter(name="Accept-Language", meaning="`zh-CN` for messages in Chinese.", example="en-US"),
    ),
)
