"""One turn: assemble the request, call the model, run tools, repeat until the final answer. Always streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from palaver.core.attachments import Attachments
from palaver.core.context import HISTORY_BYTES, fill_template, format_passages, history_window
from palaver.core.events import Draft, Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.fetch import Fetcher
from palaver.core.ports.documents import DocumentReader, Knowledge
from palaver.core.ports.models import (
    Attachment,
    ChatModel,
    ContentDelta,
    FinalData,
    ModelMessage,
    ModelRequest,
    Models,
    StepFinished,
    ThinkingDelta,
    ToolCallDelta,
    UsageDelta,
)
from palaver.core.ports.store import RunInput, Store
from palaver.core.ports.tools import Tool, Toolbox, ToolOutput, ToolSpec
from palaver.core.progress import RETRIEVAL_CALL, progress_of, retrieved_passages
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    Message,
    Passage,
    PendingCall,
    RunEnded,
    Status,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    Value,
    clean,
)

MAX_STEPS = 8
"""Maximum number of model calls in one turn. The last call offers no tools."""
PASSAGES = 5
BUILT_IN = "built-in"
"""The model name of palaver's built-in models in metrics."""
SEARCH_TOOL = "knowledge_search"
"""The tool name of retrieval in a message, whether the model or the turn called it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnServices:
    """The ports that a turn uses."""

    store: Store
    models: Models
    knowledge: Knowledge
    documents: DocumentReader
    fetch: Fetcher
    tools: Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContext:
    """The input of a turn. ``variables``: the conversation's and the message's."""

    agent: Agent
    user: int
    conversation: int
    question: Message
    variables: Mapping[str, Any]
    input: RunInput


def turn_context(agent: Agent, conversation: Conversation, question: Message, run_input: RunInput) -> TurnContext:
    return TurnContext(
        agent=agent,
        user=conversation.user,
        conversation=conversation.id,
        question=question,
        variables={**(conversation.variables or {}), **run_input.variables},
        input=run_input,
    )


class StepStarted(Value, frozen=True, kw_only=True):
    """Model call ``number``, counted from 1, is about to be made. The consumer requests the next event once the message
    is stored so far."""

    number: int


class RunPaused(Value, frozen=True, kw_only=True):
    """The turn cannot continue before ``calls`` have results, which come from outside. Always last."""

    calls: tuple[PendingCall, ...]


TurnEvent = Event | StepStarted | RunPaused


class UsageMeter:
    """The token usage of a turn so far, as last reported by the model; valid also if the turn ends early."""

    __slots__ = ("_earlier", "_started", "_step", "first_token_s", "model")

    def __init__(self, earlier: Usage = Usage()) -> None:  # noqa: B008  immutable
        self.model = ""
        """The name of the model; empty before the turn starts, and if the model is not available."""
        self.first_token_s: float | None = None
        """Seconds from the start of the turn to the model's first token, including reasoning."""
        self._started = time.monotonic()
        self._earlier = earlier
        self._step = Usage()

    @property
    def usage(self) -> Usage:
        return self._earlier + self._step

    def report(self, usage: Usage) -> None:
        """Update the usage of the current step; unknown counts keep their last reported value."""
        self._step = self._step.updated(usage)

    def begin(self, model: str) -> None:
        self.model = model
        self._started = time.monotonic()

    def record_first_token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self._started

    def next_step(self) -> None:
        self._earlier, self._step = self.usage, Usage()


class KnowledgeSearchTool:
    """Retrieval as a tool, offered to the model with ``knowledge_mode: tool``."""

    def __init__(self, knowledge: Knowledge, agent: Agent) -> None:
        self._knowledge = knowledge
        self._agent = agent

    spec = ToolSpec(
        name=SEARCH_TOOL,
        description="Search the agent's documents. Returns the best passages, numbered, each with its source.",
        parameters={
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to look for, in the documents' words."}},
            "required": ["query"],
        },
    )

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            return ToolOutput(content="'query' must be a text that is not blank", error=True)
        return search_output(await self._knowledge.search(self._agent.app, self._agent.spec.knowledge, query, PASSAGES))


