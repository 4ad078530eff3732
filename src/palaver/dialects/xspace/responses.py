"""Response bodies: members in the vendor's order, nulls included.

Source: the vendor's page, and the wire specification ``xspace.md``, section 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from palaver.core.types import Agent, Conversation, File, Message, Status, StoredFile
from palaver.dialects.xspace.envelope import prefers_chinese
from palaver.dialects.xspace.errors import STORED_FILES, UNFORESEEN
from palaver.dialects.xspace.stream import code_block, finish_reason
from palaver.dialects.xspace.tool_steps import ToolStep, finished_steps, text_with_steps
from palaver.wire.contract import Request

TENANT = 1
DIALECT = "xspace"
TYPES = frozenset(("ChatBot", "TaskAgent", "PageApp"))
_TEXTUAL = re.compile(r"text/|application/(?:json|xml|yaml|javascript)\b|[^/]+/[^/;]+\+(?:json|xml)\b")
OpenOrClose = Literal["Open", "Close"]
Role = Literal["ASSISTANT", "USER"]
TaskStatus = Literal["CREATE", "EXECUTING", "COMPLETE", "FAILED"]


# Types --------------------------------------------------------------------------------------------------------------


class AgentSummary(msgspec.Struct, kw_only=True, rename="camel"):
    agent_id: int
    name: str
    type: str
    icon: str
    publish_date: str


class AttachmentDto(msgspec.Struct, kw_only=True, rename="camel"):
    """A file attached to a message. ``fileKey`` is null if it is not stored on this server."""

    file_key: str | None
    file_url: str
    file_name: str
    mime_type: str


class ChatMessageDto(msgspec.Struct, kw_only=True, rename="camel"):
    index: Annotated[int | None, Meta(description="Increases with every message; null for the opening message.")]
    tenant_id: int
    sender_type: Literal["AGENT", "USER"]
    sender_id: str
    user_id: int
    agent_id: int
    id: str | None
    role: Role
    type: str
    text: str
    time: str
    attachments: list[AttachmentDto]
    think: str | None
    quoted_text: None
    finished: bool
    finish_reason: str | None
    component_executed_list: list[ToolStep]
    metadata: None
    message_type: Role


class ConversationDto(msgspec.Struct, kw_only=True, rename="camel"):
    id: int
    tenant_id: int
    user_id: int
    uid: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    agent_id: int
    topic: str
    summary: str | None
    icon: str | None
    variables: dict[str, Any] | None
    modified: Annotated[str, Meta(description="UTC.")]
    created: Annotated[str, Meta(description="UTC.")]
    agent: AgentSummary
    message_list: list[ChatMessageDto] | None
    type: str
    task_id: None
    task_status: TaskStatus
    task_cron: None
    task_cron_desc: str
    dev_mode: int
    topic_updated: Annotated[int, Meta(ge=0, le=1, description="1 once a topic has been set.")]
    sandbox_server_id: None
    sandbox_session_id: None
    dev_space_id: None
    dev_target_type: None
    dev_target_id: None
    shared_uris: None


class FileItem(msgspec.Struct, kw_only=True, rename="camel"):
    file_id: str
    name: str
    binary: bool
    size_exceeded: bool
    contents: str
    file_proxy_url: str
    is_dir: bool
    is_link: bool


class FileList(msgspec.Struct, kw_only=True):
    files: list[FileItem]


class FileRecord(msgspec.Struct, kw_only=True, rename="camel"):
    id: int
    tenant_id: int
    user_id: int
    target_type: str
    target_id: int
    file_name: str
    size: int
    mime_type: str
    file_extension: str
    metadata: str | None
    key: Annotated[str, Meta(description="Messages refer to the file by it.")]
    storage_type: str
    url: str
    auth_required: bool
    status: str
    created: str
    modified: str


class AgentDetail(msgspec.Struct, kw_only=True, rename="camel"):
    """All of the vendor's members; those that palaver has no value for are null."""

    space_id: None
    creator_id: None
    agent_id: int
    uid: str
    type: str
    sub_type: str
    name: str
    description: str
    icon: str
    remark: None
    publish_date: str
    statistics: None
    publish_user: None
    collect: bool
    category: None
    open_suggest: OpenOrClose
    opening_chat_msg: str
    opening_guid_questions: list[str]
    guid_question_dtos: list[Any]
    open_scheduled_task: OpenOrClose
    variables: list[Any]
    share_link: None
    manual_components: list[Any]
    allow_copy: None
    conversation_id: None
    sandbox_id: None
    has_permission: bool
    expand_page_area: None
    hide_chat_area: None
    hide_desktop: None
    allow_other_model: None
    allow_at_skill: None
    allow_private_sandbox: None
    allow_choose_mode: None
    enable_version_control: None
    page_home_index: None
    custom_page_menus: list[Any]
    event_bind_config: None
    payment_required: bool
    trial_count: None
    called_trial_count: None
    subscribed: bool
    over_call_limit: bool
    show_publish_btn: bool


