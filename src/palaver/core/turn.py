"""One turn: assemble → model → tools → again, until the model has said its last word. Always streams."""

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
from palaver.core.events import Draft, Event, PartAdded, PartStarted, TextDelta
from palaver.core.fetch import Fetcher
from palaver.core.ports.documents import DocumentReader, Knowledge
from palaver.core.ports.models import (
    ChatModel,
    ContentDelta,
    ModelMessage,
    ModelRequest,
    Models,
    StepFinished,
    ThinkingDelta,
    ToolCallDelta,
    UsageDelta,
)
from palaver.core.ports.store import Store
from palaver.core.ports.tools import Tool, ToolOutput, ToolSpec
from palaver.core.types import (
    Agent,
    Message,
    Passage,
    RunEnded,
    Status,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    clean,
)

MAX_STEPS = 8
"""How often one turn may go back to the model with tool results. The last time it is offered no tools."""
PASSAGES = 5
BUILT_IN = "built-in"
"""What the models that palaver brings along are called in figures."""
SEARCH_TOOL = "knowledge_search"
"""The name under which retrieval stands in a message, whoever asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnServices:
    """What a turn reaches for."""

    store: Store
    models: Models
    knowledge: Knowledge
    documents: DocumentReader
    fetch: Fetcher


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContext:
    """What a turn begins with. ``disabled_tools`` names what the caller switched off for this message."""

    agent: Agent
    user: int
    conversation: int
    question: Message
    variables: Mapping[str, Any]
    disabled_tools: frozenset[tuple[str, int]] = frozenset()
    trace: str = ""


class UsageMeter:
    """What a turn has used so far, for whoever ends it before its time: the tokens that the model reported last."""

    __slots__ = ("_begun", "_earlier", "_step", "first_token_s", "model")

    def __init__(self) -> None:
        self.model = ""
        """Who answers; empty before the turn begins, and for a model that cannot be."""
        self.first_token_s: float | None = None
        """Seconds from the turn's beginning to the model's first words, thoughts included."""
        self._begun = time.monotonic()
        self._earlier = Usage()
        self._step = Usage()

    @property
    def usage(self) -> Usage:
        return self._earlier + self._step

    def report(self, usage: Usage) -> None:
        """What the step has used so far; what is left unknown stays as it was reported before."""
        self._step = Usage(
            prompt=self._step.prompt if usage.prompt is None else usage.prompt,
            completion=self._step.completion if usage.completion is None else usage.completion,
        )

    def begin(self, model: str) -> None:
        self.model = model
        self._begun = time.monotonic()

    def first_token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self._begun

    def next_step(self) -> None:
        self._earlier, self._step = self.usage, Usage()


class KnowledgeSearchTool:
    """Retrieval as a tool: what ``knowledge_mode: tool`` offers to the model."""

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
    """What a search hands back: text for the model, the passages for programs."""
    return ToolOutput(
        content=format_passages(passages) or "Nothing was found.",
        data=[msgspec.to_builtins(passage) for passage in passages],
    )


async def run_turn(
    context: TurnContext, ports: TurnServices, meter: UsageMeter, draft: Draft
) -> AsyncGenerator[Event, None]:
    """The events of one turn, ``RunEnded`` last. Raises the ``Problem`` that it fails with. Whoever takes an event
    applies it to ``draft`` before the next one: what the model said is kept there alone."""
    model, name = ports.models.chat_model(context.agent.spec.model, context.agent.spec.fallback_model)
    meter.begin(name or BUILT_IN)
    read = await ports.store.conversations.history(
        context.agent.app,
        context.conversation,
        before=context.question.id,
        limit=context.agent.spec.history,
        size=HISTORY_BYTES,
    )
    earlier = read.messages
    history = (*history_window(earlier), ModelMessage(role="user", parts=context.question.parts))
    attachments = await _attachments(context, ports).read(context.question, earlier)
    for part in context.question.files:
        if part.ref in attachments and (problem := attachments[part.ref].missing):
            yield PartAdded(part=msgspec.structs.replace(part, problem=problem))
    tools: dict[str, Tool] = {}
    passages: tuple[Passage, ...] = ()
    if context.agent.spec.knowledge and context.agent.spec.knowledge_mode == "tool":
        tools[SEARCH_TOOL] = KnowledgeSearchTool(ports.knowledge, context.agent)
    elif context.agent.spec.knowledge:
        call, result, passages = await _retrieve(context, ports)
        yield PartAdded(part=call)
        yield PartAdded(part=result)
    before = draft.count
    instructions = fill_template(context.agent.spec.instructions, context.variables)
    for step in range(MAX_STEPS):
        offered = tuple(tool.spec for tool in tools.values()) if step < MAX_STEPS - 1 else ()
        request = ModelRequest(
            model=name,
            instructions=instructions,
            history=history if draft.count == before else (*history, _so_far(draft, before)),
            tools=offered,
            passages=passages,
            attachments=attachments,
            variables=dict(context.variables),
            trace=context.trace,
        )
        reply = _Step(meter)
        async with aclosing(reply.read(model, request)) as events:
            async for event in events:
                yield event
        if not reply.calls or step == MAX_STEPS - 1:
            yield RunEnded(status=Status.COMPLETE, reason=reply.reason, usage=meter.usage)
            return
        meter.next_step()
        async with aclosing(_use(tools, reply.calls)) as results:
            async for result in results:
                yield PartAdded(part=result)
    raise AssertionError("the last step ends the turn")


def _so_far(draft: Draft, first: int) -> ModelMessage:
    return ModelMessage(role="assistant", parts=draft.snapshot(first).parts())


class _Step:
    """One answer of the model: its deltas as events, and what the turn goes on with."""

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
                    case ThinkingDelta(text=text, provider_data=pocket) if text or pocket:
                        if self._open is not Thinking:
                            yield self._begin(Thinking, pocket)
                        if text:
                            yield TextDelta(text=clean(text))
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
                    case ContentDelta() | ThinkingDelta():  # nothing said: no event
                        pass

    def _begin(self, kind: type[Text | Thinking], pocket: dict[str, Any] | None) -> PartStarted:
        self._open = kind
        self._meter.first_token()
        return PartStarted(part=kind(provider_data=pocket))


def _attachments(scene: TurnContext, ports: TurnServices) -> Attachments:
    return Attachments(
        store=ports.store,
        fetch=ports.fetch,
        documents=ports.documents,
        app=scene.agent.app,
        user=scene.user,
        conversation=scene.conversation,
        trace=scene.trace,
    )


async def _retrieve(scene: TurnContext, ports: TurnServices) -> tuple[ToolCall, ToolResult, tuple[Passage, ...]]:
    """What ``knowledge_mode: always`` does before the model is asked."""
    query = " ".join(part.text for part in scene.question.parts if isinstance(part, Text))
    call = ToolCall(call_id="retrieval", name=SEARCH_TOOL, arguments={"query": query}, at=_now())
    passages = await ports.knowledge.search(scene.agent.app, scene.agent.spec.knowledge, query, PASSAGES)
    output = search_output(passages)
    result = ToolResult(call_id=call.call_id, name=SEARCH_TOOL, content=output.content, data=output.data, at=_now())
    return call, result, tuple(passages)


async def _use(tools: Mapping[str, Tool], calls: Sequence[ToolCall]) -> AsyncGenerator[ToolResult, None]:
    """The calls' results, each as soon as it is there. Closing stops the tools that still work."""
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
