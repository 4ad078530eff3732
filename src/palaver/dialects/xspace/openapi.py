"""What the OpenAPI document says of this dialect. Examples are the vendor's where its page has one.

Source: the vendor's page "更新会话主题", and the wire specification ``xspace.md``.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.core.problems import Noun
from palaver.dialects.xspace.auth import USER_NAME, USER_NUMBER
from palaver.dialects.xspace.errors import DONE, EVENT_STREAM, OK
from palaver.dialects.xspace.logo import SVG
from palaver.dialects.xspace.requests import (
    AddRequest,
    AddressQuery,
    AttachmentRequest,
    ConversationListQuery,
    HistoryQuery,
    StoredQuery,
    TopicRequest,
    UploadForm,
    XSpaceChatRequest,
    XSpaceCreateRequest,
)
from palaver.dialects.xspace.stream import XSpaceEncoder, refusal
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

T = TypeVar("T")
SPEC = "wire specification `xspace.md`, section"
ANY = "*/*"
"""Bytes of whatever kind they are."""


# What answers look like ---------------------------------------------------------------------------------------------


class XSpaceEnvelope(msgspec.Struct, Generic[T], kw_only=True):
    """What is around every answer but streams and files, whatever came of the call; its HTTP status is 200."""

    code: Annotated[str, Meta(description='"0000" for success.')]
    displayCode: Annotated[str, Meta(description="The same.")]  # noqa: N815
    message: str
    data: T
    tid: Annotated[str, Meta(pattern="^[0-9]+$", description="New in every answer.")]
    success: bool


class AgentSummary(msgspec.Struct, kw_only=True):
    agentId: int  # noqa: N815
    name: str
    type: str
    icon: str
    publishDate: str  # noqa: N815


class ChatMessageDto(msgspec.Struct, kw_only=True):
    index: Annotated[int | None, Meta(description="Grows with every message; null for an opening text.")]
    tenantId: int  # noqa: N815
    senderType: Literal["AGENT", "USER"]  # noqa: N815
    senderId: str  # noqa: N815
    userId: int  # noqa: N815
    agentId: int  # noqa: N815
    id: str | None
    role: Literal["ASSISTANT", "USER"]
    type: str
    text: str
    time: str
    attachments: list[AttachmentRequest]
    think: str | None
    quotedText: None  # noqa: N815
    finished: bool
    finishReason: str | None  # noqa: N815
    componentExecutedList: list[dict[str, Any]]  # noqa: N815
    metadata: None
    messageType: Literal["ASSISTANT", "USER"]  # noqa: N815


class ConversationDto(msgspec.Struct, kw_only=True):
    id: int
    tenantId: int  # noqa: N815
    userId: int  # noqa: N815
    uid: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    agentId: int  # noqa: N815
    topic: str
    summary: str | None
    icon: str | None
    variables: dict[str, Any] | None
    modified: Annotated[str, Meta(description="UTC.")]
    created: Annotated[str, Meta(description="UTC.")]
    agent: AgentSummary
    messageList: list[ChatMessageDto] | None  # noqa: N815
    type: str
    taskId: None  # noqa: N815
    taskStatus: Literal["CREATE", "EXECUTING", "COMPLETE", "FAILED"]  # noqa: N815
    taskCron: None  # noqa: N815
    taskCronDesc: str  # noqa: N815
    devMode: int  # noqa: N815
    topicUpdated: Annotated[int, Meta(ge=0, le=1, description="1 once a topic was set.")]  # noqa: N815
    sandboxServerId: None  # noqa: N815
    sandboxSessionId: None  # noqa: N815
    devSpaceId: None  # noqa: N815
    devTargetType: None  # noqa: N815
    devTargetId: None  # noqa: N815
    sharedUris: None  # noqa: N815


class FileItem(msgspec.Struct, kw_only=True):
    fileId: str  # noqa: N815
    name: str
    binary: bool
    sizeExceeded: bool  # noqa: N815
    contents: str
    fileProxyUrl: str  # noqa: N815
    isDir: bool  # noqa: N815
    isLink: bool  # noqa: N815


class FileList(msgspec.Struct, kw_only=True):
    files: list[FileItem]


class FileRecord(msgspec.Struct, kw_only=True):
    id: int
    tenantId: int  # noqa: N815
    userId: int  # noqa: N815
    targetType: str  # noqa: N815
    targetId: int  # noqa: N815
    fileName: str  # noqa: N815
    size: int
    mimeType: str  # noqa: N815
    fileExtension: str  # noqa: N815
    metadata: str | None
    key: Annotated[str, Meta(description="A message attaches the file by it.")]
    storageType: str  # noqa: N815
    url: str
    authRequired: bool  # noqa: N815
    status: str
    created: str
    modified: str


class AgentDetail(msgspec.Struct, kw_only=True):
    """The vendor's members, null where palaver has no value for one; those that have one are listed."""

    agentId: int  # noqa: N815
    uid: str
    type: str
    subType: str  # noqa: N815
    name: str
    description: str
    icon: str
    publishDate: str  # noqa: N815
    openSuggest: Literal["Open", "Close"]  # noqa: N815
    openingChatMsg: str  # noqa: N815
    openingGuidQuestions: list[str]  # noqa: N815
    hasPermission: bool  # noqa: N815