# Agents -------------------------------------------------------------------------------------------------------------


def timestamp(at: datetime) -> str:
    """``at`` in UTC, truncated to seconds, with a numeric offset."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+00:00")


def _setting(agent: Agent, name: str, default: str) -> str:
    """One of the agent's settings for this dialect."""
    value = agent.spec.extra.get(DIALECT, {}).get(name, default)
    return value if isinstance(value, str) else default


def _type(agent: Agent) -> str:
    value = _setting(agent, "type", "ChatBot")
    return value if value in TYPES else "ChatBot"


def suggests_replies(agent: Agent) -> bool:
    return _setting(agent, "openSuggest", "Open") == "Open"


def _icon(agent: Agent, request: Request) -> str:
    return agent.spec.icon or f"{request.base_url.rstrip('/')}/api/logo/agent/{quote(agent.name[:16], safe='')}"


def agent_detail(agent: Agent, request: Request) -> AgentDetail:
    return AgentDetail(
        space_id=None,
        creator_id=None,
        agent_id=agent.id,
        uid=agent.uid.hex,
        type=_type(agent),
        sub_type=_setting(agent, "subType", "ChatBot"),
        name=agent.name,
        description=agent.spec.description,
        icon=_icon(agent, request),
        remark=None,
        publish_date=timestamp(agent.modified),
        statistics=None,
        publish_user=None,
        collect=False,
        category=None,
        open_suggest="Open" if suggests_replies(agent) else "Close",
        opening_chat_msg=agent.spec.opening_message,
        opening_guid_questions=list(agent.spec.suggested_questions),
        guid_question_dtos=[],
        open_scheduled_task="Close",
        variables=[],
        share_link=None,
        manual_components=[],
        allow_copy=None,
        conversation_id=None,
        sandbox_id=None,
        has_permission=True,
        expand_page_area=None,
        hide_chat_area=None,
        hide_desktop=None,
        allow_other_model=None,
        allow_at_skill=None,
        allow_private_sandbox=None,
        allow_choose_mode=None,
        enable_version_control=None,
        page_home_index=None,
        custom_page_menus=[],
        event_bind_config=None,
        payment_required=False,
        trial_count=None,
        called_trial_count=None,
        subscribed=False,
        over_call_limit=False,
        show_publish_btn=False,
    )


# Conversations ------------------------------------------------------------------------------------------------------


def conversation_dto(
    conversation: Conversation,
    agent: Agent,
    request: Request,
    *,
    messages: list[ChatMessageDto] | None = None,
    in_list: bool = False,
) -> ConversationDto:
    """A conversation; in a list, it has no variables."""
    chinese = prefers_chinese(request)
    default_topic = f"和{agent.name}开始会话" if chinese else f"Start conversation with {agent.name}"
    return ConversationDto(
        id=conversation.id,
        tenant_id=TENANT,
        user_id=conversation.user,
        uid=conversation.uid.hex,
        agent_id=conversation.agent,
        topic=default_topic if conversation.title is None else conversation.title,
        summary=conversation.summary,
        icon=conversation.icon,
        variables=None if in_list else conversation.variables,
        modified=timestamp(conversation.modified),
        created=timestamp(conversation.created),
        agent=AgentSummary(
            agent_id=agent.id,
            name=agent.name,
            type=_type(agent),
            icon=_icon(agent, request),
            publish_date=timestamp(agent.modified),
        ),
        message_list=messages,
        type="Chat",
        task_id=None,
        task_status=_task_status(conversation),
        task_cron=None,
        task_cron_desc="",
        dev_mode=0,
        topic_updated=int(conversation.title is not None),
        sandbox_server_id=None,
        sandbox_session_id=None,
        dev_space_id=None,
        dev_target_type=None,
        dev_target_id=None,
        shared_uris=None,
    )


def _task_status(conversation: Conversation) -> TaskStatus:
    if conversation.working:
        return "EXECUTING"
    match conversation.last_status:
        case None:
            return "CREATE"
        case Status.FAILED:
            return "FAILED"
        case Status.COMPLETE | Status.STOPPED | Status.INTERRUPTED | Status.LIVE:
            return "COMPLETE"