def search_output(passages: Sequence[Passage]) -> ToolOutput:
    """The tool output of a search: text for the model, and the passages as data."""
    return ToolOutput(
        content=format_passages(passages) or "Nothing was found.",
        data=[msgspec.to_builtins(passage) for passage in passages],
    )


async def run_turn(
    context: TurnContext, ports: TurnServices, meter: UsageMeter, draft: Draft
) -> AsyncGenerator[TurnEvent, None]:
    """The events of one turn; ``RunEnded`` or ``RunPaused`` last. A turn continues from what ``draft`` contains. Raises
    a ``Problem`` if the turn fails. The consumer must apply each event to ``draft`` before it requests the next one:
    only the draft keeps the model's output."""
    spec, given = context.agent.spec, context.input
    model, name = ports.models.chat_model(spec.model, spec.fallback_model)
    meter.begin(name or BUILT_IN)
    earlier = await _earlier_messages(context, ports)
    attachments = await _attachments(context, ports).read(context.question, earlier)
    tools = {tool.spec.name: tool for tool in await _tools(context, ports)}
    if not draft.part_count:
        async for part in _preamble(context, ports, attachments):
            yield PartAdded(part=part)
    parts = draft.parts()
    progress = progress_of(parts)
    if progress.unanswered:
        yield RunPaused(calls=_pending(progress.unanswered))
        return
    request = ModelRequest(
        model=name,
        instructions=_instructions(context),
        history=(*history_window(earlier), ModelMessage(role="user", parts=context.question.parts)),
        tools=(*(tool.spec for tool in tools.values()), *given.caller_tools),
        settings=spec.parameters.overridden_by(given.settings),
        passages=retrieved_passages(parts),
        attachments=attachments,
        variables=dict(context.variables),
        trace=given.trace,
    )
    for number in range(progress.rounds + 1, MAX_STEPS + 1):
        yield StepStarted(number=number)
        step = _Step(meter)
        async with aclosing(step.read(model, _next_request(request, draft, progress.first, number))) as events:
            async for event in events:
                yield event
        if not step.calls or number == MAX_STEPS:
            yield RunEnded(status=Status.COMPLETE, reason=step.reason, usage=meter.usage)
            return
        meter.next_step()
        callers = {tool.name for tool in given.caller_tools} - tools.keys()
        own_calls = [call for call in step.calls if call.name not in callers]
        async with aclosing(_call_all(tools, own_calls)) as results:
            async for result in results:
                yield PartAdded(part=result)
        if len(own_calls) < len(step.calls):
            yield RunPaused(calls=_pending([call for call in step.calls if call.name in callers]))
            return
    raise AssertionError("the last step ends the turn")


def _next_request(request: ModelRequest, draft: Draft, first_part: int, number: int) -> ModelRequest:
    """The request of step ``number``: with what the turn has written so far; the last one offers no tools."""
    if draft.part_count > first_part:
        answer = ModelMessage(role="assistant", parts=draft.snapshot(first_part).parts())
        request = msgspec.structs.replace(request, history=(*request.history, answer))
    return msgspec.structs.replace(request, tools=()) if number == MAX_STEPS else request


async def _earlier_messages(context: TurnContext, ports: TurnServices) -> Sequence[Message]:
    page = await ports.store.conversations.get_messages(
        context.agent.app,
        context.conversation,
        before=context.question.id,
        limit=context.agent.spec.history,
        max_bytes=HISTORY_BYTES,
    )
    return page.messages


async def _preamble(
    context: TurnContext, ports: TurnServices, attachments: Mapping[str, Attachment]
) -> AsyncGenerator[AnyPart, None]:
    """The parts before the model's: files of the question that could not be read, and the retrieval."""
    for part in context.question.files:
        if part.ref in attachments and (problem := attachments[part.ref].missing):
            yield msgspec.structs.replace(part, problem=problem)
    spec = context.agent.spec
    if spec.knowledge and spec.knowledge_mode == "always":
        for part in await _retrieve(context, ports):
            yield part


async def _tools(context: TurnContext, ports: TurnServices) -> list[Tool]:
    agent = context.agent
    tools = list(await ports.tools.open(agent, context.input.disabled_tools))
    if agent.spec.knowledge and agent.spec.knowledge_mode == "tool":
        tools.append(KnowledgeSearchTool(ports.knowledge, agent))
    return tools


