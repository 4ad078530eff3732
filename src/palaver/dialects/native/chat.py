"""Messages and runs: send, follow, stop. Source: ``docs/native.md``,
sections 6 and 7."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import msgspec

from palaver.core.chat import NewMessage, Run, Turn, require_enabled
from palaver.core.events import Event, fold
from palaver.core.files import shorten_name
from palaver.core.problems import Invalid
from palaver.core.runs import read_to_end
from palaver.core.types import AnyPart, File, Message, Principal, Text
from palaver.dialects.native import openapi
from palaver.dialects.native.access import agent_ref, open_conversation
from palaver.dialects.native.errors import CONVERSATION, CONVERSATIONS, EVENT_STREAM, ROOT
from palaver.dialects.native.requests import (
    MAX_FILE_NAME,
    EventsQuery,
    SendMessageRequest,
    blank,
    check_message,
    events_query,
    json_request,
    preferred_wait,
    query_request,
    run_of,
    wants_events,
)
from palaver.dialects.native.responses import (
    AnswerResponse,
    ConversationRef,
    StoppedResponse,
    TurnResponse,
    answer_response,
    ok_response,
    question_response,
)
from palaver.dialects.native.stream import NativeEncoder
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Route, Services, StreamingResponse
from palaver.wire.idempotent import REPLAYED
from palaver.wire.responses import NO_CONTENT, JSONResponse, or_stream

STOP_WAIT_S = 10.0
"""Seconds that a stop waits for the run's end to be stored, possibly by another process."""
_URL_SCHEMES = ("http://", "https://")

# Sending ------------------------------------------------------------------------------------------------------------


async def send(
    request: Request, body: SendMessageRequest, principal: Principal, services: Services
) -> JSONResponse[TurnResponse] | StreamingResponse:
    """Start a conversation with a message. ``variables`` are stored with the conversation."""
    agent = await services.chat.agent(principal, agent_ref(body.agent))
    message = NewMessage(
        parts=await _parts(body, principal, services),
        conversation_variables=body.variables,
        idempotency_key=idempotency_key(request, f"POST {ROOT}/messages"),
        trace=request.trace,
    )
    return await _respond(request, services, body, await services.chat.send(principal, agent, message))


async def send_in_conversation(
    request: Request, body: SendMessageRequest, principal: Principal, services: Services
) -> JSONResponse[TurnResponse] | StreamingResponse:
    """Send a message in a conversation. ``variables`` apply to this message only, and override the conversation's."""
    conversation, agent = await open_conversation(request, principal, services)
    require_enabled(agent, agent.uid.hex)
    message = NewMessage(
        parts=await _parts(body, principal, services),
        variables=body.variables or {},
        idempotency_key=idempotency_key(request, f"POST {CONVERSATIONS}/{conversation.uid.hex}/messages"),
        trace=request.trace,
    )
    turn = await services.chat.send(principal, agent, message, conversation=conversation.id)
    return await _respond(request, services, body, turn)


async def _parts(body: SendMessageRequest, principal: Principal, services: Services) -> tuple[AnyPart, ...]:
    """The message's parts. Raises ``NotFound`` for a file that is not the user's."""
    parts: list[AnyPart] = [] if body.content is None or blank(body.content) else [Text(text=body.content)]
    for ref in body.files or ():
        if ref.startswith(_URL_SCHEMES):
            parts.append(File(ref=ref, name=_file_name(ref)))
        else:
            file = await services.files.get(principal, ref)
            parts.append(File(ref=file.key, name=file.name, media_type=file.media_type))
    return tuple(parts)


def _file_name(url: str) -> str:
    """The last segment of the URL's path; empty if it is not UTF-8."""
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise Invalid(field="files", rule="type", detail=str(error)) from error
    name = unquote(PurePosixPath(path).name)
    return "" if "\ufffd" in name else shorten_name(name, MAX_FILE_NAME)


async def _respond(
    request: Request, services: Services, body: SendMessageRequest, turn: Turn
) -> JSONResponse[TurnResponse] | StreamingResponse:
    """The turn as the caller prefers it: as a stream, complete, or in its state at the end of the wait."""
    location = ("Location", f"{ROOT}/runs/{turn.run_uid.hex}")
    if wants_events(request, body):
        opening = _turn_response(turn, msgspec.structs.replace(turn.answer, parts=(), ended=None))
        encoder = NativeEncoder(turn.reader.cursor, opening)
        return StreamingResponse(
            reader=turn.reader, replayed=turn.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=(location,)
        )
    seconds, applied = preferred_wait(request)
    events = await read_to_end(turn.reader, seconds)
    answer = await _current_answer(turn, services) if events is None else _with_events(turn.answer, events)
    headers = ((("Preference-Applied", applied),) if applied else ()) + ((REPLAYED,) if turn.replayed else ())
    status = 202 if answer.ended is None else 200
    return JSONResponse(content=_turn_response(turn, answer), status=status, headers=(location, *headers))


