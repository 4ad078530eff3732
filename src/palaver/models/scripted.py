"""The scripted model: plays a script in the agent's instructions, to test an integration without an endpoint, with
every pause, tool call and failure where the test wants it.

The instructions are a YAML list of steps (or contain one in a ```` ```yaml ```` fence), played in order:

| Step | What happens |
|---|---|
| `- think: TEXT` | a piece of reasoning |
| `- text: TEXT` | a piece of the answer |
| `- pieces: {of: TEXT, size: 3}` | the text in pieces of that many characters |
| `- repeat: {text: TEXT, times: 200, every: 0.01}` | the text, that many times, with a pause in seconds after each |
| `- wait: 0.5` | a pause in seconds |
| `- call: {name: NAME, arguments: {…}}` | calls a tool; after its result the script continues with the next step |
| `- usage: {prompt: 3, completion: 5}` | reports the tokens of this step so far |
| `- finish: length` | ends the answer here, with this finish reason (`stop` if the script has no such step) |
| `- fail: REASON` | fails: `connect`, `timeout`, `refused`, `limit`, `cut`, `malformed`, `rejected`, `configuration` |

Optional, with their defaults: `size` (1), `every` (0), `arguments` (none) and either token count (unknown).

In every text, tool arguments included, `${content}` is the user's message, `${files}` the text of its files (or, in
brackets, their name or type), `${turn}` the number of user messages in the model's context and `${result}` the result
of the last tool call of this turn. `$$` is a dollar sign. Placeholders with two braces are the agent's variables,
filled in before the script is parsed.

Instructions that are not a list are not a script: the model then answers `You said: ` and the user's message. An
invalid script raises `Upstream(reason="configuration")`, which names the wrong step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from string import Template
from typing import Annotated, Any, Literal, cast

import msgspec
import yaml

from palaver.core.ports.models import (
    ContentDelta,
    ModelDelta,
    ModelRequest,
    StepFinished,
    ThinkingDelta,
    ToolCallDelta,
    UsageDelta,
)
from palaver.core.problems import Upstream
from palaver.core.types import File, Text, ToolCall, ToolResult, Usage, new_uid

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class ScriptedPieces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    of: str
    size: Annotated[int, msgspec.Meta(ge=1)] = 1


class ScriptedRepeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    times: Count
    every: Seconds = 0


class ScriptedToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] = {}


class ScriptedUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: Count | None = None
    completion: Count | None = None


class ScriptStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step: exactly one member is set."""

    think: str | None = None
    text: str | None = None
    pieces: ScriptedPieces | None = None
    repeat: ScriptedRepeat | None = None
    wait: Seconds | None = None
    call: ScriptedToolCall | None = None
    usage: ScriptedUsage | None = None
    finish: str | None = None
    fail: Literal["connect", "timeout", "refused", "limit", "cut", "malformed", "rejected", "configuration"] | None = (
        None
    )


_FENCE = re.compile(r"(?ms)^```ya?ml[ \t]*\n(.*?)^```")
_LIST = re.compile(r"\A(?:\s*#[^\n]*\n|\s)*-\s")