class XSpaceError(XSpaceEnvelope[None], kw_only=True):
    """A refusal."""


def _given(meaning: str, shape: Any, data: Any, *, message: str = "success") -> ResponseSpec:
    said = {
        "code": OK,
        "displayCode": OK,
        "message": message,
        "data": data,
        "tid": "2798491776085673993",
        "success": True,
    }
    return ResponseSpec(meaning=meaning, shape=shape, examples={"success": said})


# The calls ----------------------------------------------------------------------------------------------------------

_RUN = UUID(int=0x5B1F0A9C3D7E4C21A6B8F0E1D2C3B4A5)
_BOTH: tuple[Noun, ...] = ("conversation", "user")
_CONVERSATION: dict[str, Any] = {
    "id": 1545552,
    "tenantId": 1,
    "userId": 1,
    "uid": "3787cf89001f43bd832b7adeb8134d96",
    "agentId": 1596,
    "topic": "自定义会话主题",
    "summary": None,
    "icon": None,
    "variables": None,
    "modified": "2026-04-13T13:07:54.000+00:00",
    "created": "2026-04-13T13:07:10.000+00:00",
    "agent": {
        "agentId": 1596,
        "name": "TaskAgentTest",
        "type": "TaskAgent",
        "icon": "https://testagent.xspaceagi.com/api/logo/agent/TaskAgentTest",
        "publishDate": "2026-04-05T16:35:39.000+00:00",
    },
    "messageList": None,
    "type": "Chat",
    "taskId": None,
    "taskStatus": "CREATE",
    "taskCron": None,
    "taskCronDesc": "",
    "devMode": 0,
    "topicUpdated": 1,
    "sandboxServerId": None,
    "sandboxSessionId": None,
    "devSpaceId": None,
    "devTargetType": None,
    "devTargetId": None,
    "sharedUris": None,
}
_MESSAGE: dict[str, Any] = {
    "index": 102,
    "tenantId": 1,
    "senderType": "AGENT",
    "senderId": "1596",
    "userId": 1,
    "agentId": 1596,
    "id": _RUN.hex,
    "role": "ASSISTANT",
    "type": "CHAT",
    "text": "It is sunny.",
    "time": "2026-04-13T13:07:22.000+00:00",
    "attachments": [],
    "think": "look it up",
    "quotedText": None,
    "finished": True,
    "finishReason": "stop",
    "componentExecutedList": [],
    "metadata": None,
    "messageType": "ASSISTANT",
}
_KEY = "local/default/20260413/0123456789abcdef0123456789abcdef.txt"
_ONE = _given("The conversation.", XSpaceEnvelope[ConversationDto], _CONVERSATION)
_LISTED = _given("Conversations, the one changed last first.", XSpaceEnvelope[list[ConversationDto]], [_CONVERSATION])
_NUMBER = _given("The new conversation's number.", XSpaceEnvelope[int], 1545552)
_DONE = _given("Done.", XSpaceEnvelope[None], None, message=DONE)


def _turn() -> str:
    encoder = XSpaceEncoder(_RUN, 1_776_085_641_000)
    return b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()


_STREAM = ResponseSpec(
    meaning="Server-sent events: `MESSAGE`, `PROCESSING`, `HEART_BEAT`, at last `FINAL_RESULT`.",
    media_type=EVENT_STREAM,
    examples={
        "a turn": _turn(),
        "not accepted": b"".join(refusal("Conversation does not exist.")).decode(),
    },
)


def _bytes(meaning: str) -> tuple[ResponseSpec, ...]:
    ranges = Parameter(name="Accept-Ranges", meaning="`bytes`.")
    what = Parameter(name="Content-Range", meaning="Which part it is, and of how many bytes.")
    return (
        ResponseSpec(
            meaning=meaning,
            media_type=ANY,
            headers=(ranges, Parameter(name="ETag", meaning="The same for the same bytes.")),
        ),
        ResponseSpec(meaning="The part that a `Range` header asks for.", status=206, media_type=ANY, headers=(what,)),
        ResponseSpec(meaning="The file has no such part.", status=416, shape=XSpaceError, headers=(what,)),
    )


