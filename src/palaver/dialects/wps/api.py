"""The routes. Source: the vendor's page, and the wire specification ``wps.md``, sections 1, 4 and 6."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from palaver.core.chat import NewMessage
from palaver.core.history import HistoryPage
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import NotFound
from palaver.core.types import Agent, ApiKey, Conversation, File, Message, Principal, Text, parse_uid
from palaver.dialects.wps import openapi, paging
from palaver.dialects.wps.content_blocks import blocks
from palaver.dialects.wps.oauth import consent, tokens
from palaver.dialects.wps.requests import (
    CANCEL_CHAT,
    CREATE_CHAT,
    CREATE_SESSION,
    MESSAGES_QUERY,
    SESSIONS_QUERY,
    CancelChatRequest,
    CreateChatRequest,
    CreateSessionRequest,
    WpsMessagesQuery,
    WpsSessionsQuery,
)
from palaver.dialects.wps.responses import (
    AppDetail,
    ChatCreated,
    EmptyObject,
    SessionId,
    SessionListItem,
    SessionMessage,
    SessionResponse,
    WpsPage,
    app_detail,
    message_response,
    ok_response,
    session_id_of,
    session_list_item,
    session_name,
)
from palaver.dialects.wps.settings import EVENT_STREAM, PARTIAL_EVERY_MS, TOKEN_GAP_MS
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject
from palaver.wire.list_response import encode_items
from palaver.wire.responses import IdempotentResponse, JSONResponse, ListResponse, or_stream

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# Chats --------------------------------------------------------------------------------------------------------------


async def send(
    request: Request, body: CreateChatRequest, principal: Principal, services: Services
) -> JSONResponse[ChatCreated] | StreamingResponse:
    """Send a message to an agent. Streams the answer, or leaves it to be read from the messages endpoint."""
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    message = NewMessage(
        parts=_parts(body),
        variables=body.values,
        variables_field=None,  # "information only", says the vendor's page
        idempotency_key=idempotency_key(request, f"POST /v7/devhub/app/{agent.uid}/chat/create"),
        trace=request.trace,
    )
    turn = await services.chat.send(principal, agent, message, conversation=body.session)
    chat, session_id = str(turn.run_uid), session_id_of(turn.conversation, body.session)
    headers = (("X-Chat-Id", chat), ("X-Session-Id", header_value(session_id)))
    streamed = request.route.startswith("/v7/sse/") if body.stream is None else body.stream
    if streamed:
        encoder = WpsEncoder(
            session_id, turn.agent, turn.question, turn.answer, _stream_options(principal.key, services)
        )
        media_type = principal.key.setting("stream_media_type", EVENT_STREAM)
        return StreamingResponse(
            reader=turn.reader, replayed=turn.replayed, encoder=encoder, media_type=media_type, headers=headers
        )
    turn.reader.close()
    created = ChatCreated(session_id=session_id, chat_id=chat)
    return JSONResponse(content=created, headers=(*headers, REPLAYED) if turn.replayed else headers)


def _parts(body: CreateChatRequest) -> tuple[Text | File, ...]:
    files = (File(ref=ref) for ref in body.files or ())
    return (Text(text=body.text or ""), *files)


def _stream_options(key: ApiKey, services: Services) -> WpsStreamOptions:
    return WpsStreamOptions(
        zone=services.settings.timezone,
        partial_every_s=key.setting("partial_every_ms", PARTIAL_EVERY_MS) / 1000,
        data_prefix=key.setting("sse_data_prefix", False),
        error_event=key.setting("error_event", False),
        tokens=key.setting("tokens", True),
        token_gap_s=key.setting("token_gap_ms", TOKEN_GAP_MS) / 1000,
    )


async def cancel(request: Request, principal: Principal, services: Services) -> EmptyObject:
    """Cancel the chat in the path."""
    return await _cancel(request, request.path_params["chat_id"], principal, services)


async def cancel_named(
    request: Request, body: CancelChatRequest, principal: Principal, services: Services
) -> EmptyObject:
    """Cancel the chat in the body or query."""
    return await _cancel(request, body.chat_id or "", principal, services)


async def _cancel(request: Request, chat_id: str, principal: Principal, services: Services) -> EmptyObject:
    """Stop a running chat, or drop a waiting one. A chat that cannot be stopped is not an error."""
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    uid = parse_uid(chat_id)
    if uid is not None:
        with suppress(NotFound):
            run = await services.chat.open_run(principal, uid)
            if run.agent.id == agent.id:
                await services.chat.stop_run(run)
    return EmptyObject()


# Sessions -----------------------------------------------------------------------------------------------------------


async def create(
    request: Request, body: CreateSessionRequest, principal: Principal, services: Services
) -> IdempotentResponse[SessionId]:
    """Create an empty session."""
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    title = body.name if body.name is not None and body.name.strip() else None

    async def work() -> tuple[SessionId, Subject]:
        conversation = await services.chat.create_conversation(principal, agent, title=title)
        return SessionId(session_id=session_id_of(conversation)), conversation

    key = idempotency_key(request, f"POST /v7/devhub/app/{agent.uid}/session/create")
    return IdempotentResponse(key=key, create=work)


async def sessions(
    request: Request, query: WpsSessionsQuery, principal: Principal, services: Services
) -> WpsPage[SessionListItem]:
    """List the user's sessions with the agent, most recently changed first."""
    size = query.page_size
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    place = _after(paging.place(principal, _list_of(agent), query.next_page_token, numbers=2))
    conversations = await services.chat.conversations(
        principal, ConversationQuery(agent=agent.id, after=place, limit=size + 1)
    )
    token = ""
    if len(conversations) > size:
        last = conversations[size - 1]
        token = paging.token(principal, _list_of(agent), (last.modified - _EPOCH) // _MICROSECOND, last.id)
    return WpsPage(items=tuple(map(session_list_item, conversations[:size])), next_page_token=token)


def _list_of(agent: Agent) -> str:
    return f"sessions of {agent.id}"


def _after(place: Sequence[int]) -> tuple[datetime, int] | None:
    """The (modified, id) after which the page starts."""
    return (_EPOCH + place[0] * _MICROSECOND, place[1]) if place else None


async def messages(
    request: Request, query: WpsMessagesQuery, principal: Principal, services: Services
) -> ListResponse[WpsPage[SessionMessage]]:
    """List a session's messages, oldest first. An answer in progress has its text so far."""
    ref, size = query.session_id, query.page_size
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    conversation, _ = await services.chat.open_conversation(principal, ref)
    if conversation.agent != agent.id:
        raise NotFound(noun="conversation", ref=ref)
    of = f"messages of {conversation.id}"
    place = paging.place(principal, of, query.next_page_token)
    async with services.chat.history_page(principal, conversation, after=place[0] if place else 0, limit=size) as page:
        question = await _question(principal, services, conversation, page.messages) if query.with_event else None
        token = "" if page.next is None else paging.token(principal, of, page.messages[-1].id)
        items = _items(page, session_id=session_id_of(conversation, ref), services=services, question=question)
        return ListResponse(content=WpsPage(items=(), next_page_token=token), items=await encode_items(items))


async def _question(
    principal: Principal, services: Services, conversation: Conversation, history: Sequence[Message]
) -> str:
    """The question that precedes a page starting with an answer."""
    if not history or history[0].role == "user":
        return ""
    return "".join(
        message.text
        for message in await services.chat.list_messages(principal, conversation, before=history[0].id, limit=1)
    )


def _items(page: HistoryPage, *, session_id: str, services: Services, question: str | None) -> Iterator[SessionMessage]:
    """A page of messages. If ``question`` (the one before the page) is given, answers include their content blocks.

    A question and its answer are stored together, so the message after a question is its answer.
    """
    following = [*(one.uid for one in page.messages), page.next][1:]
    for message, behind in zip(page.messages, following, strict=True):
        answer = message.uid if message.role == "assistant" or behind is None else behind
        if message.waiting:
            continue
        events: list[Any] | msgspec.UnsetType = msgspec.UNSET
        if question is not None:
            events = blocks(question, message) if message.role == "assistant" else []
            question = message.text
        yield message_response(
            message, chat_id=str(answer), session_id=session_id, zone=services.settings.timezone, events=events
        )


async def title(request: Request, principal: Principal, services: Services) -> SessionResponse:
    """Return a session's name."""
    conversation = await _own_conversation(request, principal, services)
    session_id = session_id_of(conversation, request.path_params["session_id"])
    return SessionResponse(session_id=session_id, name=session_name(conversation))


async def delete(request: Request, principal: Principal, services: Services) -> EmptyObject:
    """Delete a session with its messages, ending its run."""
    conversation = await _own_conversation(request, principal, services)
    await services.chat.delete_conversation(principal, conversation.id)
    return EmptyObject()


async def _own_conversation(request: Request, principal: Principal, services: Services) -> Conversation:
    """The session from the path, if the credential may use its agent."""
    conversation, _ = await services.chat.open_conversation(principal, request.path_params["session_id"])
    return conversation


# Apps ---------------------------------------------------------------------------------------------------------------


async def detail(request: Request, principal: Principal, services: Services) -> AppDetail:
    """Return an agent's name, description, icon and variables."""
    agent = await services.chat.agent(principal, request.path_params["app_id"])
    return app_detail(agent, request.path_params["app_id"])


_APP, _APPS = "/v7/devhub/app/{app_id}", "/v7/devhub/apps/{app_id}"
_SESSION, _SESSIONS = "/v7/devhub/session/{session_id}", "/v7/devhub/sessions/{session_id}"


def _with_aliases(route: Route, *aliases: str) -> tuple[Route, ...]:
    """The route, also under other spellings of its path."""
    return (route, *(replace(route, path=path) for path in aliases))


ROUTES = (
    *_with_aliases(
        Route(
            method="POST",
            path=f"{_APP}/chat/create",
            endpoint=send,
            request=CREATE_CHAT,
            response=or_stream(ok_response(ChatCreated)),
            summary="send a message to an agent",
            idempotent=True,
            operation=openapi.SAY,
        ),
        f"{_APPS}/chats/create",
        "/v7/sse/devhub/apps/{app_id}/chats/create",
    ),
    Route(
        method="POST",
        path=f"{_APP}/chat/{{chat_id}}/cancel",
        endpoint=cancel,
        response=ok_response(EmptyObject),
        summary="stop a chat",
        operation=openapi.CANCEL,
    ),
    Route(
        method="POST",
        path=f"{_APPS}/chats/cancel",
        endpoint=cancel_named,
        request=CANCEL_CHAT,
        response=ok_response(EmptyObject),
        summary="stop a chat",
        operation=openapi.CANCEL_NAMED,
    ),
    *_with_aliases(
        Route(
            method="POST",
            path=f"{_APP}/session/create",
            endpoint=create,
            request=CREATE_SESSION,
            response=ok_response(SessionId),
            summary="create a session",
            idempotent=True,
            operation=openapi.CREATE,
        ),
        f"{_APPS}/sessions/create",
    ),
    *_with_aliases(
        Route(
            method="GET",
            path=f"{_APP}/session/list",
            endpoint=sessions,
            request=SESSIONS_QUERY,
            response=ok_response(WpsPage[SessionListItem]),
            summary="list sessions",
            operation=openapi.SESSIONS,
        ),
        f"{_APPS}/sessions/list",
    ),
    *_with_aliases(
        Route(
            method="GET",
            path=f"{_APP}/session/messages",
            endpoint=messages,
            request=MESSAGES_QUERY,
            response=ok_response(WpsPage[SessionMessage]),
            summary="read a session",
            operation=openapi.MESSAGES,
        ),
        f"{_APPS}/sessions/messages",
    ),
    *_with_aliases(
        Route(
            method="GET",
            path=f"{_SESSION}/name",
            endpoint=title,
            response=ok_response(SessionResponse),
            summary="a session's name",
            operation=openapi.NAME,
        ),
        f"{_SESSIONS}/name",
    ),
    *_with_aliases(
        Route(
            method="POST",
            path=f"{_SESSION}/delete",
            endpoint=delete,
            response=ok_response(EmptyObject),
            summary="delete a session",
            operation=openapi.DELETE,
        ),
        f"{_SESSIONS}/delete",
    ),
    *_with_aliases(
        Route(
            method="GET",
            path=f"{_APP}/detail",
            endpoint=detail,
            response=ok_response(AppDetail),
            summary="an agent's details",
            operation=openapi.DETAIL,
        ),
        f"{_APPS}/detail",
    ),
    Route(
        method="POST",
        path="/oauth2/token",
        endpoint=tokens,
        summary="get a user token",
        public=True,
        operation=openapi.TOKENS,
    ),
    Route(
        method="GET",
        path="/oauth2/auth",
        endpoint=consent,
        summary="ask for consent",
        public=True,
        operation=openapi.CONSENT,
    ),
)
