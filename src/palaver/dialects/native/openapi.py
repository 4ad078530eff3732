"""OpenAPI descriptions of the native API's operations. Source: ``docs/native.md``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from palaver.dialects.native.errors import EVENT_STREAM, ProblemDocument
from palaver.dialects.native.responses import (
    AnswerResponse,
    ConversationRef,
    QuestionResponse,
    StepCounts,
    TextPartResponse,
    TurnResponse,
    UsageResponse,
)
from palaver.dialects.native.stream import NativeEncoder
from palaver.wire.operation import (
    BodySpec,
    DialectInfo,
    Operation,
    Parameter,
    QuerySpec,
    ResponseSpec,
    SecurityScheme,
    example_run,
)
from palaver.wire.user_header import MAX_USER, USER

PAGE = "`docs/native.md`, section"
_CONVERSATION, _QUESTION = "0199a3c1b6f27c1e8a6d0c5b4a392817", "0199a3c1b6f27c1e8a6d0c5b4a392818"
_RUN, _THEN = "0199a3c1b6f27c1e8a6d0c5b4a392819", "2026-01-01T09:30:00.000Z"
_SENT = TurnResponse(
    conversation=ConversationRef(id=7, uid=_CONVERSATION),
    question=QuestionResponse(
        id=12,
        uid=_QUESTION,
        conversation=_CONVERSATION,
        created=_THEN,
        text="What is the weather like?",
        parts=(TextPartResponse(text="What is the weather like?"),),
    ),
    answer=AnswerResponse(
        id=13,
        uid=_RUN,
        conversation=_CONVERSATION,
        created=_THEN,
        text="",
        parts=(),
        status="live",
        reason=None,
        problem=None,
        usage=UsageResponse(),
        steps=StepCounts(begun=0, done=0),
        position=0,
        cursor=0,
        ended=None,
    ),
)


def _turn(encoder: NativeEncoder) -> dict[str, Any]:
    """The example of a stream, as encoded by ``encoder``."""
    return {"a turn": b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()}


_LOCATION = Parameter(name="Location", meaning="The resource's path.")
_APPLIED = Parameter(name="Preference-Applied", meaning="The preferences of `Prefer` that were applied.")
_STILL_RUNNING = ResponseSpec(
    meaning="The run continues: its answer so far.", status=202, headers=(_LOCATION, _APPLIED)
)
_TURN_RESPONSES = (
    ResponseSpec(
        meaning="The run has ended: question and answer.",
        examples={"as it began": msgspec.to_builtins(_SENT)},
        headers=(_LOCATION, _APPLIED),
    ),
    ResponseSpec(
        meaning="Or server-sent events, if requested: `run.created`, then `part.started`, `text.delta`,"
        " `part.added`, `run.ended`.",
        media_type=EVENT_STREAM,
        examples=_turn(NativeEncoder(0, _SENT)),
        headers=(_LOCATION,),
    ),
    _STILL_RUNNING,
)
_MESSAGE = {"content": "What is the weather like?"}

PROBLEMS = Operation(source=f"{PAGE} 3", responses=(ResponseSpec(meaning="All codes."),))
AGENTS = Operation(source=f"{PAGE} 5", responses=(ResponseSpec(meaning="Agents, by name."),))
AGENT = Operation(source=f"{PAGE} 5", responses=(ResponseSpec(meaning="The agent."),), not_found=("agent",))
CREATE = Operation(
    source=f"{PAGE} 5",
    body=BodySpec(
        required=("agent",),
        examples={"a conversation": {"agent": 1, "title": "Sundays"}},
    ),
    responses=(ResponseSpec(meaning="The new conversation.", status=201, headers=(_LOCATION,)),),
    not_found=("agent",),
)
CONVERSATIONS = Operation(
    source=f"{PAGE} 5",
    responses=(ResponseSpec(meaning="Conversations, most recently changed first."),),
    not_found=("agent",),
)
_THE_CONVERSATION = ResponseSpec(meaning="The conversation.")
CONVERSATION = Operation(source=f"{PAGE} 5", responses=(_THE_CONVERSATION,), not_found=("conversation",))
TITLE = Operation(
    source=f"{PAGE} 5",
    body=BodySpec(required=("title",), examples={"a title": {"title": "Sundays"}}),
    responses=(_THE_CONVERSATION,),
    not_found=("conversation",),
)
DELETE = Operation(
    source=f"{PAGE} 5",
    responses=(ResponseSpec(meaning="Deleted.", status=204, media_type=""),),
    not_found=("conversation",),
)
MESSAGES = Operation(
    source=f"{PAGE} 5",
    responses=(ResponseSpec(meaning="Messages, oldest first."),),
    not_found=("conversation",),
)
BEGIN = Operation(
    source=f"{PAGE} 6",
    body=BodySpec(required=("agent",), examples={"a message": {"agent": 1, **_MESSAGE}}),
    responses=_TURN_RESPONSES,
    more="`content`, files, or both. `Prefer: respond-async` and `Prefer: wait=10` set how long to wait for the end.",
    not_found=("agent", "file"),
)
SEND = Operation(
    source=f"{PAGE} 6",
    body=BodySpec(examples={"a message": _MESSAGE}),
    responses=_TURN_RESPONSES,
    more=BEGIN.more,
    not_found=("agent", "conversation", "file"),
)
STOP_ALL = Operation(
    source=f"{PAGE} 7",
    responses=(ResponseSpec(meaning="The number of runs that are being stopped."),),
    not_found=("conversation",),
)
_THE_RUN = ResponseSpec(meaning="The run and its answer so far.")
RUN = Operation(source=f"{PAGE} 4", responses=(_THE_RUN,), not_found=("run",))
EVENTS = Operation(
    source=f"{PAGE} 7",
    responses=(
        ResponseSpec(
            meaning="Server-sent events: `part.started`, `text.delta`, `part.added`, `run.ended`. An `id` is the cursor"
            " after the event.",
            media_type=EVENT_STREAM,
            examples=_turn(NativeEncoder(0)),
        ),
        ResponseSpec(meaning="The run has ended at or before the cursor.", status=204, media_type=""),
    ),
    more="The header `Last-Event-ID` takes precedence over `after`.",
    not_found=("run",),
)
STOP = Operation(
    source=f"{PAGE} 7",
    responses=(
        ResponseSpec(meaning="The receipt: the run's progress."),
        ResponseSpec(meaning="The run is being stopped; its end is not stored yet.", status=202),
    ),
    not_found=("run",),
)
UPLOAD = Operation(
    source=f"{PAGE} 8",
    query=QuerySpec(example={"name": "menu.txt"}),
    body=BodySpec(media_type="application/octet-stream"),
    responses=(ResponseSpec(meaning="The file.", status=201, headers=(_LOCATION,)),),
    more="The body is the file's content; `Content-Type` is its media type.",
)
DOWNLOAD = Operation(
    source=f"{PAGE} 8",
    responses=(ResponseSpec(meaning="The file's bytes.", media_type="*/*"),),
    not_found=("file",),
)

DELETE_FILE = Operation(
    source=f"{PAGE} 8",
    responses=(ResponseSpec(meaning="Deleted.", status=204, media_type=""),),
    not_found=("file",),
)

INFO = DialectInfo(
    title="palaver's own API",
    meaning="For callers that need no vendor's API. Runs can be followed from any character of their answer, and"
    " stopped with a receipt.",
    refusal=ProblemDocument,
    schemes=(SecurityScheme(name="secret", kind="bearer", meaning="The credential's secret, `pv-…`."),),
    needs=(("secret",),),
    path=(
        Parameter(name="agent", meaning="The agent's `id`, `uid`, alias or name.", example="1"),
        Parameter(name="conversation", meaning="The conversation's `id`, `uid` or alias.", example="7"),
        Parameter(name="uid", meaning="The run's `uid`.", example=_RUN),
        Parameter(name="key", meaning="The file's `key`.", example="5f2b1c0d9e8a7f6b5c4d3e2f1a0b9c8d"),
    ),
    headers=(
        Parameter(
            name=USER,
            meaning="The end user, percent-encoded if necessary; defaults to the credential's `default_user`.",
            shape=Annotated[str, Meta(max_length=MAX_USER)],
            example="ann",
        ),
    ),
)
