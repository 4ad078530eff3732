"""What callers get to see: members in the vendor's order, nulls written.

Source: the vendor's page, and the wire specification ``xspace.md``, section 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from palaver.core.types import Agent, Conversation, File, Message, Status, StoredFile
from palaver.dialects.xspace.errors import UNFORESEEN, speaks_chinese
from palaver.dialects.xspace.stream import fenced, finish_reason
from palaver.dialects.xspace.tool_steps import finished_steps, text_with_steps
from palaver.wire.contract import Request

TENANT = 1
DIALECT = "xspace"
TYPES = frozenset(("ChatBot", "TaskAgent", "PageApp"))
_TEXTUAL = re.compile(r"text/|application/(?:json|xml|yaml|javascript)\b|[^/]+/[^/;]+\+(?:json|xml)\b")


def moment(at: datetime) -> str:
    """UTC, whole seconds, the offset in figures."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+00:00")


def own(agent: Agent, name: str, default: str) -> str:
    """What the agent says for this dialect alone."""
    value = agent.spec.extra.get(DIALECT, {}).get(name, default)
    return value if isinstance(value, str) else default


def agent_type(agent: Agent) -> str:
    named = own(agent, "type", "ChatBot")
    return named if named in TYPES else "ChatBot"


def suggests(agent: Agent) -> bool:
    return own(agent, "openSuggest", "Open") == "Open"


def icon(agent: Agent, request: Request) -> str:
    return agent.spec.icon or f"{request.base_url.rstrip('/')}/api/logo/agent/{quote(agent.name[:16], safe='')}"


def agent_in_short(agent: Agent, request: Request) -> dict[str, Any]:
    return {
        "agentId": agent.id,
        "name": agent.name,
        "type": agent_type(agent),
        "icon": icon(agent, request),
        "publishDate": moment(agent.modified),
    }


def conversation_dto(
    conversation: Conversation,
    agent: Agent,
    request: Request,
    *,
    messages: Sequence[Any] | None = None,
    listed: bool = False,
) -> dict[str, Any]:
    """A ConversationDto; one of a list has no variables."""
    chinese = speaks_chinese(request)
    untitled = f"和{agent.name}开始会话" if chinese else f"Start conversation with {agent.name}"
    return {
        "id": conversation.id,
        "tenantId": TENANT,
        "userId": conversation.user,
        "uid": conversation.uid.hex,
        "agentId": conversation.agent,
        "topic": untitled if conversation.title is None else conversation.title,
        "summary": conversation.summary,
        "icon": conversation.icon,
        "variables": None if listed else conversation.variables,
        "modified": moment(conversation.modified),
        "created": moment(conversation.created),
        "agent": agent_in_short(agent, request),
        "messageList": messages,
        "type": "Chat",
        "taskId": None,
        "taskStatus": task_status(conversation),
        "taskCron": None,
        "taskCronDesc": "",
        "devMode": 0,
        "topicUpdated": int(conversation.title is not None),
        "sandboxServerId": None,
        "sandboxSessionId": None,
        "devSpaceId": None,
        "devTargetType": None,
        "devTargetId": None,
        "sharedUris": None,
    }


def task_status(conversation: Conversation) -> str:
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


def message_dto(message: Message, conversation: Conversation, request: Request) -> dict[str, Any]:
    """A ChatMessageDto."""
    answer = message.role == "assistant"
    role = "ASSISTANT" if answer else "USER"
    return {
        "index": message.id,
        "tenantId": TENANT,
        "senderType": "AGENT" if answer else "USER",
        "senderId": str(conversation.agent if answer else conversation.user),
        "userId": conversation.user,
        "agentId": conversation.agent,
        "id": message.uid.hex,
        "role": role,
        "type": "CHAT",
        "text": display_text(message),
        "time": moment(message.created),
        "attachments": [attachment(file, request) for file in message.files],
        "think": message.thinking or None,
        "quotedText": None,
        "finished": not answer or message.ended is not None,
        "finishReason": None if message.ended is None or not answer else finish_reason(message.ended),
        "componentExecutedList": finished_steps(message.parts),
        "metadata": None,
        "messageType": role,
    }


def opening_dto(agent: Agent, conversation: Conversation, at: str) -> dict[str, Any]:
    """The agent's opening text as the message that stands before all others."""
    return {
        "index": None,
        "tenantId": TENANT,
        "senderType": "AGENT",
        "senderId": str(agent.id),
        "userId": conversation.user,
        "agentId": agent.id,
        "id": None,
        "role": "ASSISTANT",
        "type": "CHAT",
        "text": agent.spec.opening_message,
        "time": at,
        "attachments": [],
        "think": None,
        "quotedText": None,
        "finished": True,
        "finishReason": None,
        "componentExecutedList": [],
        "metadata": None,
        "messageType": "ASSISTANT",
    }


def display_text(message: Message) -> str:
    """The text as a page is to draw it: with the steps in their places, and a failure before the first word."""
    failed = message.ended is not None and message.ended.status.failed
    text = text_with_steps(message.parts)
    return text + fenced(UNFORESEEN) if failed and not message.text else text