# Messages -----------------------------------------------------------------------------------------------------------


def message_dto(message: Message, conversation: Conversation, request: Request) -> ChatMessageDto:
    is_answer = message.role == "assistant"
    role: Role = "ASSISTANT" if is_answer else "USER"
    return ChatMessageDto(
        index=message.id,
        tenant_id=TENANT,
        sender_type="AGENT" if is_answer else "USER",
        sender_id=str(conversation.agent if is_answer else conversation.user),
        user_id=conversation.user,
        agent_id=conversation.agent,
        id=message.uid.hex,
        role=role,
        type="CHAT",
        text=display_text(message),
        time=timestamp(message.created),
        attachments=[_attachment(file, request) for file in message.files],
        think=message.thinking or None,
        quoted_text=None,
        finished=not is_answer or message.ended is not None,
        finish_reason=None if message.ended is None or not is_answer else finish_reason(message.ended),
        component_executed_list=finished_steps(message.parts),
        metadata=None,
        message_type=role,
    )


def opening_dto(agent: Agent, conversation: Conversation, time: str) -> ChatMessageDto:
    """The agent's opening message, which precedes all others."""
    return ChatMessageDto(
        index=None,
        tenant_id=TENANT,
        sender_type="AGENT",
        sender_id=str(agent.id),
        user_id=conversation.user,
        agent_id=agent.id,
        id=None,
        role="ASSISTANT",
        type="CHAT",
        text=agent.spec.opening_message,
        time=time,
        attachments=[],
        think=None,
        quoted_text=None,
        finished=True,
        finish_reason=None,
        component_executed_list=[],
        metadata=None,
        message_type="ASSISTANT",
    )


def display_text(message: Message) -> str:
    """The text that a page renders: with the steps in their places, or the error of an answer that failed without
    text."""
    failed = message.ended is not None and message.ended.status.failed
    text = text_with_steps(message.parts)
    return text + code_block(UNFORESEEN) if failed and not message.text else text


def is_external(file: File) -> bool:
    """Whether the file was attached by the URL of another server."""
    return file.ref.startswith(("http://", "https://"))


def _attachment(file: File, request: Request) -> AttachmentDto:
    external = is_external(file)
    return AttachmentDto(
        file_key=None if external else file.ref,
        file_url=file.ref if external else _url(file.ref, request),
        file_name=file.name,
        mime_type=file.media_type,
    )


# Files --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """A conversation's file, with its unique name in the conversation."""

    name: str
    file: File


def named_files(attachments: Iterable[File]) -> list[NamedFile]:
    """The files of a conversation, without duplicates; the second one with the same name is ``a (2).txt``."""
    files: dict[str, File] = {}
    for file in attachments:
        files.setdefault(file.ref, file)
    names: set[str] = set()
    named: list[NamedFile] = []
    for file in files.values():
        name = _unique_name(_base_name(file), names)
        names.add(name)
        named.append(NamedFile(name=name, file=file))
    return named


def _base_name(file: File) -> str:
    name = file.name or file.ref.rsplit("/", 1)[-1]
    return name if name.strip(". ") else "file"


def _unique_name(name: str, taken: set[str]) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    number = 1
    while name in taken:
        number += 1
        name = f"{stem} ({number}){dot}{extension}"
    return name


def file_item(named: NamedFile, conversation: Conversation) -> FileItem:
    return FileItem(
        file_id=named.file.ref,
        name=named.name,
        binary=_TEXTUAL.match(named.file.media_type) is None,
        size_exceeded=False,
        contents="",
        file_proxy_url=f"/api/v1/chat/{conversation.id}/file/{quote(named.name, safe='')}",
        is_dir=False,
        is_link=False,
    )


def file_record(file: StoredFile, request: Request) -> FileRecord:
    """An uploaded file."""
    _, dot, extension = file.key.rsplit("/", 1)[-1].rpartition(".")
    created = timestamp(file.created)
    return FileRecord(
        id=file.id,
        tenant_id=TENANT,
        user_id=file.user,
        target_type=file.details["targetType"],
        target_id=file.details["targetId"],
        file_name=file.name,
        size=file.size,
        mime_type=file.media_type,
        file_extension=extension if dot else "",
        metadata=file.details["metadata"],
        key=file.key,
        storage_type="local",
        url=_url(file.key, request),
        auth_required=True,
        status="active",
        created=created,
        modified=created,
    )


def _url(key: str, request: Request) -> str:
    return f"{request.base_url.rstrip('/')}{STORED_FILES}{quote(key)}"