UPDATE = Operation(
    source=f'the vendor\'s page "更新会话主题"; {SPEC} 5.1',
    body=BodySpec(
        shape=TopicRequest,
        examples={
            "the vendor's": {"firstMessage": "你好,请问今天天气怎么样?"},
            "a topic": {"topic": "自定义会话主题"},
        },
    ),
    responses=(_ONE,),
    more="One of `firstMessage` and `topic` has to be there; `topic` counts where both are.",
    not_found=_BOTH,
)
ADD = Operation(
    source=f"{SPEC} 5.2",
    body=BodySpec(
        shape=AddRequest,
        required=("agentId",),
        examples={"a conversation": {"agentId": 1596, "variables": {"city": "Oslo"}}},
    ),
    responses=(_NUMBER,),
    not_found=("agent", "user"),
)
DETAIL = Operation(source=f"{SPEC} 5.3", responses=(_ONE,), not_found=_BOTH)
LIST = Operation(
    source=f"{SPEC} 5.3",
    query=QuerySpec(shape=ConversationListQuery, required=("agentId",), example={"agentId": 1596}),
    responses=(_LISTED,),
    not_found=("user",),
)
DELETE = Operation(source=f"{SPEC} 5.3", responses=(_DONE,), not_found=_BOTH)
CHAT = Operation(
    source=f"{SPEC} 7",
    body=BodySpec(
        shape=XSpaceChatRequest,
        examples={
            "a message": {"message": "What is the weather like?"},
            "with a file": {"message": "What does it say?", "attachments": [{"fileKey": _KEY, "fileName": "a.txt"}]},
        },
    ),
    responses=(_STREAM,),
    more="A `message`, an attachment, or both. What stands in the way of the turn is told in the stream.",
    not_found=("user",),
)
STOP = Operation(source=f"{SPEC} 7.4", responses=(_DONE,), not_found=_BOTH)
MESSAGES = Operation(
    source=f"{SPEC} 6.2",
    query=QuerySpec(shape=HistoryQuery, example={"limit": 10}),
    responses=(_given("The newest messages, oldest first.", XSpaceEnvelope[list[ChatMessageDto]], [_MESSAGE]),),
    not_found=_BOTH,
)
FILES = Operation(
    source=f"{SPEC} 6.3",
    responses=(
        _given(
            "What messages attach and runs made.",
            XSpaceEnvelope[FileList],
            {
                "files": [
                    {
                        "fileId": _KEY,
                        "name": "a.txt",
                        "binary": False,
                        "sizeExceeded": False,
                        "contents": "",
                        "fileProxyUrl": "/api/v1/chat/1545552/file/a.txt",
                        "isDir": False,
                        "isLink": False,
                    }
                ]
            },
        ),
    ),
    not_found=_BOTH,
)
FILE = Operation(
    source=f"{SPEC} 6.3",
    responses=(
        *_bytes("The file."),
        ResponseSpec(
            meaning="The file lies elsewhere.",
            status=302,
            media_type="",
            headers=(Parameter(name="Location", meaning="Its address, as a message attached it."),),
        ),
    ),
    not_found=("conversation", "file", "user"),
)
NO_FILE = Operation(source=f"{SPEC} 6.3", more="Answers no file: its name is missing.", not_found=("user",))
UPLOAD = Operation(
    source=f"{SPEC} 6.3",
    body=BodySpec(
        shape=UploadForm,
        required=("file",),
        media_type="multipart/form-data",
        files=("file",),
    ),
    responses=(
        _given(
            "The stored file.",
            XSpaceEnvelope[FileRecord],
            {
                "id": 7,
                "tenantId": 1,
                "userId": 1,
                "targetType": "Default",
                "targetId": -1,
                "fileName": "a.txt",
                "size": 12,
                "mimeType": "text/plain",
                "fileExtension": "txt",
                "metadata": None,
                "key": _KEY,
                "storageType": "local",
                "url": f"https://example.com/api/f/{_KEY}",
                "authRequired": True,
                "status": "active",
                "created": "2026-04-13T13:07:10.000+00:00",
                "modified": "2026-04-13T13:07:10.000+00:00",
            },
        ),
    ),
    not_found=("user",),
)
LOGO = Operation(
    source="The vendor's page, `data.agent.icon`",
    responses=(
        ResponseSpec(
            meaning="A tile with the name's first letter, whether there is such an agent or not.",
            media_type=SVG,
            headers=(
                Parameter(name="Cache-Control", meaning="For a day."),
                Parameter(name="X-Content-Type-Options", meaning="`nosniff`."),
            ),
        ),
    ),
)
ADDRESS = Operation(
    source=f"{SPEC} 1.1",
    query=QuerySpec(
        shape=AddressQuery, required=("fileUrl",), example={"fileUrl": f"https://example.com/api/f/{_KEY}"}
    ),
    responses=(
        _given(
            "The address with a token: good for that file, without a key, for an hour.",
            XSpaceEnvelope[str],
            f"https://example.com/api/f/{_KEY}?ak=eyJ.sig",
        ),
    ),
    not_found=("file", "user"),
)
STORED = Operation(
    source=f"{SPEC} 1.1, 6.3",
    query=QuerySpec(shape=StoredQuery),
    responses=_bytes("The file."),
    not_found=("file", "user"),
)


