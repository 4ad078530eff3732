"""Response bodies: agents, conversations, messages and files. Source: ``docs/native.md``, section 4."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar, assert_never, cast

import msgspec

from palaver.core.events import Draft
from palaver.core.problems import AnyProblem
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    File,
    Message,
    RunEnded,
    StoredFile,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Variable,
)
from palaver.dialects.native.errors import ProblemDocument, ResponseModel, problem_document
from palaver.wire.contract import ResponseType
from palaver.wire.responses import JSONValue, json_response

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Agents, conversations, files ---------------------------------------------------------------------------------------


class AgentRef(ResponseModel, frozen=True, kw_only=True):
    id: int
    uid: str
    name: str


class AgentResponse(AgentRef, frozen=True, kw_only=True):
    aliases: tuple[str, ...]
    description: str
    icon: str | None
    opening_message: str
    suggested_questions: tuple[str, ...]
    variables: tuple[Variable, ...]
    created: str
    modified: str


class ConversationRef(ResponseModel, frozen=True, kw_only=True):
    id: int
    uid: str


class ConversationResponse(ConversationRef, frozen=True, kw_only=True):
    alias: str | None
    agent: AgentRef
    title: str | None
    opening: str
    variables: dict[str, Any]
    working: bool
    created: str
    modified: str


class FileResponse(ResponseModel, frozen=True, kw_only=True):
    """An uploaded file; ``size`` is in bytes."""

    id: int
    uid: str
    key: str
    name: str
    media_type: str
    size: int
    created: str


# Parts --------------------------------------------------------------------------------------------------------------


class TextPartResponse(ResponseModel, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ThinkingPartResponse(ResponseModel, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    text: str


class ToolCallResponse(ResponseModel, frozen=True, kw_only=True, tag_field="type", tag="tool_call"):
    call_id: str
    name: str
    arguments: dict[str, Any]
    at: str | None


class ToolResultResponse(ResponseModel, frozen=True, kw_only=True, tag_field="type", tag="tool_result"):
    call_id: str
    name: str
    content: str
    data: Any
    error: bool
    at: str | None


class FilePartResponse(ResponseModel, frozen=True, kw_only=True, tag_field="type", tag="file"):
    file: str
    name: str
    media_type: str
    problem: str | msgspec.UnsetType = msgspec.UNSET


PartResponse = TextPartResponse | ThinkingPartResponse | ToolCallResponse | ToolResultResponse | FilePartResponse


# Messages -----------------------------------------------------------------------------------------------------------


RunStatus = Literal["waiting", "live", "complete", "stopped", "failed", "interrupted"]


class UsageResponse(ResponseModel, frozen=True, kw_only=True):
    """Numbers of tokens; ``None``: unknown."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class StepCounts(ResponseModel, frozen=True, kw_only=True):
    """Tool calls: how many were started, and how many have a result."""

    begun: int
    done: int


class RunEndResponse(ResponseModel, frozen=True, kw_only=True):
    """How a run ended."""

    status: RunStatus
    reason: str | None
    problem: ProblemDocument | None
    usage: UsageResponse
    ended: str | None


class QuestionResponse(ResponseModel, frozen=True, kw_only=True, tag_field="role", tag="user"):
    id: int
    uid: str
    conversation: str
    created: str
    text: str
    parts: tuple[PartResponse, ...]


