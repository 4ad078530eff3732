"""What callers are shown of agents, conversations, messages and files. Source: ``docs/native.md``, section 4."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_never, cast

import msgspec

from palaver.core.events import Draft
from palaver.core.problems import AnyProblem
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    Ended,
    File,
    Message,
    StoredFile,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Variable,
)
from palaver.dialects.native.words import ProblemShown, Shown, problem_shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Agents, conversations, files ---------------------------------------------------------------------------------------


class AgentNamed(Shown, frozen=True, kw_only=True):
    id: int
    uid: str
    name: str


class AgentShown(AgentNamed, frozen=True, kw_only=True):
    aliases: tuple[str, ...]
    description: str
    icon: str | None
    opening_message: str
    suggested_questions: tuple[str, ...]
    variables: tuple[Variable, ...]
    created: str
    modified: str


class ConversationNamed(Shown, frozen=True, kw_only=True):
    id: int
    uid: str


class ConversationShown(ConversationNamed, frozen=True, kw_only=True):
    alias: str | None
    agent: AgentNamed
    title: str | None
    opening: str
    variables: dict[str, Any]
    working: bool
    created: str
    modified: str


class FileShown(Shown, frozen=True, kw_only=True):
    """An uploaded file; ``size`` is in bytes."""

    id: int
    uid: str
    key: str
    name: str
    media_type: str
    size: int
    created: str


# Parts --------------------------------------------------------------------------------------------------------------


class TextShown(Shown, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ThinkingShown(Shown, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    text: str


class CallShown(Shown, frozen=True, kw_only=True, tag_field="type", tag="tool_call"):
    call_id: str
    name: str
    arguments: dict[str, Any]
    at: str | None


class ResultShown(Shown, frozen=True, kw_only=True, tag_field="type", tag="tool_result"):
    call_id: str
    name: str
    content: str
    data: Any
    error: bool
    at: str | None


class AttachedShown(Shown, frozen=True, kw_only=True, tag_field="type", tag="file"):
    file: str
    name: str
    media_type: str
    problem: str | msgspec.UnsetType = msgspec.UNSET


PartShown = TextShown | ThinkingShown | CallShown | ResultShown | AttachedShown


# Messages -----------------------------------------------------------------------------------------------------------


StatusShown = Literal["waiting", "live", "complete", "stopped", "failed", "interrupted"]


class UsageShown(Shown, frozen=True, kw_only=True):
    """Tokens; ``None`` is unknown."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class StepsShown(Shown, frozen=True, kw_only=True):
    """Calls of tools: how many were begun, how many came to their result."""

    begun: int
    done: int


class EndShown(Shown, frozen=True, kw_only=True):
    """How a run ended."""

    status: StatusShown
    reason: str | None
    problem: ProblemShown | None
    usage: UsageShown
    ended: str | None


class QuestionShown(Shown, frozen=True, kw_only=True, tag_field="role", tag="user"):
    id: int
    uid: str
    conversation: str
    created: str
    text: str
    parts: tuple[PartShown, ...]