# The older paths ----------------------------------------------------------------------------------------------------

_OLDER = "For keys that are bound to an agent."
_THERE: tuple[Noun, ...] = ("agent", "conversation", "user")

AGENT = Operation(
    source=f"{SPEC} 6.4",
    more=_OLDER,
    responses=(
        _given(
            "The agent.",
            XSpaceEnvelope[AgentDetail],
            {
                "agentId": 1596,
                "uid": "72cdefc11940c428dbd8e198386f3de5",
                "type": "ChatBot",
                "subType": "ChatBot",
                "name": "Weather",
                "description": "",
                "icon": "https://example.com/api/logo/agent/Weather",
                "publishDate": "2026-04-05T16:35:39.000+00:00",
                "openSuggest": "Open",
                "openingChatMsg": "",
                "openingGuidQuestions": [],
                "hasPermission": True,
            },
        ),
    ),
    not_found=("agent", "user"),
)
CREATE = Operation(
    source=f"{SPEC} 1.2",
    more=_OLDER,
    body=BodySpec(shape=XSpaceCreateRequest, examples={"with variables": {"variables": {"city": "Oslo"}}}, empty=True),
    responses=(_NUMBER,),
    not_found=("agent", "user"),
)
WITH_MESSAGES = Operation(
    source=f"{SPEC} 5.4",
    more=_OLDER,
    responses=(
        _given(
            "The conversation with its last messages.",
            XSpaceEnvelope[ConversationDto],
            {**_CONVERSATION, "messageList": [_MESSAGE]},
        ),
    ),
    not_found=_THERE,
)
OLDER_DELETE = Operation(source=f"{SPEC} 1.2", more=_OLDER, responses=(_DONE,), not_found=_THERE)
CONVERSATIONS = Operation(source=f"{SPEC} 5.4", more=_OLDER, responses=(_LISTED,), not_found=("agent", "user"))
OLDER_CHAT = Operation(
    source=f"{SPEC}s 1.2 and 7",
    more=_OLDER,
    body=BodySpec(
        shape=XSpaceChatRequest,
        required=("conversationId",),
        examples={"a message": {"conversationId": 1545552, "message": "What is the weather like?"}},
    ),
    responses=(_STREAM,),
    not_found=_THERE,
)
OLDER_STOP = Operation(source=f"{SPEC} 7.4", more=_OLDER, responses=(_DONE,), not_found=_THERE)
SUGGEST = Operation(
    source=f"{SPEC} 5.4",
    more=_OLDER,
    responses=(_given("At most three suggestions.", XSpaceEnvelope[list[str]], ["And tomorrow?"]),),
    not_found=_THERE,
)


# What all have in common --------------------------------------------------------------------------------------------

_REF = "A conversation: its number, or its `uid`."

INFO = DialectInfo(
    title="Nuwax / XSpaceAGI, open conversation API",
    meaning="Every answer but streams and files has HTTP status 200; `code` says what came of the call.",
    refusal=XSpaceError,
    schemes=(SecurityScheme(name="key", kind="bearer", meaning="The credential's secret, `ak-…`."),),
    needs=(("key",),),
    path=(
        Parameter(name="conversationId", meaning=_REF, shape=int | str, example=1545552),
        Parameter(name="id", meaning=_REF, shape=int | str, example=1545552),
        Parameter(name="path", meaning="The file's name, as the list of files has it.", example="a.txt"),
        Parameter(name="storage", meaning="The first part of the file's key.", example="local"),
        Parameter(name="target", meaning="The second part.", example="default"),
        Parameter(name="day", meaning="The third part.", example="20260413"),
        Parameter(name="name", meaning="The last part.", example="0123456789abcdef0123456789abcdef.txt"),
    ),
    headers=(
        Parameter(
            name=USER_NAME,
            meaning="The end user, percent-encoded where need be; heeded for keys with `act_for_users`.",
            shape=Annotated[str, Meta(max_length=MAX_USER)],
        ),
        Parameter(name=USER_NUMBER, meaning="The same by number.", shape=int),
        Parameter(name="Accept-Language", meaning="`zh-CN` for messages in Chinese.", example="en-US"),
    ),
)
