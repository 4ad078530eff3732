"""The routes. Source: the vendor's page, and the wire specification ``sonaops.md``, section 5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from palaver.core.chat import NewMessage
from palaver.core.problems import Conflict, NotFound, Upstream
from palaver.core.types import Agent, Conversation, Principal, Text, as_uid
from palaver.dialects.sonaops import openapi
from palaver.dialects.sonaops.canonical import fields, trimmed
from palaver.dialects.sonaops.errors import EVENT_STREAM, succeeded
from palaver.dialects.sonaops.media import audio_key, data_uri, spoken, stretch
from palaver.dialects.sonaops.requests import (
    DEFAULT_VOICE,
    AgentListRequest,
    ChatStreamRequest,
    ImageRequest,
    InspirationRequest,
    SonaopsCreateRequest,
    SpeechRequest,
    asked,
    posted,
    required,
)
from palaver.dialects.sonaops.stream import SonaopsEncoder
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.downloads import download_headers
from palaver.wire.idempotent import Subject, answer_once


async def create(call: Request, who: Principal, room: Services) -> Response:
    """Make a conversation with an agent."""
    claim = idempotency_key(call, "POST /v1/chat/conversation")
    request = posted(call, SonaopsCreateRequest)
    agent = await _agent(who, room, required("agentId", request.agentId))

    async def work() -> tuple[Response, Subject]:
        conversation = await room.chat.create(who, agent)
        return succeeded(call, {"conversationId": conversation.uid.hex}), conversation

    return await answer_once(room, who, claim, work)


async def agents(call: Request, who: Principal, room: Services) -> Response:
    """A page of the agents that the key may use."""
    is_get = call.method != "POST"
    request = asked(dict(fields(call.query)), AgentListRequest) if is_get else posted(call, AgentListRequest)
    found = await room.chat.agents(who)
    start = (request.pageNum - 1) * request.pageSize
    page = [_shown(agent) for agent in found[start : start + request.pageSize]]
    return succeeded(call, {"list": page, "total": len(found)})


async def stream(call: Request, who: Principal, room: Services) -> StreamingResponse:
    """Say something in a conversation and follow the answer."""
    claim = idempotency_key(call, "POST /v1/chat/stream")
    request = posted(call, ChatStreamRequest)
    ref, name, text = _asked_in(request)
    agent = await _agent(who, room, ref)
    hints = {} if request.language is None else {"language": request.language}
    variables: dict[str, Any] = {**hints, **(request.metadata or {})}
    said = NewMessage(
        parts=(Text(text=text),),
        variables=variables,
        variables_field="metadata",
        idempotency_key=claim,
        trace=call.trace,
    )
    sent = await room.chat.send(who, agent, said, conversation=trimmed(name))
    encoder = SonaopsEncoder(sent.conversation.uid, sent.run)
    return StreamingResponse(reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM)


async def inspiration(call: Request, who: Principal, room: Services) -> Response:
    """What the user might say next."""
    request = posted(call, InspirationRequest)
    ref, name = required("agentId", request.agentId), required("conversationId", request.conversationId)
    agent, conversation = await _place(who, room, ref, name)
    replies = await room.chat.suggestions(who, conversation, agent)
    return succeeded(call, {"replies": replies})


async def image(call: Request, who: Principal, room: Services) -> Response:
    """Paint a picture inside a conversation."""
    claim = idempotency_key(call, "POST /v1/chat/image")
    request = posted(call, ImageRequest)
    ref, name, text = _asked_in(request)
    agent, conversation = await _place(who, room, ref, name)

    async def work() -> tuple[Response, Subject]:
        if not room.media.can_generate_images(agent):
            raise Upstream(reason="configuration")
        picture = await room.media.generate_image(agent, text)
        body = {"base64Image": data_uri(picture), "metadata": request.metadata or {}}
        return succeeded(call, body), conversation

    return await answer_once(room, who, claim, work)


async def tts(call: Request, who: Principal, room: Services) -> Response:
    """Speak a stored message; what was spoken once is not spoken again."""
    request = posted(call, SpeechRequest)
    named, text = required("messageId", request.messageId), required("processedText", request.processedText)
    uid = as_uid(trimmed(named))
    if uid is None:
        raise NotFound(noun="message", ref=named)
    message = await room.chat.message(who, uid)
    voice = trimmed(request.voiceTimbreId or "") or DEFAULT_VOICE
    made = await spoken(who, room, message, text, voice)
    address = f"{call.origin.rstrip('/')}/saas/voice-broadcast/{uid.hex}.mp3"
    return replace(succeeded(call, {"audioUrl": address}), charged=made)


async def voice_broadcast(call: Request, _who: Principal, room: Services) -> Response:
    """A spoken message, for whoever has its address."""
    name = call.params["name"]
    uid = as_uid(name.removesuffix(".mp3")) if name.endswith(".mp3") else None
    if uid is None:
        raise NotFound(noun="file", ref=name)
    file = await room.files.open_to_all(audio_key(uid))
    headers = (("Accept-Ranges", "bytes"), *download_headers(file))
    part = stretch(call.headers.get("range"), file.size)
    if part is None:
        pieces = room.files.pieces(file)
        return Response(pieces=pieces, length=file.size, media_type=file.media_type, headers=headers)
    start, length = part
    pieces = room.files.pieces(file, start=start, length=length)
    where = ("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
    return Response(status=206, pieces=pieces, length=length, media_type=file.media_type, headers=(where, *headers))


async def _agent(who: Principal, room: Services, ref: str) -> Agent:
    return await room.chat.agent(who, trimmed(ref))


async def _place(who: Principal, room: Services, agent: str, conversation: str) -> tuple[Agent, Conversation]:
    """The agent and the conversation that belong together. Raises ``NotFound``, ``Conflict``."""
    found = await _agent(who, room, agent)
    place = await room.chat.conversation(who, trimmed(conversation))
    if place.agent != found.id:
        raise Conflict(reason="agent")
    return found, place


def _asked_in(request: ChatStreamRequest) -> tuple[str, str, str]:
    """Agent, conversation and text, none of which may be missing."""
    return (
        required("agentId", request.agentId),
        required("conversationId", request.conversationId),
        required("text", request.text),
    )


def _shown(agent: Agent) -> dict[str, Any]:
    spec = agent.spec
    return {
        "agentId": spec.alias[0] if spec.alias else str(agent.uid),
        "name": spec.name,
        "avatar": spec.icon,
        "description": spec.description,
        "greeting": spec.opening_message,
        "voiceId": spec.extra.get("sonaops", {}).get("voiceId"),
    }


ROUTES = (
    Route(
        method="POST",
        path="/v1/chat/conversation",
        handle=create,
        purpose="create a conversation for an agent",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="POST", path="/v1/agent/list", handle=agents, purpose="agents the key may use", operation=openapi.LIST
    ),
    Route(
        method="GET",
        path="/v1/agent/list",
        handle=agents,
        purpose="agents the key may use",
        operation=openapi.LIST_BY_QUERY,
    ),
    Route(
        method="POST",
        path="/v1/chat/stream",
        handle=stream,
        purpose="send a message, read the answer as server-sent events",
        idempotent=True,
        operation=openapi.STREAM,
    ),
    Route(
        method="POST",
        path="/v1/chat/inspiration",
        handle=inspiration,
        purpose="three suggestions for the user's next message",
        operation=openapi.INSPIRATION,
    ),
    Route(
        method="POST",
        path="/v1/chat/image",
        handle=image,
        purpose="a picture inside a conversation",
        idempotent=True,
        operation=openapi.IMAGE,
    ),
    Route(method="POST", path="/v1/chat/tts", handle=tts, purpose="speak one stored message", operation=openapi.SPEECH),
    Route(
        method="GET",
        path="/saas/voice-broadcast/{name}",
        handle=voice_broadcast,
        purpose="the spoken file",
        public=True,
        capability=True,
        operation=openapi.SOUND,
    ),
)