class AnswerShown(Shown, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """A run and what it wrote so far: the receipt of a stop as well."""

    id: int
    uid: str
    conversation: str
    created: str
    text: str
    parts: tuple[PartShown, ...]
    status: StatusShown
    reason: str | None
    problem: ProblemShown | None
    usage: UsageShown
    steps: StepsShown
    position: int
    cursor: int
    ended: str | None


MessageShown = QuestionShown | AnswerShown


class SentShown(Shown, frozen=True, kw_only=True):
    """What a call that sends a message answers: nothing of it changes once the run has ended, so that a repeated call
    is answered byte for byte."""

    conversation: ConversationNamed
    question: QuestionShown
    answer: AnswerShown


# Lists --------------------------------------------------------------------------------------------------------------


class AgentsShown(Shown, frozen=True, kw_only=True):
    agents: tuple[AgentShown, ...]


class ConversationsShown(Shown, frozen=True, kw_only=True):
    """``next`` is what to give as ``after`` for the next page; ``None`` on the last one."""

    conversations: tuple[ConversationShown, ...]
    next: str | None


class MessagesShown(Shown, frozen=True, kw_only=True):
    messages: tuple[MessageShown, ...]
    more: bool


class StoppedShown(Shown, frozen=True, kw_only=True):
    stopped: int


class CodeShown(Shown, frozen=True, kw_only=True):
    code: str
    status: int
    title: str
    meaning: str


class CodesShown(Shown, frozen=True, kw_only=True):
    problems: tuple[CodeShown, ...]


# From core's values -------------------------------------------------------------------------------------------------


def moment(when: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_of(milliseconds: int) -> str | None:
    """The same of epoch milliseconds; 0 is no moment."""
    return moment(_EPOCH + timedelta(milliseconds=milliseconds)) if milliseconds else None


def agent_shown(agent: Agent) -> AgentShown:
    spec = agent.spec
    return AgentShown(
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


def conversation_shown(conversation: Conversation, agent: Agent) -> ConversationShown:
    return ConversationShown(
        id=conversation.id,
        uid=conversation.uid.hex,
        alias=conversation.alias,
        agent=AgentNamed(id=agent.id, uid=agent.uid.hex, name=agent.name),
        title=conversation.title,
        opening=conversation.opening,
        variables=conversation.variables or {},
        working=conversation.working,
        created=moment(conversation.created),
        modified=moment(conversation.modified),
    )


def file_shown(file: StoredFile) -> FileShown:
    return FileShown(
        id=file.id,
        uid=file.uid.hex,
        key=file.key,
        name=file.name,
        media_type=file.media_type,
        size=file.size,
        created=moment(file.created),
    )


def part_shown(part: AnyPart) -> PartShown:
    """A part without ``provider_data``, which is between palaver and the model's endpoint."""
    match part:
        case Text(text=text):
            return TextShown(text=text)
        case Thinking(text=text):
            return ThinkingShown(text=text)
        case ToolCall():
            return CallShown(call_id=part.call_id, name=part.name, arguments=part.arguments, at=moment_of(part.at))
        case ToolResult():
            return ResultShown(
                call_id=part.call_id,
                name=part.name,
                content=part.content,
                data=part.data,
                error=part.error,
                at=moment_of(part.at),
            )
        case File():
            return AttachedShown(
                file=part.ref, name=part.name, media_type=part.media_type, problem=part.problem or msgspec.UNSET
            )
        case _:
            assert_never(part)


def _unended(message: Message) -> EndShown:
    status: StatusShown = "waiting" if message.waiting else "live"
    return EndShown(status=status, reason=None, problem=None, usage=UsageShown(), ended=None)


def end_shown(ended: Ended) -> EndShown:
    return EndShown(
        status=ended.status.value,
        reason=ended.reason,
        problem=None if ended.problem is None else problem_shown(cast("AnyProblem", ended.problem)),
        usage=UsageShown(prompt_tokens=ended.usage.prompt, completion_tokens=ended.usage.completion),
        ended=moment_of(ended.at),
    )


def message_shown(message: Message, conversation: Conversation) -> MessageShown:
    return (question_shown if message.role == "user" else answer_shown)(message, conversation)


def question_shown(message: Message, conversation: Conversation) -> QuestionShown:
    return QuestionShown(
        id=message.id,
        uid=message.uid.hex,
        conversation=conversation.uid.hex,
        created=moment(message.created),
        text=message.text,
        parts=tuple(map(part_shown, message.parts)),
    )


def answer_shown(message: Message, conversation: Conversation) -> AnswerShown:
    ended = message.ended
    end = _unended(message) if ended is None else end_shown(ended)
    return AnswerShown(
        id=message.id,
        uid=message.uid.hex,
        conversation=conversation.uid.hex,
        created=moment(message.created),
        text=message.text,
        parts=tuple(map(part_shown, message.parts)),
        status=end.status,
        reason=end.reason,
        problem=end.problem,
        usage=end.usage,
        steps=StepsShown(
            begun=sum(isinstance(part, ToolCall) for part in message.parts),
            done=sum(isinstance(part, ToolResult) for part in message.parts),
        ),
        position=len(message.text),
        cursor=Draft(message.parts, ended).steps,
        ended=end.ended,
    )
