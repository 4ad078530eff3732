"""Encodes a ``ModelRequest`` as the body of a Chat Completions request. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from palaver.core.context import alternate_roles, format_passages
from palaver.core.ports.models import Attachment, ModelMessage, ModelRequest
from palaver.core.types import AnyPart, File, Text, Thinking, ToolCall, ToolResult, clean
from palaver.models.tool_calls import PROVIDER_KEY

Json = dict[str, Any]

SOURCES = (
    "Answer from the numbered sources below wherever they are relevant, and name the sources you used, like [1]."
    " Where they do not answer the question, say so instead of guessing what they contain."
)
_NO_RESULT = "The tool was stopped before it had a result."


def encode_body(request: ModelRequest) -> bytes:
    """The request's body: JSON, UTF-8."""
    members: Json = {
        "model": request.model,
        "messages": messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    members |= msgspec.to_builtins(request.settings)
    if request.tools:
        members["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    return msgspec.json.encode(members)


def messages(request: ModelRequest) -> list[Json]:
    """The ``messages`` member: the system message if there is one, then every turn."""
    entries: list[Json] = []
    system = [clean(request.instructions.strip())]
    if request.passages:
        system += [SOURCES, clean(format_passages(request.passages))]
    if text := "\n\n".join(filter(None, system)):
        entries.append({"role": "system", "content": text})
    for turn in alternate_roles(request.history):
        entries += _user(turn, request.attachments) if turn.role == "user" else _assistant(turn.parts)
    return entries


def _user(turn: ModelMessage, attachments: Mapping[str, Attachment]) -> list[Json]:
    content: list[Json] = []
    for part in turn.parts:
        if isinstance(part, Text) and part.text:
            content.append({"type": "text", "text": clean(part.text)})
        elif isinstance(part, File):
            content.append(_file(part, attachments.get(part.ref)))
    if all(entry["type"] == "text" for entry in content):
        # Plain text where possible: not every endpoint accepts a list.
        return [{"role": "user", "content": "\n".join(entry["text"] for entry in content)}]
    return [{"role": "user", "content": content}]


def _file(file: File, attachment: Attachment | None) -> Json:
    """The content part for a file. Never its URL: an endpoint would fetch it with its own network access."""
    if attachment is None:
        return {"type": "text", "text": f"[attached file: {_description(file.name or file.ref, file.media_type)}]"}
    description = _description(attachment.name, attachment.media_type)
    if attachment.image is not None:
        url = f"data:{attachment.media_type};base64,{base64.b64encode(attachment.image).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}
    if attachment.text is None:
        reason = clean(attachment.missing)
        return {"type": "text", "text": f"[attached file: {description}; it could not be read: {reason}]"}
    return {"type": "text", "text": f"[attached file: {description}]\n{attachment.text}\n[end of the attached file]"}


def _description(name: str, media_type: str) -> str:
    return clean(", ".join(filter(None, (name, media_type))))


def _assistant(parts: Sequence[AnyPart]) -> list[Json]:
    """The messages of an assistant's turn: one for each of its steps, and one for each tool call's result."""
    entries: list[Json] = []
    step = _Step()
    for part in parts:
        if step.results and not isinstance(part, ToolResult):
            entries += step.messages()
            step = _Step()
        step.take(part)
    return entries + step.messages()


class _Step:
    """One step of an assistant's turn: its text and tool calls, and their results."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: dict[str, ToolResult] = {}
        self.provider_data: Json = {}

    def take(self, part: AnyPart) -> None:
        match part:
            case Text(text=text):
                self.text.append(clean(text))
            case Thinking(text=text):
                for name, value in _provider_data(part).items():
                    earlier = self.provider_data.get(name, "")
                    self.provider_data[name] = earlier + clean(text) if value is None else value
            case ToolCall():
                self.calls.append(part)
            case ToolResult():
                self.results[part.call_id] = part
            case File():
                self.text.append(_file(part, None)["text"])

    def messages(self) -> list[Json]:
        text = "".join(self.text)
        if not self.calls:
            return [{"role": "assistant", "content": text}] if text else []
        # Provider data matters only to a step that a tool's result continues.
        head: Json = {**self.provider_data, "role": "assistant", "content": text or None}
        head["tool_calls"] = [
            {
                **_provider_data(call),
                "id": call.call_id,
                "type": "function",
                "function": {
                    # Chat templates of open models parse the arguments: they must be JSON, whatever the model wrote.
                    "name": call.name or "unknown",
                    "arguments": msgspec.json.encode(call.arguments).decode(),
                },
            }
            for call in self.calls
        ]
        return [head, *(self._result(call) for call in self.calls)]

    def _result(self, call: ToolCall) -> Json:
        result = self.results.get(call.call_id)
        content = _NO_RESULT if result is None else clean(result.content)
        return {"role": "tool", "tool_call_id": call.call_id, "content": content}


def _provider_data(part: AnyPart) -> Json:
    held = (part.provider_data or {}).get(PROVIDER_KEY)
    return cast("Json", held) if isinstance(held, dict) else {}
