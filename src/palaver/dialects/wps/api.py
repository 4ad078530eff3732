"""The routes. Source: the vendor's page, and the wire specification ``wps.md``, sections 1, 4 and 6."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from palaver.core.chat import NewMessage
from palaver.core.history import HistoryPage
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import NotFound
from palaver.core.types import Agent, ApiKey, Conversation, File, Message, Principal, Text, as_uid
from palaver.dialects.wps import openapi, paging
from palaver.dialects.wps.content_blocks import blocks
from palaver.dialects.wps.errors import local_time, name, session, success
from palaver.dialects.wps.oauth import consent, tokens
from palaver.dialects.wps.requests import (
    CreateChatRequest,
    cancelled_chat,
    create_chat,
    create_session,
    messages_query,
    sessions_query,
)
from palaver.dialects.wps.settings import EVENT_STREAM, PARTIAL_EVERY_MS, TOKEN_GAP_MS
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions
from palaver.wire.bodies import idempotency_key, json_object
from palaver.wire.contract import Handler, Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject, answer_once
from palaver.wire.list_response import list_response, split_around
from palaver.wire.operation import Operation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# Chats --------------------------------------------------------------------------------------------------------------


async def say(call: Request, who: Principal, room: Services) -> Response | StreamingResponse:
    """Say something to an agent; follow the answer, or read it later with the messages call."""
    members = json_object(call.body)
    idempotency_key(call, "")
    request = create_chat(members)
    agent = await room.chat.agent(who, call.params["app_id"])
    said = NewMessage(
        parts=_parts(request),
        variables=request.values,
        variables_field=None,  # "information only", says the vendor's page
        idempotency_key=idempotency_key(call, f"POST /v7/devhub/app/{agent.uid}/chat/create"),
        trace=call.trace,
    )
    sent = await room.chat.send(who, agent, said, conversation=request.session)
    chat, shown = str(sent.run), session(sent.conversation, request.session)
    headers = (("X-Chat-Id", chat), ("X-Session-Id", header_value(shown)))
    streamed = call.route.startswith("/v7/sse/") if request.stream is None else request.stream
    if streamed:
        encoder = WpsEncoder(shown, sent.agent, sent.question, sent.answer, _form(who.key, room))
        media_type = who.key.setting("stream_media_type", EVENT_STREAM)
        return StreamingResponse(
            reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=media_type, headers=headers
        )
    sent.reader.close()
    body = success({"session_id": shown, "chat_id": chat})
    return Response(body=body, headers=(*headers, REPLAYED) if sent.replayed else headers)


def _parts(request: CreateChatRequest) -> tuple[Text | File, ...]:
    files = (File(ref=ref) for ref in request.files or ())
    return (Text(text=request.text or ""), *files)


def _form(key: ApiKey, room: Services) -> WpsStreamOptions:
    return WpsStreamOptions(
        zone=room.settings.timezone,
        partial_every_s=key.setting("partial_every_ms", PARTIAL_EVERY_MS) / 1000,
        data_prefix=key.setting("sse_data_prefix", False),
        error_event=key.setting("error_event", False),
        tokens=key.setting("tokens", True),
        token_gap_s=key.setting("token_gap_ms", TOKEN_GAP_MS) / 1000,
    )


async def cancel(call: Request, who: Principal, room: Services) -> Response:
    """Stop one chat, or drop it while it waits. A chat that cannot be stopped is no error."""
    chat = call.params.get("chat_id")
    if chat is None:
        chat = cancelled_chat(call)
    agent = await room.chat.agent(who, call.params["app_id"])
    run = as_uid(chat)
    if run is not None:
        await room.chat.stop_run(who, run, agent=agent)
    return Response(body=success({}))


# Sessions -----------------------------------------------------------------------------------------------------------


async def create(call: Request, who: Principal, room: Services) -> Response:
    """Make an empty session."""
    members = json_object(call.body, empty_is_object=True)
    idempotency_key(call, "")
    request = create_session(members)
    agent = await room.chat.agent(who, call.params["app_id"])
    claim = idempotency_key(call, f"POST /v7/devhub/app/{agent.uid}/session/create")
    title = request.name if request.name is not None and request.name.strip() else None

    async def work() -> tuple[Response, Subject]:
        made = await room.chat.create(who, agent, title=title)
        return Response(body=success({"session_id": session(made)})), made

    return await answer_once(room, who, claim, work)


async def sessions(call: Request, who: Principal, room: Services) -> Response:
    """The user's sessions with the agent, the one changed last first."""
    query = sessions_query(call.query)
    size = query.page_size
    agent = await room.chat.agent(who, call.params["app_id"])
    place = _after(paging.place(who, _list_of(agent), query.next_page_token, numbers=2))
    found = await room.chat.conversations(who, ConversationQuery(agent=agent.id, after=place, limit=size + 1))
    token = ""
    if len(found) > size:
        last = found[size - 1]
        token = paging.token(who, _list_of(agent), (last.modified - _EPOCH) // _MICROSECOND, last.id)
    items = [
        {
            "session_id": session(one),
            "name": name(one),
            "ctime": int(one.created.timestamp()),
            "mtime": int(one.modified.timestamp()),
        }
        for one in found[:size]
    ]
    return Response(body=success({"items": items, "next_page_token": token}))


def _list_of(agent: Agent) -> str:
    return f"sessions of {agent.id}"


def _after(place: Sequence[int]) -> tuple[datetime, int] | None:
    """The (modified, id) to go on behind."""
    return (_EPOCH + place[0] * _MICROSECOND, place[1]) if place else None


async def messages(call: Request, who: Principal, room: Services) -> Response:
    """What was said in a session, oldest first; an answer that is being written with its text so far."""
    query = messages_query(call.query)
    ref, size = query.session_id, query.page_size
    agent = await room.chat.agent(who, call.params["app_id"])
    found = await room.chat.conversation(who, ref)
    if found.agent != agent.id:
        raise NotFound(noun="conversation", ref=ref)
    of = f"messages of {found.id}"
    place = paging.place(who, of, query.next_page_token)
    async with room.chat.page(who, found.id, after=place[0] if place else 0, limit=size) as page:
        asked = await _question(who, room, found, page.messages) if query.with_event else None
        token = "" if page.next is None else paging.token(who, of, page.messages[-1].id)
        ends = split_around(success({"items": [], "next_page_token": token}))
        return await list_response(_items(page, shown=session(found, ref), room=room, asked=asked), *ends)


async def _question(who: Principal, room: Services, found: Conversation, history: Sequence[Message]) -> str:
    """What was asked before a page that begins with an answer."""
    if not history or history[0].role == "user":
        return ""
    return "".join(message.text for message in await room.chat.history(who, found.id, before=history[0].id, limit=1))


def _items(page: HistoryPage, *, shown: str, room: Services, asked: str | None) -> Iterator[dict[str, Any]]:
    """A page of messages; with ``asked``, the question before the first one, also with their blocks. A question and
    its answer are stored together, so that the message behind a question is what answers it."""
    following = [*(one.uid for one in page.messages), page.next][1:]
    for message, behind in zip(page.messages, following, strict=True):
        answer = message.uid if message.role == "assistant" or behind is None else behind
        if message.waiting:
            continue
        ended = message.ended
        item: dict[str, Any] = {
            "id": str(message.uid),
            "chat_id": str(answer),
            "session_id": shown,
            "role": message.role,
            "text": message.text,
            "files": [file.ref for file in message.files],
            "state": "partial" if message.role == "assistant" and ended is None else "complete",
            "error": ended is not None and ended.status.failed,
            "timestamp": local_time(message.created, room.settings.timezone),
        }
        if asked is not None:
            item["events"] = blocks(asked, message) if message.role == "assistant" else []
            asked = message.text
        yield item


async def title(call: Request, who: Principal, room: Services) -> Response:
    """A session's name."""
    found = await _own(call, who, room)
    return Response(body=success({"session_id": session(found, call.params["session_id"]), "name": name(found)}))


async def delete(call: Request, who: Principal, room: Services) -> Response:
    """Remove a session with its messages; what runs in it ends."""
    found = await _own(call, who, room)
    await room.chat.delete(who, found.id)
    return Response(body=success({}))


async def _own(call: Request, who: Principal, room: Services) -> Conversation:
    """The session of the path, if its agent is one that the credential may use."""
    ref = call.params["session_id"]
    found = await room.chat.conversation(who, ref)
    try:
        await room.chat.any_agent(who, found.agent)
    except NotFound as problem:
        raise NotFound(noun="conversation", ref=ref) from problem
    return found


# Apps ---------------------------------------------------------------------------------------------------------------


async def detail(call: Request, who: Principal, room: Services) -> Response:
    """What an agent is called and which variables it takes."""
    agent = await room.chat.agent(who, call.params["app_id"])
    variables = [
        {"key": one.name, "required": one.required, "description": one.description} for one in agent.spec.variables
    ]
    data = {
        "app_id": call.params["app_id"],
        "name": agent.name,
        "description": agent.spec.description,
        "icon": agent.spec.icon,
        "variables": variables,
    }
    return Response(body=success(data))


def _twins(
    method: Method, paths: Sequence[str], handle: Handler, purpose: str, told: Operation, *, creating: bool = False
) -> tuple[Route, ...]:
    """One call under all its spellings."""
    return tuple(
        Route(method=method, path=f"/v7/{path}", handle=handle, purpose=purpose, idempotent=creating, operation=told)
        for path in paths
    )


_APP, _APPS = "devhub/app/{app_id}", "devhub/apps/{app_id}"

ROUTES = (
    *_twins(
        "POST",
        (f"{_APP}/chat/create", f"{_APPS}/chats/create", f"sse/{_APPS}/chats/create"),
        say,
        "say something to an agent",
        openapi.SAY,
        creating=True,
    ),
    *_twins("POST", (f"{_APP}/chat/{{chat_id}}/cancel",), cancel, "stop a chat", openapi.CANCEL),
    *_twins("POST", (f"{_APPS}/chats/cancel",), cancel, "stop a chat", openapi.CANCEL_NAMED),
    *_twins(
        "POST",
        (f"{_APP}/session/create", f"{_APPS}/sessions/create"),
        create,
        "make a session",
        openapi.CREATE,
        creating=True,
    ),
    *_twins("GET", (f"{_APP}/session/list", f"{_APPS}/sessions/list"), sessions, "list sessions", openapi.SESSIONS),
    *_twins(
        "GET",
        (f"{_APP}/session/messages", f"{_APPS}/sessions/messages"),
        messages,
        "read a session",
        openapi.MESSAGES,
    ),
    *_twins(
        "GET",
        ("devhub/session/{session_id}/name", "devhub/sessions/{session_id}/name"),
        title,
        "a session's name",
        openapi.NAME,
    ),
    *_twins(
        "POST",
        ("devhub/session/{session_id}/delete", "devhub/sessions/{session_id}/delete"),
        delete,
        "remove a session",
        openapi.DELETE,
    ),
    *_twins("GET", (f"{_APP}/detail", f"{_APPS}/detail"), detail, "what an agent is", openapi.DETAIL),
    Route(
        method="POST",
        path="/oauth2/token",
        handle=tokens,
        purpose="get a user token",
        public=True,
        operation=openapi.TOKENS,
    ),
    Route(
        method="GET",
        path="/oauth2/auth",
        handle=consent,
        purpose="ask for consent",
        public=True,
        operation=openapi.CONSENT,
    ),
)
