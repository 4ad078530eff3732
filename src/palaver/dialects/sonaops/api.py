"""The routes. Source: the vendor's page, and the wire specification ``sonaops.md``, section 5."""

from __future__ import annotations

from typing import Any

from palaver.core.chat import NewMessage
from palaver.core.problems import Conflict, NotFound, Upstream
from palaver.core.types import Agent, Conversation, Principal, Text, parse_uid
from palaver.dialects.sonaops import openapi
from palaver.dialects.sonaops.canonical import trimmed
from palaver.dialects.sonaops.errors import EVENT_STREAM
from palaver.dialects.sonaops.media import audio_key, byte_range, data_uri, ensure_audio
from palaver.dialects.sonaops.requests import (
    DEFAULT_VOICE,
    AgentListRequest,
    ChatStreamRequest,
    ImageRequest,
    InspirationRequest,
    SonaopsCreateRequest,
    SpeechRequest,
    json_request,
    query_request,
    required,
)
from palaver.dialects.sonaops.responses import (
    ConversationCreated,
    ImageResponse,
    SonaopsAgentList,
    SpeechResponse,
    SuggestedReplies,
    agent_response,
    ok_response,
)
from palaver.dialects.sonaops.stream import SonaopsEncoder
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.downloads import download_headers
from palaver.wire.idempotent import Subject
from palaver.wire.responses import RAW, STREAM, IdempotentResponse, JSONResponse


async def create(
    request: Request, body: SonaopsCreateRequest, principal: Principal, services: Services
) -> IdempotentResponse[ConversationCreated]:
    """Create a conversation with an agent."""
    agent = await _agent(principal, services, required("agentId", body.agent_id))

    async def work() -> tuple[ConversationCreated, Subject]:
        conversation = await services.chat.create_conversation(principal, agent)
        return ConversationCreated(conversation_id=conversation.uid.hex), conversation

    return IdempotentResponse(key=idempotency_key(request, "POST /v1/chat/conversation"), create=work)


async def agents(
    _request: Request, body: AgentListRequest, principal: Principal, services: Services
) -> SonaopsAgentList:
    """List the agents that the key may use, one page at a time."""
    available = await services.chat.agents(principal)
    start = (body.page_num - 1) * body.page_size
    page = [agent_response(agent) for agent in available[start : start + body.page_size]]
    return SonaopsAgentList(agents=page, total=len(available))


async def stream(
    request: Request, body: ChatStreamRequest, principal: Principal, services: Services
) -> StreamingResponse:
    """Send a message in a conversation and stream the answer."""
    ref, name, text = _required_fields(body)
    agent = await _agent(principal, services, ref)
    hints = {} if body.language is None else {"language": body.language}
    variables: dict[str, Any] = {**hints, **(body.metadata or {})}
    message = NewMessage(
        parts=(Text(text=text),),
        variables=variables,
        variables_field="metadata",
        idempotency_key=idempotency_key(request, "POST /v1/chat/stream"),
        trace=request.trace,
    )
    sent = await services.chat.send(principal, agent, message, conversation=trimmed(name))
    encoder = SonaopsEncoder(sent.conversation.uid, sent.run_uid)
    return StreamingResponse(reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM)


async def inspiration(
    _request: Request, body: InspirationRequest, principal: Principal, services: Services
) -> SuggestedReplies:
    """Suggest replies for the user."""
    ref, name = required("agentId", body.agent_id), required("conversationId", body.conversation_id)
    agent, conversation = await _agent_and_conversation(principal, services, ref, name)
    replies = await services.chat.generate_suggestions(principal, conversation, agent)
    return SuggestedReplies(replies=list(replies))


async def image(
    request: Request, body: ImageRequest, principal: Principal, services: Services
) -> IdempotentResponse[ImageResponse]:
    """Generate an image in a conversation."""
    ref, name, text = _required_fields(body)
    agent, conversation = await _agent_and_conversation(principal, services, ref, name)

    async def work() -> tuple[ImageResponse, Subject]:
        if not services.media.can_generate_images(agent):
            raise Upstream(reason="configuration")
        picture = await services.media.generate_image(agent, text)
        return ImageResponse(base64_image=data_uri(picture), metadata=body.metadata or {}), conversation

    return IdempotentResponse(key=idempotency_key(request, "POST /v1/chat/image"), create=work)