def is_elsewhere(part: File) -> bool:
    """Whether a message attaches it by an address that is not this server's."""
    return part.ref.startswith(("http://", "https://"))


def attachment(part: File, request: Request) -> dict[str, Any]:
    external = is_elsewhere(part)
    return {
        "fileKey": None if external else part.ref,
        "fileUrl": part.ref if external else stored_address(part.ref, request),
        "fileName": part.name,
        "mimeType": part.media_type,
    }


# Files --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """A conversation's file under the name it has there."""

    name: str
    file: File


def named_files(attached: Iterable[File]) -> list[NamedFile]:
    """The files of a conversation, each once; a second one of a name is called ``a (2).txt``."""
    files: dict[str, File] = {}
    for file in attached:
        files.setdefault(file.ref, file)
    taken: set[str] = set()
    conversation: list[NamedFile] = []
    for file in files.values():
        name = _free(_plain(file), taken)
        taken.add(name)
        conversation.append(NamedFile(name=name, file=file))
    return conversation


def _plain(file: File) -> str:
    name = file.name or file.ref.rsplit("/", 1)[-1]
    return name if name.strip(". ") else "file"


def _free(name: str, taken: set[str]) -> str:
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    number = 1
    while name in taken:
        number += 1
        name = f"{stem} ({number}){dot}{ending}"
    return name


def file_item(named: NamedFile, conversation: Conversation) -> dict[str, Any]:
    return {
        "fileId": named.file.ref,
        "name": named.name,
        "binary": _TEXTUAL.match(named.file.media_type) is None,
        "sizeExceeded": False,
        "contents": "",
        "fileProxyUrl": f"/api/v1/chat/{conversation.id}/file/{quote(named.name, safe='')}",
        "isDir": False,
        "isLink": False,
    }


def stored_address(key: str, request: Request) -> str:
    return f"{request.base_url.rstrip('/')}/api/f/{quote(key)}"


def file_record(stored: StoredFile, request: Request) -> dict[str, Any]:
    """A FileRecordVO."""
    _, dot, ending = stored.key.rsplit("/", 1)[-1].rpartition(".")
    at = moment(stored.created)
    return {
        "id": stored.id,
        "tenantId": TENANT,
        "userId": stored.user,
        "targetType": stored.details.get("targetType"),
        "targetId": stored.details.get("targetId"),
        "fileName": stored.name,
        "size": stored.size,
        "mimeType": stored.media_type,
        "fileExtension": ending if dot else "",
        "metadata": stored.details.get("metadata"),
        "key": stored.key,
        "storageType": "local",
        "url": stored_address(stored.key, request),
        "authRequired": True,
        "status": "active",
        "created": at,
        "modified": at,
    }


# The bound agent ----------------------------------------------------------------------------------------------------


def agent_detail(agent: Agent, request: Request) -> dict[str, Any]:
    """An AgentDetailDto: what palaver has no value for is null."""
    kind = agent_type(agent)
    known: dict[str, Any] = {
        "agentId": agent.id,
        "uid": agent.uid.hex,
        "type": kind,
        "subType": own(agent, "subType", "ChatBot"),
        "name": agent.name,
        "description": agent.spec.description,
        "icon": icon(agent, request),
        "publishDate": moment(agent.modified),
        "openSuggest": "Open" if suggests(agent) else "Close",
        "openingChatMsg": agent.spec.opening_message,
        "openingGuidQuestions": list(agent.spec.suggested_questions),
        "openScheduledTask": "Close",
        "hasPermission": True,
    }
    known |= dict.fromkeys(("collect", "paymentRequired", "subscribed", "overCallLimit", "showPublishBtn"), False)
    known |= {name: list[Any]() for name in _LISTS}
    return {name: known.get(name) for name in _DETAIL}


_LISTS: Sequence[str] = ("guidQuestionDtos", "variables", "manualComponents", "customPageMenus")
_DETAIL: Sequence[str] = (
    "spaceId",
    "creatorId",
    "agentId",
    "uid",
    "type",
    "subType",
    "name",
    "description",
    "icon",
    "remark",
    "publishDate",
    "statistics",
    "publishUser",
    "collect",
    "category",
    "openSuggest",
    "openingChatMsg",
    "openingGuidQuestions",
    "guidQuestionDtos",
    "openScheduledTask",
    "variables",
    "shareLink",
    "manualComponents",
    "allowCopy",
    "conversationId",
    "sandboxId",
    "hasPermission",
    "expandPageArea",
    "hideChatArea",
    "hideDesktop",
    "allowOtherModel",
    "allowAtSkill",
    "allowPrivateSandbox",
    "allowChooseMode",
    "enableVersionControl",
    "pageHomeIndex",
    "customPageMenus",
    "eventBindConfig",
    "paymentRequired",
    "trialCount",
    "calledTrialCount",
    "subscribed",
    "overCallLimit",
    "showPublishBtn",
)
