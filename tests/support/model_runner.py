"""Run a coroutine from a test, and never wait longer than it takes anything here to happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine
from typing import Any, TypeVar

from palaver.core.ports.models import (
    ContentDelta,
    ModelDelta,
    ModelMessage,
    ModelRequest,
    StepFinished,
    ThinkingDelta,
    ToolCallDelta,
)
from palaver.core.problems import Upstream
from palaver.core.types import Text, ToolCall

GUARD = 20.0

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an error when it takes longer than ``GUARD`` seconds."""

    async def guarded() -> T:
        async with asyncio.timeout(GUARD):
            return await work

    return asyncio.run(guarded())


async def listen(deltas: AsyncIterable[ModelDelta]) -> list[ModelDelta]:
    return [delta async for delta in deltas]


async def listen_to_the_end(deltas: AsyncIterable[ModelDelta]) -> tuple[list[ModelDelta], Upstream | None]:
    """The deltas, and the problem that ended them."""
    heard: list[ModelDelta] = []
    try:
        async for delta in deltas:
            heard.append(delta)  # noqa: PERF401  what was heard before the problem counts
    except Upstream as problem:
        return heard, problem
    return heard, None


def joined(deltas: list[ModelDelta]) -> list[ModelDelta]:
    """Neighbouring pieces of one kind as one: how a stream was cut is nobody's promise."""
    whole: list[ModelDelta] = []
    for delta in deltas:
        match (whole[-1] if whole else None, delta):
            case (ContentDelta(text=before), ContentDelta(text=text)):
                whole[-1] = ContentDelta(text=before + text)
            case (ThinkingDelta(text=before, provider_data=pocket), ThinkingDelta(text=text)):
                whole[-1] = ThinkingDelta(text=before + text, provider_data=pocket)
            case _:
                whole.append(delta)
    return whole


def said(deltas: list[ModelDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))


def thought(deltas: list[ModelDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, ThinkingDelta))


def called(deltas: list[ModelDelta]) -> list[ToolCall]:
    return [delta.call for delta in deltas if isinstance(delta, ToolCallDelta)]


def finished(deltas: list[ModelDelta]) -> StepFinished:
    """The one ``StepFinished``, which must stand last."""
    assert [isinstance(delta, StepFinished) for delta in deltas].index(True) == len(deltas) - 1
    last = deltas[-1]
    assert isinstance(last, StepFinished)
    return last


def asked(question: str = "Hello?", *, instructions: str = "", model: str = "some-model") -> ModelRequest:
    return ModelRequest(
        model=model,
        instructions=instructions,
        history=(ModelMessage(role="user", parts=(Text(text=question),)),),
    )