def _turn_response(turn: Turn, answer: Message) -> TurnResponse:
    conversation = turn.conversation
    return TurnResponse(
        conversation=ConversationRef(id=conversation.id, uid=conversation.uid.hex),
        question=question_response(turn.question, conversation),
        answer=answer_response(answer, conversation),
    )


def _with_events(answer: Message, events: list[Event]) -> Message:
    """The answer after ``events``, the first ones of its run."""
    parts, ended = fold(events)
    return msgspec.structs.replace(answer, parts=parts, ended=ended, waiting=answer.waiting and not events)


async def _current_answer(run: Run, services: Services) -> Message:
    """The answer as known to this process: more than was saved, if the run is its own."""
    reader = await services.chat.resume(run)
    try:
        return _with_events(run.answer, reader.take())
    finally:
        reader.close()


# Runs ---------------------------------------------------------------------------------------------------------------


async def show(request: Request, principal: Principal, services: Services) -> AnswerResponse:
    run = await services.chat.open_run(principal, run_of(request))
    return answer_response(await _current_answer(run, services), run.conversation)


async def follow(
    request: Request, query: EventsQuery, principal: Principal, services: Services
) -> StreamingResponse | None:
    """Stream the run's events after a cursor. If there are none, status 204 stops an EventSource from reconnecting."""
    run = await services.chat.open_run(principal, run_of(request))
    reader = await services.chat.resume(run, query.after or 0)
    if reader.done:
        reader.close()
        return None
    return StreamingResponse(reader=reader, encoder=NativeEncoder(reader.cursor), media_type=EVENT_STREAM)


async def stop(request: Request, principal: Principal, services: Services) -> JSONResponse[AnswerResponse]:
    """Stop a run, or drop it if it is queued; the response shows its progress. A run that has ended is unchanged."""
    run = await services.chat.open_run(principal, run_of(request))
    await services.chat.stop_run(run, within=0)
    answer = await services.chat.wait_for_end(run, STOP_WAIT_S)
    return JSONResponse(content=answer_response(answer, run.conversation), status=202 if answer.ended is None else 200)


async def stop_all(request: Request, principal: Principal, services: Services) -> StoppedResponse:
    """Stop the conversation's running turn and drop the queued ones."""
    conversation, _ = await open_conversation(request, principal, services)
    return StoppedResponse(stopped=await services.chat.stop(conversation))


_RUN = f"{ROOT}/runs/{{uid}}"
_MESSAGE = json_request(SendMessageRequest, check_message)

ROUTES = (
    Route(
        method="POST",
        path=f"{ROOT}/messages",
        endpoint=send,
        request=_MESSAGE,
        response=or_stream(ok_response(TurnResponse)),
        summary="begin a conversation with a message",
        idempotent=True,
        operation=openapi.BEGIN,
    ),
    Route(
        method="POST",
        path=f"{CONVERSATION}/messages",
        endpoint=send_in_conversation,
        request=_MESSAGE,
        response=or_stream(ok_response(TurnResponse)),
        summary="send a message",
        idempotent=True,
        operation=openapi.SEND,
    ),
    Route(
        method="POST",
        path=f"{CONVERSATION}/stop",
        endpoint=stop_all,
        response=ok_response(StoppedResponse),
        summary="stop the running turn and drop the waiting ones",
        operation=openapi.STOP_ALL,
    ),
    Route(
        method="GET",
        path=_RUN,
        endpoint=show,
        response=ok_response(AnswerResponse),
        summary="a run and what it wrote",
        operation=openapi.RUN,
    ),
    Route(
        method="GET",
        path=f"{_RUN}/events",
        endpoint=follow,
        request=query_request(EventsQuery, events_query),
        response=or_stream(NO_CONTENT),
        summary="follow a run from any place on",
        operation=openapi.EVENTS,
    ),
    Route(
        method="POST",
        path=f"{_RUN}/stop",
        endpoint=stop,
        response=ok_response(AnswerResponse),
        summary="stop a run",
        operation=openapi.STOP,
    ),
)
