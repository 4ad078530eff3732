"""Messages and runs: say something, follow the answer from any place of it, stop it. Source: ``docs/native.md``,
sections 6 and 7."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import msgspec

from palaver.core.chat import NewMessage, Run, Turn, require_enabled
from palaver.core.events import Event, fold
from palaver.core.files import shorten_name
from palaver.core.problems import Invalid
from palaver.core.runs import collect
from palaver.core.types import AnyPart, File, Message, Principal, Text
from palaver.dialects.native import openapi
from palaver.dialects.native.access import agent_ref, own_conversation, route
from palaver.dialects.native.errors import EVENT_STREAM, ROOT
from palaver.dialects.native.requests import (
    MAX_FILE_NAME,
    MAX_FILES,
    SendMessageRequest,
    blank,
    cursor_of,
    preferred_wait,
    run_of,
    wants_events,
)
from palaver.dialects.native.responses import (
    ConversationRef,
    StoppedResponse,
    TurnResponse,
    answer_response,
    question_response,
)
from palaver.dialects.native.stream import NativeEncoder
from palaver.wire.bodies import idempotency_key, json_object, parse
from palaver.wire.contract import Request, Response, Services, StreamingResponse
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import REPLAYED

STOP_WAIT_S = 10.0
"""How long a stop waits until the run's end is stored, which may be another process's business."""
_ADDRESS = ("http://", "https://")

# Saying something ---------------------------------------------------------------------------------------------------


async def send(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """Begin a conversation by saying something. ``variables`` stay with the conversation."""
    body = _parse_body(request)
    agent = await services.chat.agent(who, agent_ref(body.agent))
    message = NewMessage(
        parts=await _parts(body, who, services),
        conversation_variables=body.variables,
        idempotency_key=idempotency_key(request, f"POST {ROOT}/messages"),
        trace=request.trace,
    )
    return await _reply(request, services, body, await services.chat.send(who, agent, message))


async def send_into(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """Say something in a conversation. ``variables`` are this message's alone, and come before the conversation's."""
    body = _parse_body(request)
    conversation, agent = await own_conversation(request.path_params["conversation"], who, services)
    require_enabled(agent, agent.uid.hex)
    message = NewMessage(
        parts=await _parts(body, who, services),
        variables=body.variables or {},
        idempotency_key=idempotency_key(request, f"POST {ROOT}/conversations/{conversation.uid.hex}/messages"),
        trace=request.trace,
    )
    return await _reply(
        request, services, body, await services.chat.send(who, agent, message, conversation=conversation.id)
    )


def _parse_body(request: Request) -> SendMessageRequest:
    """Raises ``Invalid`` for the first rule broken."""
    body = parse(SendMessageRequest, json_object(request.body))
    files = body.files or []
    if blank(body.content) and not files:
        raise Invalid(field="content", rule="required")
    if len(files) > MAX_FILES or any(map(blank, files)):
        raise Invalid(field="files", rule="length", detail=f"more than {MAX_FILES}, or a blank one")
    return body


async def _parts(body: SendMessageRequest, who: Principal, services: Services) -> tuple[AnyPart, ...]:
    """What the user says. Raises ``NotFound`` for the key of a file that is not the user's."""
    parts: list[AnyPart] = [] if body.content is None or blank(body.content) else [Text(text=body.content)]
    for ref in body.files or ():
        if ref.startswith(_ADDRESS):
            parts.append(File(ref=ref, name=_name_in(ref)))
        else:
            file = await services.files.get(who, ref)
            parts.append(File(ref=file.key, name=file.name, media_type=file.media_type))
    return tuple(parts)


def _name_in(address: str) -> str:
    """The last segment of the address's path, as a file's name; empty where it is not UTF-8."""
    try:
        path = urlsplit(address).path
    except ValueError as error:
        raise Invalid(field="files", rule="type", detail=str(error)) from error
    name = unquote(PurePosixPath(path).name)
    return "" if "\ufffd" in name else shorten_name(name, MAX_FILE_NAME)