class AnswerResponse(ResponseModel, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """A run and its answer so far; also the receipt of a stop."""

    id: int
    uid: str
    conversation: str
    created: str
    text: str
    parts: tuple[PartResponse, ...]
    status: RunStatus
    reason: str | None
    problem: ProblemDocument | None
    usage: UsageResponse
    steps: StepCounts
    position: int
    cursor: int
    ended: str | None


MessageResponse = QuestionResponse | AnswerResponse


class TurnResponse(ResponseModel, frozen=True, kw_only=True):
    """The response to a message. Constant once the run has ended, so that a repeated call gets the same bytes."""

    conversation: ConversationRef
    question: QuestionResponse
    answer: AnswerResponse


# Lists --------------------------------------------------------------------------------------------------------------


class AgentListResponse(ResponseModel, frozen=True, kw_only=True):
    agents: tuple[AgentResponse, ...]


class ConversationListResponse(ResponseModel, frozen=True, kw_only=True):
    """``next`` is the next page's ``after``; ``None`` on the last page."""

    conversations: tuple[ConversationResponse, ...]
    next: str | None


class MessageListResponse(ResponseModel, frozen=True, kw_only=True):
    messages: tuple[MessageResponse, ...]
    more: bool


class StoppedResponse(ResponseModel, frozen=True, kw_only=True):
    stopped: int


class ProblemCode(ResponseModel, frozen=True, kw_only=True):
    code: str
    status: int
    title: str
    meaning: str


class ProblemCodesResponse(ResponseModel, frozen=True, kw_only=True):
    problems: tuple[ProblemCode, ...]


def ok_response(shape: type[T]) -> ResponseType[JSONValue[T]]:
    """A ``shape`` as JSON; there is no envelope."""
    return json_response(shape, lambda _request, value: value)


# Conversion --------------------------------------------------------------------------------------------------------


def moment(when: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_of(milliseconds: int) -> str | None:
    """``moment`` of epoch milliseconds; ``None`` for 0."""
    return moment(_EPOCH + timedelta(milliseconds=milliseconds)) if milliseconds else None


def agent_response(agent: Agent) -> AgentResponse:
    spec = agent.spec
    return AgentResponse(
        id=agent.id,
        uid=agent.uid.hex,
        name=spec.name,
        aliases=spec.alias,
        description=spec.description,
        icon=spec.icon,
        opening_message=spec.opening_message,
        suggested_questions=spec.suggested_questions,
        variables=spec.variables,
        created=moment(agent.created),
        modified=moment(agent.modified),
    )


def conversation_response(conversation: Conversation, agent: Agent) -> ConversationResponse:
    return ConversationResponse(
        id=conversation.id,
        uid=conversation.uid.hex,
        alias=conversation.alias,
        agent=AgentRef(id=agent.id, uid=agent.uid.hex, name=agent.name),
        title=conversation.title,
        opening=conversation.opening,
        variables=conversation.variables or {},
        working=conversation.working,
        created=moment(conversation.created),
        modified=moment(conversation.modified),
    )


def file_response(file: StoredFile) -> FileResponse:
    return FileResponse(
        id=file.id,
        uid=file.uid.hex,
        key=file.key,
        name=file.name,
        media_type=file.media_type,
        size=file.size,
        created=moment(file.created),
    )


def part_response(part: AnyPart) -> PartResponse:
    """The part without ``provider_data``, which is only for the model's endpoint."""
    match part:
        case Text(text=text):
            return TextPartResponse(text=text)
        case Thinking(text=text):
            return ThinkingPartResponse(text=text)
        case ToolCall():
            return ToolCallResponse(
                call_id=part.call_id, name=part.name, arguments=part.arguments, at=moment_of(part.at)
            )
        case ToolResult():
            return ToolResultResponse(
                call_id=part.call_id,
                name=part.name,
                content=part.content,
                data=part.data,
                error=part.error,
                at=moment_of(part.at),
            )
        case File():
            return FilePartResponse(
                file=part.ref, name=part.name, media_type=part.media_type, problem=part.problem or msgspec.UNSET
            )
        case _:
            assert_never(part)


def _unended(message: Message) -> RunEndResponse:
    status: RunStatus = "waiting" if message.waiting else "live"
    return RunEndResponse(status=status, reason=None, problem=None, usage=UsageResponse(), ended=None)


def run_end_response(ended: RunEnded) -> RunEndResponse:
    return RunEndResponse(
        status=ended.status.value,
        reason=ended.reason,
        problem=None if ended.problem is None else problem_document(cast("AnyProblem", ended.problem)),
        usage=UsageResponse(prompt_tokens=ended.usage.prompt, completion_tokens=ended.usage.completion),
        ended=moment_of(ended.at),
    )


def message_response(message: Message, conversation: Conversation) -> MessageResponse:
    return (question_response if message.role == "user" else answer_response)(message, conversation)


def question_response(message: Message, conversation: Conversation) -> QuestionResponse:
    return QuestionResponse(
        id=message.id,
        uid=message.uid.hex,
        conversation=conversation.uid.hex,
        created=moment(message.created),
        text=message.text,
        parts=tuple(map(part_response, message.parts)),
    )


def answer_response(message: Message, conversation: Conversation) -> AnswerResponse:
    ended = message.ended
    end = _unended(message) if ended is None else run_end_response(ended)
    return AnswerResponse(
        id=message.id,
        uid=message.uid.hex,
        conversation=conversation.uid.hex,
        created=moment(message.created),
        text=message.text,
        parts=tuple(map(part_response, message.parts)),
        status=end.status,
        reason=end.reason,
        problem=end.problem,
        usage=end.usage,
        steps=StepCounts(
            begun=sum(isinstance(part, ToolCall) for part in message.parts),
            done=sum(isinstance(part, ToolResult) for part in message.parts),
        ),
        position=len(message.text),
        cursor=Draft(message.parts, ended).steps,
        ended=end.ended,
    )
