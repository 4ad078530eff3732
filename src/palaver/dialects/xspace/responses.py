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
from palaver.dialects.xspace.tool_steps import finished, text_with_steps
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


def icon(agent: Agent, call: Request) -> str:
    return agent.spec.icon or f"{call.origin.rstrip('/')}/api/logo/agent/{quote(agent.name[:16], safe='')}"


def agent_in_short(agent: Agent, call: Request) -> dict[str, Any]:
    return {
        "agentId": agent.id,
        "name": agent.name,
        "type": agent_type(agent),
        "icon": icon(agent, call),
        "publishDate": moment(agent.modified),
    }


def conversation_dto(
    found: Conversation,
    agent: Agent,
    call: Request,
    *,
    messages: Sequence[Any] | None = None,
    listed: bool = False,
) -> dict[str, Any]:
    """A ConversationDto; one of a list has no variables."""
    chinese = speaks_chinese(call)
    untitled = f"和{agent.name}开始会话" if chinese else f"Start conversation with {agent.name}"
    return {
        "id": found.id,
        "tenantId": TENANT,
        "userId": found.user,
        "uid": found.uid.hex,
        "agentId": found.agent,
        "topic": untitled if found.title is None else found.title,
        "summary": found.summary,
        "icon": found.icon,
        "variables": None if listed else found.variables,
        "modified": moment(found.modified),
        "created": moment(found.created),
        "agent": agent_in_short(agent, call),
        "messageList": messages,
        "type": "Chat",
        "taskId": None,
        "taskStatus": task_status(found),
        "taskCron": None,
        "taskCronDesc": "",
        "devMode": 0,
        "topicUpdated": int(found.title is not None),
        "sandboxServerId": None,
        "sandboxSessionId": None,
        "devSpaceId": None,
        "devTargetType": None,
        "devTargetId": None,
        "sharedUris": None,
    }


def task_status(found: Conversation) -> str:
    if found.working:
        return "EXECUTING"
    match found.last_status:
        case None:
            return "CREATE"
        case Status.FAILED:
            return "FAILED"
        case Status.COMPLETE | Status.STOPPED | Status.INTERRUPTED | Status.LIVE:
            return "COMPLETE"


# Messages -----------------------------------------------------------------------------------------------------------


def message_dto(said: Message, found: Conversation, call: Request) -> dict[str, Any]:
    """A ChatMessageDto."""
    answer = said.role == "assistant"
    role = "ASSISTANT" if answer else "USER"
    return {
        "index": said.id,
        "tenantId": TENANT,
        "senderType": "AGENT" if answer else "USER",
        "senderId": str(found.agent if answer else found.user),
        "userId": found.user,
        "agentId": found.agent,
        "id": said.uid.hex,
        "role": role,
        "type": "CHAT",
        "text": shown_text(said),
        "time": moment(said.created),
        "attachments": [attachment(file, call) for file in said.files],
        "think": said.thinking or None,
        "quotedText": None,
        "finished": not answer or said.ended is not None,
        "finishReason": None if said.ended is None or not answer else finish_reason(said.ended),
        "componentExecutedList": finished(said.parts),
        "metadata": None,
        "messageType": role,
    }


def opening_dto(agent: Agent, found: Conversation, at: str) -> dict[str, Any]:
    """The agent's opening text as the message that stands before all others."""
    return {
        "index": None,
        "tenantId": TENANT,
        "senderType": "AGENT",
        "senderId": str(agent.id),
        "userId": found.user,
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


def shown_text(said: Message) -> str:
    """The text as a page is to draw it: with the steps in their places, and a failure before the first word."""
    failed = said.ended is not None and said.ended.status.failed
    text = text_with_steps(said.parts)
    return text + fenced(UNFORESEEN) if failed and not said.text else text


def is_elsewhere(part: File) -> bool:
    """Whether a message attaches it by an address that is not this server's."""
    return part.ref.startswith(("http://", "https://"))


def attachment(part: File, call: Request) -> dict[str, Any]:
    external = is_elsewhere(part)
    return {
        "fileKey": None if external else part.ref,
        "fileUrl": part.ref if external else stored_address(part.ref, call),
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
    found: list[NamedFile] = []
    for file in files.values():
        name = _free(_plain(file), taken)
        taken.add(name)
        found.append(NamedFile(name=name, file=file))
    return found


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


def file_item(named: NamedFile, found: Conversation) -> dict[str, Any]:
    return {
        "fileId": named.file.ref,
        "name": named.name,
        "binary": _TEXTUAL.match(named.file.media_type) is None,
        "sizeExceeded": False,
        "contents": "",
        "fileProxyUrl": f"/api/v1/chat/{found.id}/file/{quote(named.name, safe='')}",
        "isDir": False,
        "isLink": False,
    }


def stored_address(key: str, call: Request) -> str:
    return f"{call.origin.rstrip('/')}/api/f/{quote(key)}"


def file_record(stored: StoredFile, call: Request) -> dict[str, Any]:
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
        "url": stored_address(stored.key, call),
        "authRequired": True,
        "status": "active",
        "created": at,
        "modified": at,
    }


# The bound agent ----------------------------------------------------------------------------------------------------


def agent_detail(agent: Agent, call: Request) -> dict[str, Any]:
    """An AgentDetailDto: what palaver has no value for is null."""
    kind = agent_type(agent)
    known: dict[str, Any] = {
        "agentId": agent.id,
        "uid": agent.uid.hex,
        "type": kind,
        "subType": own(agent, "subType", "ChatBot"),
        "name": agent.name,
        "description": agent.spec.description,
        "icon": icon(agent, call),
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