async def _reply(
    request: Request, services: Services, body: SendMessageRequest, sent: Turn
) -> Response | StreamingResponse:
    """The answer in the form that was asked for: followed, as a whole, or as it stands when the wait is over."""
    location = ("Location", f"{ROOT}/runs/{sent.run_uid.hex}")
    if wants_events(request, body):
        opening = _turn_response(sent, msgspec.structs.replace(sent.answer, parts=(), ended=None))
        encoder = NativeEncoder(sent.reader.cursor, opening)
        return StreamingResponse(
            reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=(location,)
        )
    seconds, applied = preferred_wait(request)
    events = await collect(sent.reader, seconds)
    answer = await _current_answer(sent, services) if events is None else _with_events(sent.answer, events)
    headers = ((("Preference-Applied", applied),) if applied else ()) + ((REPLAYED,) if sent.replayed else ())
    status = 202 if answer.ended is None else 200
    return Response(status=status, body=compact_json(_turn_response(sent, answer)), headers=(location, *headers))


def _turn_response(sent: Turn, answer: Message) -> TurnResponse:
    conversation = sent.conversation
    return TurnResponse(
        conversation=ConversationRef(id=conversation.id, uid=conversation.uid.hex),
        question=question_response(sent.question, conversation),
        answer=answer_response(answer, conversation),
    )


def _with_events(answer: Message, events: list[Event]) -> Message:
    """The answer as ``events``, its run's first ones, write it."""
    parts, ended = fold(events)
    return msgspec.structs.replace(answer, parts=parts, ended=ended, waiting=answer.waiting and not events)


async def _current_answer(run: Run, services: Services) -> Message:
    """The answer as far as this process knows it: of a run of its own, more than was saved."""
    reader = await services.chat.resume(run)
    try:
        return _with_events(run.answer, reader.take())
    finally:
        reader.close()


# Runs ---------------------------------------------------------------------------------------------------------------


async def show(request: Request, who: Principal, services: Services) -> Response:
    run = await services.chat.open_run(who, run_of(request))
    return Response(body=compact_json(answer_response(await _current_answer(run, services), run.conversation)))


async def follow(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """The run's events from a cursor on. 204 where there are none: it makes an EventSource stop connecting again."""
    cursor = cursor_of(request)
    reader = await services.chat.resume(await services.chat.open_run(who, run_of(request)), cursor)
    if reader.done:
        reader.close()
        return Response(status=204)
    return StreamingResponse(reader=reader, encoder=NativeEncoder(reader.cursor), media_type=EVENT_STREAM)


async def stop(request: Request, who: Principal, services: Services) -> Response:
    """Stop a run, or drop it while it waits; the answer says how far it came. One that has ended stays as it is."""
    run = await services.chat.open_run(who, run_of(request))
    await services.chat.stop_run(run, within=0)
    stopped = await services.chat.wait_for_end(run, STOP_WAIT_S)
    return Response(
        status=202 if stopped.ended is None else 200, body=compact_json(answer_response(stopped, run.conversation))
    )


async def stop_all(request: Request, who: Principal, services: Services) -> Response:
    """Stop the conversation's running turn and drop those that wait."""
    conversation, _ = await own_conversation(request.path_params["conversation"], who, services)
    return Response(body=compact_json(StoppedResponse(stopped=await services.chat.stop(conversation))))


ROUTES = (
    route("POST", "messages", send, "begin a conversation with a message", openapi.BEGIN, creating=True),
    route("POST", "conversations/{conversation}/messages", send_into, "send a message", openapi.SEND, creating=True),
    route(
        "POST",
        "conversations/{conversation}/stop",
        stop_all,
        "stop the running turn and drop the waiting ones",
        openapi.STOP_ALL,
    ),
    route("GET", "runs/{uid}", show, "a run and what it wrote", openapi.RUN),
    route("GET", "runs/{uid}/events", follow, "follow a run from any place on", openapi.EVENTS),
    route("POST", "runs/{uid}/stop", stop, "stop a run", openapi.STOP),
)
