"""Messages and their answers, whichever path they come by."""

from __future__ import annotations

from palaver.core.chat import Said
from palaver.core.ports import Claim
from palaver.core.problems import Busy, NotFound
from palaver.core.types import Agent, AnyPart, Conversation, Principal
from palaver.dialects.xspace.shapes import ChatRequest
from palaver.dialects.xspace.stream import Frames, refusal
from palaver.dialects.xspace.words import EVENT_STREAM, reason
from palaver.wire.contract import Call, Reply, Room, Stream


async def converse(
    call: Call,
    who: Principal,
    room: Room,
    *,
    to: tuple[Conversation, Agent],
    request: ChatRequest,
    parts: tuple[AnyPart, ...],
    claim: Claim | None,
) -> Reply | Stream:
    """Say ``parts`` in a conversation and follow the answer."""
    found, agent = to
    said = Said(
        parts=parts,
        variables=request.variableParams or {},
        variables_field="variableParams",
        claim=claim,
        trace=call.trace,
    )
    try:
        sent = await room.chat.send(who, agent, said, conversation=found.id)
    except (NotFound, Busy) as problem:
        return refused(problem, call)
    started = round(sent.answer.created.timestamp() * 1000)
    return Stream(
        reader=sent.reader, replayed=sent.replayed, encoder=Frames(sent.run, started), media_type=EVENT_STREAM
    )


def refused(problem: NotFound | Busy, call: Call) -> Reply:
    """The stream of a message that is not accepted."""
    return Reply(media_type=EVENT_STREAM, writes=refusal(reason(problem, call)))
