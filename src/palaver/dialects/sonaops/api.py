"""The routes. Source: the vendor's page, and the wire specification ``sonaops.md``, section 5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from palaver.core.chat import NewMessage
from palaver.core.problems import Conflict, NotFound, Upstream
from palaver.core.types import Agent, Conversation, Principal, Text, as_uid
from palaver.dialects.sonaops import openapi
from palaver.dialects.sonaops.canonical import fields, trimmed
from palaver.dialects.sonaops.errors import EVENT_STREAM, success
from palaver.dialects.sonaops.media import audio_key, byte_range, data_uri, ensure_audio
from palaver.dialects.sonaops.requests import (
    DEFAULT_VOICE,
    AgentListRequest,
    ChatStreamRequest,
    ImageRequest,
    InspirationRequest,
    SonaopsCreateRequest,
    SpeechRequest,
    parse_body,
    parse_query,
    required,
)
from palaver.dialects.sonaops.stream import SonaopsEncoder
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.downloads import download_headers
from palaver.wire.idempotent import Subject, answer_once


async def create(request: Request, who: Principal, services: Services) -> Response:
    """Create a conversation with an agent."""
    claim = idempotency_key(request, "POST /v1/chat/conversation")
    body = parse_body(request, SonaopsCreateRequest)
    agent = await _agent(who, services, required("agentId", body.agentId))

    async def work() -> tuple[Response, Subject]:
        conversation = await services.chat.create_conversation(who, agent)
        return success(request, {"conversationId": conversation.uid.hex}), conversation

    return await answer_once(services, who, claim, work)


async def agents(request: Request, who: Principal, services: Services) -> Response:
    """List the agents that the key may use, one page at a time."""
    is_get = request.method != "POST"
    body = (
        parse_query(dict(fields(request.query_string)), AgentListRequest)
        if is_get
        else parse_body(request, AgentListRequest)
    )
    available = await services.chat.agents(who)
    start = (body.pageNum - 1) * body.pageSize
    page = [_agent_response(agent) for agent in available[start : start + body.pageSize]]
    return success(request, {"list": page, "total": len(available)})


async def stream(request: Request, who: Principal, services: Services) -> StreamingResponse:
    """Send a message in a conversation and stream the answer."""
    claim = idempotency_key(request, "POST /v1/chat/stream")
    body = parse_body(request, ChatStreamRequest)
    ref, name, text = _required_fields(body)
    agent = await _agent(who, services, ref)
    hints = {} if body.language is None else {"language": body.language}
    variables: dict[str, Any] = {**hints, **(body.metadata or {})}
    message = NewMessage(
        parts=(Text(text=text),),
        variables=variables,
        variables_field="metadata",
        idempotency_key=claim,
        trace=request.trace,
    )
    sent = await services.chat.send(who, agent, message, conversation=trimmed(name))
    encoder = SonaopsEncoder(sent.conversation.uid, sent.run_uid)
    return StreamingResponse(reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM)


async def inspiration(request: Request, who: Principal, services: Services) -> Response:
    """Suggest replies for the user."""
    body = parse_body(request, InspirationRequest)
    ref, name = required("agentId", body.agentId), required("conversationId", body.conversationId)
    agent, conversation = await _agent_and_conversation(who, services, ref, name)
    replies = await services.chat.generate_suggestions(who, conversation, agent)
    return success(request, {"replies": replies})


async def image(request: Request, who: Principal, services: Services) -> Response:
    """Generate an image in a conversation."""
    claim = idempotency_key(request, "POST /v1/chat/image")
    body = parse_body(request, ImageRequest)
    ref, name, text = _required_fields(body)
    agent, conversation = await _agent_and_conversation(who, services, ref, name)

    async def work() -> tuple[Response, Subject]:
        if not services.media.can_generate_images(agent):
            raise Upstream(reason="configuration")
        picture = await services.media.generate_image(agent, text)
        data = {"base64Image": data_uri(picture), "metadata": body.metadata or {}}
        return success(request, data), conversation

    return await answer_once(services, who, claim, work)


async def tts(request: Request, who: Principal, services: Services) -> Response:
    """Synthesize speech for a stored message, once; later requests reuse the file."""
    body = parse_body(request, SpeechRequest)
    named, text = required("messageId", body.messageId), required("processedText", body.processedText)
    uid = as_uid(trimmed(named))
    if uid is None:
        raise NotFound(noun="message", ref=named)
    try:
        run = await services.chat.open_run(who.unrestricted(), uid)
    except NotFound as problem:
        raise NotFound(noun="message", ref=str(uid)) from problem
    voice = trimmed(body.voiceTimbreId or "") or DEFAULT_VOICE
    synthesized = await ensure_audio(who, services, run, text, voice)
    address = f"{request.base_url.rstrip('/')}/saas/voice-broadcast/{uid.hex}.mp3"
    return replace(success(request, {"audioUrl": address}), counts_toward_quota=synthesized)


async def voice_broadcast(request: Request, _who: Principal, services: Services) -> Response:
    """Serve a message's speech to anyone who has its URL."""
    name = request.path_params["name"]
    uid = as_uid(name.removesuffix(".mp3")) if name.endswith(".mp3") else None
    if uid is None:
        raise NotFound(noun="file", ref=name)
    file = await services.files.get_unscoped(audio_key(uid))
    headers = (("Accept-Ranges", "bytes"), *download_headers(file))
    part = byte_range(request.headers.get("range"), file.size)
    if part is None:
        pieces = services.files.pieces(file)
        return Response(body_iterator=pieces, length=file.size, media_type=file.media_type, headers=headers)
    start, length = part
    pieces = services.files.pieces(file, start=start, length=length)
    where = ("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
    return Response(
        status=206, body_iterator=pieces, length=length, media_type=file.media_type, headers=(where, *headers)
    )


async def _agent(who: Principal, services: Services, ref: str) -> Agent:
    return await services.chat.agent(who, trimmed(ref))


async def _agent_and_conversation(
    who: Principal, services: Services, agent_ref: str, conversation_ref: str
) -> tuple[Agent, Conversation]:
    """An agent and its conversation. Raises ``NotFound``, or ``Conflict`` if they do not belong together."""
    agent = await _agent(who, services, agent_ref)
    conversation, _ = await services.chat.open_conversation(who, trimmed(conversation_ref))
    if conversation.agent != agent.id:
        raise Conflict(reason="agent")
    return agent, conversation


def _required_fields(body: ChatStreamRequest) -> tuple[str, str, str]:
    """(agent, conversation, text), all of them required."""
    return (
        required("agentId", body.agentId),
        required("conversationId", body.conversationId),
        required("text", body.text),
    )


def _agent_response(agent: Agent) -> dict[str, Any]:
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
        endpoint=create,
        summary="create a conversation for an agent",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="POST",
        path="/v1/agent/list",
        endpoint=agents,
        summary="list the agents the key may use",
        operation=openapi.LIST,
    ),
    Route(
        method="GET",
        path="/v1/agent/list",
        endpoint=agents,
        summary="list the agents the key may use",
        operation=openapi.LIST_BY_QUERY,
    ),
    Route(
        method="POST",
        path="/v1/chat/stream",
        endpoint=stream,
        summary="send a message, stream the answer as server-sent events",
        idempotent=True,
        operation=openapi.STREAM,
    ),
    Route(
        method="POST",
        path="/v1/chat/inspiration",
        endpoint=inspiration,
        summary="suggest three replies for the user",
        operation=openapi.INSPIRATION,
    ),
    Route(
        method="POST",
        path="/v1/chat/image",
        endpoint=image,
        summary="generate an image in a conversation",
        idempotent=True,
        operation=openapi.IMAGE,
    ),
    Route(
        method="POST",
        path="/v1/chat/tts",
        endpoint=tts,
        summary="synthesize speech for a stored message",
        operation=openapi.SPEECH,
    ),
    Route(
        method="GET",
        path="/saas/voice-broadcast/{name}",
        endpoint=voice_broadcast,
        summary="the synthesized audio file",
        public=True,
        secret_path=True,
        operation=openapi.SOUND,
    ),
)