async def tts(
    request: Request, body: SpeechRequest, principal: Principal, services: Services
) -> JSONResponse[SpeechResponse]:
    """Synthesize speech for a stored message, once; later requests reuse the file."""
    ref, text = required("messageId", body.message_id), required("processedText", body.processed_text)
    uid = parse_uid(trimmed(ref))
    if uid is None:
        raise NotFound(noun="message", ref=ref)
    try:
        run = await services.chat.open_run(principal.as_unrestricted(), uid)
    except NotFound as problem:
        raise NotFound(noun="message", ref=str(uid)) from problem
    voice = trimmed(body.voice_timbre_id or "") or DEFAULT_VOICE
    synthesized = await ensure_audio(principal, services, run, text, voice)
    url = f"{request.base_url.rstrip('/')}/saas/voice-broadcast/{uid.hex}.mp3"
    return JSONResponse(content=SpeechResponse(audio_url=url), counts_toward_quota=synthesized)


async def voice_broadcast(request: Request, _principal: Principal, services: Services) -> Response:
    """Serve a message's speech to anyone who has its URL."""
    name = request.path_params["name"]
    uid = parse_uid(name.removesuffix(".mp3")) if name.endswith(".mp3") else None
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
    content_range = ("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
    return Response(
        status=206, body_iterator=pieces, length=length, media_type=file.media_type, headers=(content_range, *headers)
    )


async def _agent(principal: Principal, services: Services, ref: str) -> Agent:
    return await services.chat.agent(principal, trimmed(ref))


async def _agent_and_conversation(
    principal: Principal, services: Services, agent_ref: str, conversation_ref: str
) -> tuple[Agent, Conversation]:
    """An agent and its conversation. Raises ``NotFound``, or ``Conflict`` if they do not belong together."""
    agent = await _agent(principal, services, agent_ref)
    conversation, _ = await services.chat.open_conversation(principal, trimmed(conversation_ref))
    if conversation.agent != agent.id:
        raise Conflict(reason="agent")
    return agent, conversation


def _required_fields(body: ChatStreamRequest) -> tuple[str, str, str]:
    """(agent, conversation, text), all of them required."""
    return (
        required("agentId", body.agent_id),
        required("conversationId", body.conversation_id),
        required("text", body.text),
    )


ROUTES = (
    Route(
        method="POST",
        path="/v1/chat/conversation",
        endpoint=create,
        request=json_request(SonaopsCreateRequest, idempotent=True),
        response=ok_response(ConversationCreated),
        summary="create a conversation for an agent",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="POST",
        path="/v1/agent/list",
        endpoint=agents,
        request=json_request(AgentListRequest),
        response=ok_response(SonaopsAgentList),
        summary="list the agents the key may use",
        operation=openapi.LIST,
    ),
    Route(
        method="GET",
        path="/v1/agent/list",
        endpoint=agents,
        request=query_request(AgentListRequest),
        response=ok_response(SonaopsAgentList),
        summary="list the agents the key may use",
        operation=openapi.LIST_BY_QUERY,
    ),
    Route(
        method="POST",
        path="/v1/chat/stream",
        endpoint=stream,
        request=json_request(ChatStreamRequest, idempotent=True),
        response=STREAM,
        summary="send a message, stream the answer as server-sent events",
        idempotent=True,
        operation=openapi.STREAM,
    ),
    Route(
        method="POST",
        path="/v1/chat/inspiration",
        endpoint=inspiration,
        request=json_request(InspirationRequest),
        response=ok_response(SuggestedReplies),
        summary="suggest three replies for the user",
        operation=openapi.INSPIRATION,
    ),
    Route(
        method="POST",
        path="/v1/chat/image",
        endpoint=image,
        request=json_request(ImageRequest, idempotent=True),
        response=ok_response(ImageResponse),
        summary="generate an image in a conversation",
        idempotent=True,
        operation=openapi.IMAGE,
    ),
    Route(
        method="POST",
        path="/v1/chat/tts",
        endpoint=tts,
        request=json_request(SpeechRequest),
        response=ok_response(SpeechResponse),
        summary="synthesize speech for a stored message",
        operation=openapi.SPEECH,
    ),
    Route(
        method="GET",
        path="/saas/voice-broadcast/{name}",
        endpoint=voice_broadcast,
        response=RAW,
        summary="the synthesized audio file",
        public=True,
        secret_path=True,
        operation=openapi.SOUND,
    ),
)