class ScriptedModel:
    """A ``ChatModel`` that plays the script in ``request.instructions``."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        steps = parse_script(request.instructions)
        fill = _filler(request)
        if steps is None:
            text = fill("You said: ${content}")
            for piece in _cut(text, -(-len(text) // 4)):
                yield ContentDelta(text=piece)
                await asyncio.sleep(0)
            yield StepFinished()
            return
        usage = Usage()
        for step in _remaining(steps, _call_count(request)):
            if step.fail is not None:
                raise Upstream(reason=step.fail, detail="the script says so")
            if step.usage is not None:
                usage = Usage(prompt=step.usage.prompt, completion=step.usage.completion)
                yield UsageDelta(usage=usage)
            elif step.call is not None:
                arguments = _fill_all(step.call.arguments, fill)
                call_id = f"call_{new_uid().hex}"
                yield ToolCallDelta(call=ToolCall(call_id=call_id, name=fill(step.call.name), arguments=arguments))
                yield StepFinished(reason="tool_calls", usage=usage)
                return
            elif step.finish is not None:
                yield StepFinished(reason=step.finish, usage=usage)
                return
            else:
                async for delta in _deltas(step, fill):
                    yield delta
        yield StepFinished(usage=usage)


async def _deltas(step: ScriptStep, fill: Callable[[str], str]) -> AsyncGenerator[ModelDelta, None]:
    """The deltas of a step that neither calls a tool nor ends the answer."""
    if step.think is not None:
        if text := fill(step.think):
            yield ThinkingDelta(text=text)
    elif step.text is not None:
        if text := fill(step.text):
            yield ContentDelta(text=text)
    elif step.pieces is not None:
        for piece in _cut(fill(step.pieces.of), step.pieces.size):
            yield ContentDelta(text=piece)
    elif step.repeat is not None:
        text = fill(step.repeat.text)
        for _ in range(step.repeat.times):
            if text:
                yield ContentDelta(text=text)
            await asyncio.sleep(step.repeat.every)
    elif step.wait is not None:
        await asyncio.sleep(step.wait)


@lru_cache(maxsize=256)
def parse_script(instructions: str) -> tuple[ScriptStep, ...] | None:
    """Parse the steps in ``instructions``; ``None`` if not a script. Raises ``Upstream(reason="configuration")``."""
    fence = _FENCE.search(instructions)
    source = fence.group(1) if fence else instructions
    try:
        steps: Any = yaml.safe_load(source)
    except yaml.YAMLError as error:
        if not fence and not _LIST.match(source):
            return None
        raise _wrong(f"the script is not YAML: {error}") from error
    if not isinstance(steps, list):
        if fence:
            raise _wrong("the script must be a list of steps")
        return None
    return tuple(_step(number, step) for number, step in enumerate(cast("list[Any]", steps), 1))


def _step(number: int, step: Any) -> ScriptStep:
    names = ", ".join(ScriptStep.__struct_fields__)
    if not isinstance(step, dict) or len(cast("dict[Any, Any]", step)) != 1:
        raise _wrong(f"step {number} must be one of {names}, with a value, not {step!r}")
    (name, value), *_ = cast("dict[Any, Any]", step).items()
    if name not in ScriptStep.__struct_fields__ or value is None:
        problem = "has no value" if name in ScriptStep.__struct_fields__ else "is not a step"
        raise _wrong(f"step {number}: {name!r} {problem}; steps are {names}")
    try:
        return msgspec.convert({name: value}, ScriptStep, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(f"step {number}: {error}; steps are {names}") from error


def _remaining(steps: tuple[ScriptStep, ...], calls: int) -> tuple[ScriptStep, ...]:
    """The steps after the script's first ``calls`` tool calls."""
    for at, step in enumerate(steps):
        if not calls:
            return steps[at:]
        calls -= step.call is not None
    return ()


def _call_count(request: ModelRequest) -> int:
    """The number of tool calls in this turn so far."""
    last = request.history[-1] if request.history else None
    parts = last.parts if last is not None and last.role == "assistant" else ()
    return sum(isinstance(part, ToolCall) for part in parts)


def _filler(request: ModelRequest) -> Callable[[str], str]:
    user_turns = [turn for turn in request.history if turn.role == "user"]
    parts = user_turns[-1].parts if user_turns else ()
    content = "".join(part.text for part in parts if isinstance(part, Text))
    results = [part.content for turn in request.history for part in turn.parts if isinstance(part, ToolResult)]
    files = "\n".join(_file(part, request) for part in parts if isinstance(part, File))
    result = results[-1] if results else ""
    values = {"content": content, "files": files, "turn": str(len(user_turns)), "result": result}

    def fill(text: str) -> str:
        return Template(text).safe_substitute(values) if "$" in text else text

    return fill


def _file(part: File, request: ModelRequest) -> str:
    attachment = request.attachments.get(part.ref)
    if attachment is None or attachment.missing:
        return f"[{part.name or part.ref}: {attachment.missing if attachment else 'not read'}]"
    return attachment.text if attachment.text is not None else f"[{attachment.media_type}]"


def _fill_all(value: Any, fill: Callable[[str], str]) -> Any:
    match value:
        case str():
            return fill(value)
        case dict():
            return {name: _fill_all(member, fill) for name, member in cast("dict[str, Any]", value).items()}
        case list():
            return [_fill_all(member, fill) for member in cast("list[Any]", value)]
        case _:
            return value


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] if text else []


def _wrong(detail: str) -> Upstream:
    return Upstream(reason="configuration", detail=detail)
