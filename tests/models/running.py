"""Run a coroutine from a test, and never wait longer than it takes anything here to happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine
from typing import Any, TypeVar

from palaver.core.ports import Call, Delta, Finished, ModelRequest, ModelTurn, Say, Think
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


async def listen(deltas: AsyncIterable[Delta]) -> list[Delta]:
    return [delta async for delta in deltas]


async def listen_to_the_end(deltas: AsyncIterable[Delta]) -> tuple[list[Delta], Upstream | None]:
    """The deltas, and the problem that ended them."""
    heard: list[Delta] = []
    try:
        async for delta in deltas:
            heard.append(delta)  # noqa: PERF401  what was heard before the problem counts
    except Upstream as problem:
        return heard, problem
    return heard, None


def joined(deltas: list[Delta]) -> list[Delta]:
    """Neighbouring pieces of one kind as one: how a stream was cut is nobody's promise."""
    whole: list[Delta] = []
    for delta in deltas:
        match (whole[-1] if whole else None, delta):
            case (Say(text=before), Say(text=text)):
                whole[-1] = Say(text=before + text)
            case (Think(text=before, provider_data=pocket), Think(text=text)):
                whole[-1] = Think(text=before + text, provider_data=pocket)
            case _:
                whole.append(delta)
    return whole


def said(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Say))


def thought(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Think))


def called(deltas: list[Delta]) -> list[ToolCall]:
    return [delta.call for delta in deltas if isinstance(delta, Call)]


def finished(deltas: list[Delta]) -> Finished:
    """The one ``Finished``, which must stand last."""
    assert [isinstance(delta, Finished) for delta in deltas].index(True) == len(deltas) - 1
    last = deltas[-1]
    assert isinstance(last, Finished)
    return last


def asked(question: str = "Hello?", *, instructions: str = "", model: str = "some-model") -> ModelRequest:
    return ModelRequest(
        model=model,
        instructions=instructions,
        history=(ModelTurn(role="user", parts=(Text(text=question),)),),
    )
