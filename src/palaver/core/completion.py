"""One-shot completions by an agent's model; nothing is stored."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from palaver.core.observer import Observer
from palaver.core.ports.models import ContentDelta, ModelMessage, ModelRequest, Models, StepFinished, UsageDelta
from palaver.core.problems import Problem, Upstream
from palaver.core.types import Agent, Usage


def can_generate_text(models: Models, agent: Agent) -> bool:
    """Whether the agent's model can write text; a built-in one cannot. Raises ``Upstream(reason="configuration")``."""
    _, name = models.chat_model(agent.spec.model)
    return bool(name)


async def complete(
    models: Models, observer: Observer, agent: Agent, messages: tuple[ModelMessage, ...], *, timeout_s: float
) -> str | None:
    """The model's text after ``messages``; ``None`` if the model fails or cannot write text. Its tokens are counted
    either way."""
    usage, text = Usage(), list[str]()
    try:
        model, name = models.chat_model(agent.spec.model)
    except Upstream:
        return None
    if not name:
        return None
    try:
        request = ModelRequest(model=name, instructions=agent.spec.instructions, history=messages)
        async with asyncio.timeout(timeout_s), aclosing(model.stream(request)) as deltas:
            async for delta in deltas:
                match delta:
                    case ContentDelta():
                        text.append(delta.text)
                    case UsageDelta() | StepFinished():
                        usage = usage.updated(delta.usage)
                    case _:
                        pass
    except (Problem, TimeoutError) as error:
        problem = Upstream(reason="timeout") if isinstance(error, TimeoutError) else error
        if isinstance(problem, Upstream):
            observer.model_failed(name, problem)
        return None
    finally:
        observer.tokens_used(name, usage)
    return "".join(text)
