"""A fallback model, used if the first one fails before it has sent anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
import structlog

from palaver.core.ports.models import ChatModel, ModelDelta, ModelRequest, UsageDelta
from palaver.core.problems import Upstream

log = structlog.get_logger("palaver.models")


class FallbackModel:
    """A ``ChatModel`` that uses ``first``, and ``second`` under the name ``name`` if ``first`` fails before sending
    anything.

    Deltas that were sent are never taken back: a later failure is raised. ``failed`` is called with the first model's
    name and the problem for each failure that the fallback replaces.
    """

    def __init__(
        self, first: ChatModel, second: ChatModel, name: str, *, failed: Callable[[str, Upstream], None] | None = None
    ) -> None:
        self._first = first
        self._second = second
        self._name = name
        self._failed = failed

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        begun = False
        try:
            async with aclosing(self._first.stream(request)) as deltas:
                async for delta in deltas:
                    begun = begun or not isinstance(delta, UsageDelta)
                    yield delta
            return
        except Upstream as problem:
            if begun:
                raise
            if self._failed is not None:
                self._failed(request.model, problem)
            log.warning(
                "the fallback model answers",
                trace=request.trace,
                model=request.model,
                fallback=self._name,
                problem=problem.to_dict(),
            )
        async with aclosing(self._second.stream(msgspec.structs.replace(request, model=self._name))) as deltas:
            async for delta in deltas:
                yield delta