def _instructions(context: TurnContext) -> str:
    own = fill_template(context.agent.spec.instructions, context.variables)
    return "\n\n".join(text for text in (own, context.input.instructions) if text)


def _pending(calls: Sequence[ToolCall]) -> tuple[PendingCall, ...]:
    return tuple(
        PendingCall(call_id=call.call_id, tool=call.name, arguments=call.arguments, since=call.at) for call in calls
    )


class _Step:
    """One response of the model: its deltas as events, its tool calls and its finish reason."""

    def __init__(self, meter: UsageMeter) -> None:
        self.calls: list[ToolCall] = []
        self.reason = "stop"
        self._meter = meter
        self._open: type[Text | Thinking] | None = None

    async def read(self, model: ChatModel, request: ModelRequest) -> AsyncGenerator[Event, None]:
        async with aclosing(model.stream(request)) as deltas:
            async for delta in deltas:
                match delta:
                    case ContentDelta(text=text) if text:
                        if self._open is not Text:
                            yield self._begin(Text, None)
                        yield TextDelta(text=clean(text))
                    case ThinkingDelta(text=text, provider_data=provider_data) if text or provider_data:
                        if self._open is not Thinking:
                            yield self._begin(Thinking, provider_data)
                        if text:
                            yield TextDelta(text=clean(text))
                    case FinalData(data=data):
                        if self._open is not None:
                            yield PartFinished(final_data=data)
                        self._open = None
                    case ToolCallDelta(call=call):
                        stamped = msgspec.structs.replace(call, at=_now())
                        self._open = None
                        self.calls.append(stamped)
                        yield PartAdded(part=stamped)
                    case UsageDelta(usage=usage):
                        self._meter.report(usage)
                    case StepFinished(reason=reason, usage=usage):
                        self.reason = reason
                        self._meter.report(usage)
                    case ContentDelta() | ThinkingDelta():  # empty: no event
                        pass

    def _begin(self, kind: type[Text | Thinking], provider_data: dict[str, Any] | None) -> PartStarted:
        self._open = kind
        self._meter.record_first_token()
        return PartStarted(part=kind(provider_data=provider_data))


def _attachments(context: TurnContext, ports: TurnServices) -> Attachments:
    return Attachments(
        store=ports.store,
        fetch=ports.fetch,
        documents=ports.documents,
        app_id=context.agent.app,
        user_id=context.user,
        conversation_id=context.conversation,
        trace=context.input.trace,
    )


async def _retrieve(context: TurnContext, ports: TurnServices) -> tuple[ToolCall, ToolResult]:
    """The retrieval of ``knowledge_mode: always``, before the first model call."""
    query = " ".join(part.text for part in context.question.parts if isinstance(part, Text))
    call = ToolCall(call_id=RETRIEVAL_CALL, name=SEARCH_TOOL, arguments={"query": query}, at=_now())
    passages = await ports.knowledge.search(context.agent.app, context.agent.spec.knowledge, query, PASSAGES)
    output = search_output(passages)
    result = ToolResult(call_id=call.call_id, name=SEARCH_TOOL, content=output.content, data=output.data, at=_now())
    return call, result


async def _call_all(tools: Mapping[str, Tool], calls: Sequence[ToolCall]) -> AsyncGenerator[ToolResult, None]:
    """Run the calls concurrently and yield each result when it is ready. Closing cancels the tools still running."""
    tasks = [asyncio.create_task(_call(tools.get(call.name), call)) for call in calls]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _call(tool: Tool | None, call: ToolCall) -> ToolResult:
    if tool is None:
        output = ToolOutput(content=f"there is no tool called {call.name!r}", error=True)
    elif call.malformed:
        output = ToolOutput(content=f"the arguments are not a JSON object: {call.malformed[:200]!r}", error=True)
    else:
        output = await tool.call(call.arguments)
    return ToolResult(
        call_id=call.call_id,
        name=call.name,
        content=clean(output.content),
        data=output.data,
        error=output.error,
        at=_now(),
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
