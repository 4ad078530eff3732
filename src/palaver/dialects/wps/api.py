"""The routes. Source: the vendor's page, and the wire specification ``wps.md``, sections 1, 4 and 6."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from palaver.core.chat import NewMessage
from palaver.core.history import HistoryPage
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import NotFound
from palaver.core.types import Agent, ApiKey, Conversation, File, Message, Principal, Text, as_uid
from palaver.dialects.wps import openapi, paging
from palaver.dialects.wps.content_blocks import blocks
from palaver.dialects.wps.errors import success
from palaver.dialects.wps.oauth import consent, tokens
from palaver.dialects.wps.requests import (
    CreateChatRequest,
    cancelled_chat,
    create_chat,
    create_session,
    messages_query,
    sessions_query,
)
from palaver.dialects.wps.responses import (
    ChatCreated,
    EmptyObject,
    SessionId,
    SessionMessage,
    SessionResponse,
    WpsPage,
    app_detail,
    message_response,
    session_id_of,
    session_list_item,
    session_name,
)
from palaver.dialects.wps.settings import EVENT_STREAM, PARTIAL_EVERY_MS, TOKEN_GAP_MS
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions
from palaver.wire.bodies import idempotency_key, json_object
from palaver.wire.contract import Handler, Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject, answer_once
from palaver.wire.list_response import list_response, split_at_placeholder
from palaver.wire.operation import Operation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# Chats --------------------------------------------------------------------------------------------------------------


async def send(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """Send a message to an agent. Streams the answer, or leaves it to be read from the messages endpoint."""
    members = json_object(request.body)
    idempotency_key(request, "")
    body = create_chat(members)
    agent = await services.chat.agent(who, request.path_params["app_id"])
    message = NewMessage(
        parts=_parts(body),
        variables=body.values,
        variables_field=None,  # "information only", says the vendor's page
        idempotency_key=idempotency_key(request, f"POST /v7/devhub/app/{agent.uid}/chat/create"),
        trace=request.trace,
    )
    sent = await services.chat.send(who, agent, message, conversation=body.session)
    chat, session_id = str(sent.run_uid), session_id_of(sent.conversation, body.session)
    headers = (("X-Chat-Id", chat), ("X-Session-Id", header_value(session_id)))
    streamed = request.route.startswith("/v7/sse/") if body.stream is None else body.stream
    if streamed:
        encoder = WpsEncoder(session_id, sent.agent, sent.question, sent.answer, _form(who.key, services))
        media_type = who.key.setting("stream_media_type", EVENT_STREAM)
        return StreamingResponse(
            reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=media_type, headers=headers
        )
    sent.reader.close()
    created = ChatCreated(session_id=session_id, chat_id=chat)
    return success(created, headers=(*headers, REPLAYED) if sent.replayed else headers)


def _parts(body: CreateChatRequest) -> tuple[Text | File, ...]:
    files = (File(ref=ref) for ref in body.files or ())
    return (Text(text=body.text or ""), *files)


def _form(key: ApiKey, services: Services) -> WpsStreamOptions:
    return WpsStreamOptions(
        zone=services.settings.timezone,
        partial_every_s=key.setting("partial_every_ms", PARTIAL_EVERY_MS) / 1000,
        data_prefix=key.setting("sse_data_prefix", False),
        error_event=key.setting("error_event", False),
        tokens=key.setting("tokens", True),
        token_gap_s=key.setting("token_gap_ms", TOKEN_GAP_MS) / 1000,
    )


async def cancel(request: Request, who: Principal, services: Services) -> Response:
    """Stop a running chat, or drop a waiting one. A chat that cannot be stopped is not an error."""
    chat = request.path_params.get("chat_id")
    if chat is None:
        chat = cancelled_chat(request)
    agent = await services.chat.agent(who, request.path_params["app_id"])
    uid = as_uid(chat)
    if uid is not None:
        with suppress(NotFound):
            run = await services.chat.open_run(who, uid)
            if run.agent.id == agent.id:
                await services.chat.stop_run(run)
    return success(EmptyObject())


# Sessions -----------------------------------------------------------------------------------------------------------


async def create(request: Request, who: Principal, services: Services) -> Response:
    """Create an empty session."""
    members = json_object(request.body, empty_is_object=True)
    idempotency_key(request, "")
    body = create_session(members)
    agent = await services.chat.agent(who, request.path_params["app_id"])
    claim = idempotency_key(request, f"POST /v7/devhub/app/{agent.uid}/session/create")
    title = body.name if body.name is not None and body.name.strip() else None

    async def work() -> tuple[Response, Subject]:
        conversation = await services.chat.create_conversation(who, agent, title=title)
        return success(SessionId(session_id=session_id_of(conversation))), conversation

    return await answer_once(services, who, claim, work)


async def sessions(request: Request, who: Principal, services: Services) -> Response:
    """List the user's sessions with the agent, most recently changed first."""
    query = sessions_query(request.query_string)
    size = query.page_size
    agent = await services.chat.agent(who, request.path_params["app_id"])
    place = _after(paging.place(who, _list_of(agent), query.next_page_token, numbers=2))
    conversations = await services.chat.conversations(
        who, ConversationQuery(agent=agent.id, after=place, limit=size + 1)
    )
    token = ""
    if len(conversations) > size:
        last = conversations[size - 1]
        token = paging.token(who, _list_of(agent), (last.modified - _EPOCH) // _MICROSECOND, last.id)
    return success(WpsPage(items=tuple(map(session_list_item, conversations[:size])), next_page_token=token))


def _list_of(agent: Agent) -> str:
    return f"sessions of {agent.id}"


def _after(place: Sequence[int]) -> tuple[datetime, int] | None:
    """The (modified, id) after which the page starts."""
    return (_EPOCH + place[0] * _MICROSECOND, place[1]) if place else None


async def messages(request: Request, who: Principal, services: Services) -> Response:
    """List a session's messages, oldest first. An answer in progress has its text so far."""
    query = messages_query(request.query_string)
    ref, size = query.session_id, query.page_size
    agent = await services.chat.agent(who, request.path_params["app_id"])
    conversation, _ = await services.chat.open_conversation(who, ref)
    if conversation.agent != agent.id:
        raise NotFound(noun="conversation", ref=ref)
    of = f"messages of {conversation.id}"
    place = paging.place(who, of, query.next_page_token)
    async with services.chat.history_page(who, conversation, after=place[0] if place else 0, limit=size) as page:
        question = await _question(who, services, conversation, page.messages) if query.with_event else None
        token = "" if page.next is None else paging.token(who, of, page.messages[-1].id)
        empty: WpsPage[SessionMessage] = WpsPage(items=(), next_page_token=token)
        items = _items(page, session_id=session_id_of(conversation, ref), services=services, question=question)
        return await list_response(items, *split_at_placeholder(success(empty).body))


async def _question(who: Principal, services: Services, conversation: Conversation, history: Sequence[Message]) -> str:
    """The question that precedes a page starting with an answer."""
    if not history or history[0].role == "user":
        return ""
    return "".join(
        message.text for message in await services.chat.list_messages(who, conversation, before=history[0].id, limit=1)
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


async def title(request: Request, who: Principal, services: Services) -> Response:
    """Return a session's name."""
    conversation = await _own_conversation(request, who, services)
    session_id = session_id_of(conversation, request.path_params["session_id"])
    return success(SessionResponse(session_id=session_id, name=session_name(conversation)))


async def delete(request: Request, who: Principal, services: Services) -> Response:
    """Delete a session with its messages, ending its run."""
    conversation = await _own_conversation(request, who, services)
    await services.chat.delete_conversation(who, conversation.id)
    return success(EmptyObject())


async def _own_conversation(request: Request, who: Principal, services: Services) -> Conversation:
    """The session from the path, if the credential may use its agent."""
    conversation, _ = await services.chat.open_conversation(who, request.path_params["session_id"])
    return conversation


# Apps ---------------------------------------------------------------------------------------------------------------


async def detail(request: Request, who: Principal, services: Services) -> Response:
    """Return an agent's name, description, icon and variables."""
    agent = await services.chat.agent(who, request.path_params["app_id"])
    return success(app_detail(agent, request.path_params["app_id"]))


def _aliases(
    method: Method, paths: Sequence[str], handle: Handler, purpose: str, operation: Operation, *, creating: bool = False
) -> tuple[Route, ...]:
    """One route per spelling of the path."""
    return tuple(
        Route(
            method=method,
            path=f"/v7/{path}",
            endpoint=handle,
            summary=purpose,
            idempotent=creating,
            operation=operation,
        )
        for path in paths
    )


_APP, _APPS = "devhub/app/{app_id}", "devhub/apps/{app_id}"

ROUTES = (
    *_aliases(
        "POST",
        (f"{_APP}/chat/create", f"{_APPS}/chats/create", f"sse/{_APPS}/chats/create"),
        send,
        "send a message to an agent",
        openapi.SAY,
        creating=True,
    ),
    *_aliases("POST", (f"{_APP}/chat/{{chat_id}}/cancel",), cancel, "stop a chat", openapi.CANCEL),
    *_aliases("POST", (f"{_APPS}/chats/cancel",), cancel, "stop a chat", openapi.CANCEL_NAMED),
    *_aliases(
        "POST",
        (f"{_APP}/session/create", f"{_APPS}/sessions/create"),
        create,
        "create a session",
        openapi.CREATE,
        creating=True,
    ),
    *_aliases("GET", (f"{_APP}/session/list", f"{_APPS}/sessions/list"), sessions, "list sessions", openapi.SESSIONS),
    *_aliases(
        "GET",
        (f"{_APP}/session/messages", f"{_APPS}/sessions/messages"),
        messages,
        "read a session",
        openapi.MESSAGES,
    ),
    *_aliases(
        "GET",
        ("devhub/session/{session_id}/name", "devhub/sessions/{session_id}/name"),
        title,
        "a session's name",
        openapi.NAME,
    ),
    *_aliases(
        "POST",
        ("devhub/session/{session_id}/delete", "devhub/sessions/{session_id}/delete"),
        delete,
        "delete a session",
        openapi.DELETE,
    ),
    *_aliases("GET", (f"{_APP}/detail", f"{_APPS}/detail"), detail, "an agent's details", openapi.DETAIL),
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
