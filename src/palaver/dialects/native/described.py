"""What the OpenAPI document says of palaver's own API. Source: ``docs/native.md``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from palaver.dialects.native.shapes import (
    ConversationsQuery,
    EventsQuery,
    MessagesQuery,
    Naming,
    NewConversation,
    Saying,
    UploadQuery,
)
from palaver.dialects.native.shown import (
    AgentShown,
    AgentsShown,
    AnswerShown,
    CodesShown,
    ConversationNamed,
    ConversationShown,
    ConversationsShown,
    FileShown,
    MessagesShown,
    QuestionShown,
    SentShown,
    StepsShown,
    StoppedShown,
    TextShown,
    UsageShown,
)
from palaver.dialects.native.stream import Events
from palaver.dialects.native.words import EVENT_STREAM, ProblemShown
from palaver.wire.describe import About, Answer, Body, Operation, Parameter, Query, Scheme, example_run
from palaver.wire.users import MAX_USER, USER

PAGE = "`docs/native.md`, section"
_CONVERSATION, _QUESTION = "0199a3c1b6f27c1e8a6d0c5b4a392817", "0199a3c1b6f27c1e8a6d0c5b4a392818"
_RUN, _THEN = "0199a3c1b6f27c1e8a6d0c5b4a392819", "2026-01-01T09:30:00.000Z"
_SENT = SentShown(
    conversation=ConversationNamed(id=7, uid=_CONVERSATION),
    question=QuestionShown(
        id=12,
        uid=_QUESTION,
        conversation=_CONVERSATION,
        created=_THEN,
        text="What is the weather like?",
        parts=(TextShown(text="What is the weather like?"),),
    ),
    answer=AnswerShown(
        id=13,
        uid=_RUN,
        conversation=_CONVERSATION,
        created=_THEN,
        text="",
        parts=(),
        status="live",
        reason=None,
        problem=None,
        usage=UsageShown(),
        steps=StepsShown(begun=0, done=0),
        position=0,
        cursor=0,
        ended=None,
    ),
)


def _turn(encoder: Events) -> dict[str, Any]:
    """The example of a stream, as its encoder writes it."""
    return {"a turn": b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()}


_PLACE = Parameter(name="Location", meaning="Where it is.")
_APPLIED = Parameter(name="Preference-Applied", meaning="What of `Prefer` was heeded.")
_AS_IT_STANDS = Answer(
    meaning="The run goes on: its answer as it stands.", status=202, shape=SentShown, headers=(_PLACE, _APPLIED)
)
_SAID = (
    Answer(
        meaning="The run has ended: question and answer.",
        shape=SentShown,
        examples={"as it began": msgspec.to_builtins(_SENT)},
        headers=(_PLACE, _APPLIED),
    ),
    Answer(
        meaning="Or server-sent events, where they were asked for: `sent`, then `opened`, `grew`, `added`, `ended`.",
        media_type=EVENT_STREAM,
        examples=_turn(Events(0, _SENT)),
        headers=(_PLACE,),
    ),
    _AS_IT_STANDS,
)
_MESSAGE = {"content": "What is the weather like?"}

PROBLEMS = Operation(source=f"{PAGE} 3", answers=(Answer(meaning="Every code.", shape=CodesShown),))
AGENTS = Operation(source=f"{PAGE} 5", answers=(Answer(meaning="Agents, by name.", shape=AgentsShown),))
AGENT = Operation(source=f"{PAGE} 5", answers=(Answer(meaning="The agent.", shape=AgentShown),), finds=("agent",))
CREATE = Operation(
    source=f"{PAGE} 5",
    body=Body(
        shape=NewConversation, required=("agent",), examples={"a conversation": {"agent": 1, "title": "Sundays"}}
    ),
    answers=(Answer(meaning="The new conversation.", status=201, shape=ConversationShown, headers=(_PLACE,)),),
    finds=("agent",),
)
CONVERSATIONS = Operation(
    source=f"{PAGE} 5",
    query=Query(shape=ConversationsQuery),
    answers=(Answer(meaning="Conversations, the one changed last first.", shape=ConversationsShown),),
    finds=("agent",),
)
_THE_CONVERSATION = Answer(meaning="The conversation.", shape=ConversationShown)
CONVERSATION = Operation(source=f"{PAGE} 5", answers=(_THE_CONVERSATION,), finds=("conversation",))
TITLE = Operation(
    source=f"{PAGE} 5",
    body=Body(shape=Naming, required=("title",), examples={"a title": {"title": "Sundays"}}),
    answers=(_THE_CONVERSATION,),
    finds=("conversation",),
)
DELETE = Operation(
    source=f"{PAGE} 5",
    answers=(Answer(meaning="Deleted.", status=204, media_type=""),),
    finds=("conversation",),
)
MESSAGES = Operation(
    source=f"{PAGE} 5",
    query=Query(shape=MessagesQuery),
    answers=(Answer(meaning="Messages, oldest first.", shape=MessagesShown),),
    finds=("conversation",),
)
BEGIN = Operation(
    source=f"{PAGE} 6",
    body=Body(shape=Saying, required=("agent",), examples={"a message": {"agent": 1, **_MESSAGE}}),
    answers=_SAID,
    more="`content`, files, or both. `Prefer: respond-async` and `Prefer: wait=10` say how long to wait for the end.",
    finds=("agent", "file"),
)
SEND = Operation(
    source=f"{PAGE} 6",
    body=Body(shape=Saying, examples={"a message": _MESSAGE}),
    answers=_SAID,
    more=BEGIN.more,
    finds=("agent", "conversation", "file"),
)
STOP_ALL = Operation(
    source=f"{PAGE} 7",
    answers=(Answer(meaning="How many runs were told to stop.", shape=StoppedShown),),
    finds=("conversation",),
)
_THE_RUN = Answer(meaning="The run: the answer that it writes.", shape=AnswerShown)
RUN = Operation(source=f"{PAGE} 4", answers=(_THE_RUN,), finds=("run",))
EVENTS = Operation(
    source=f"{PAGE} 7",
    query=Query(shape=EventsQuery),
    answers=(
        Answer(
            meaning="Server-sent events: `opened`, `grew`, `added`, `ended`. An `id` is the cursor behind the event.",
            media_type=EVENT_STREAM,
            examples=_turn(Events(0)),
        ),
        Answer(meaning="Nothing comes behind the cursor: the run has ended.", status=204, media_type=""),
    ),
    more="The header `Last-Event-ID` comes before `after`.",
    finds=("run",),
)
STOP = Operation(
    source=f"{PAGE} 7",
    answers=(
        Answer(meaning="The receipt: how far the run came.", shape=AnswerShown),
        Answer(meaning="Told to stop; its end is not stored yet.", status=202, shape=AnswerShown),
    ),
    finds=("run",),
)
UPLOAD = Operation(
    source=f"{PAGE} 8",
    query=Query(shape=UploadQuery, example={"name": "menu.txt"}),
    body=Body(media_type="application/octet-stream"),
    answers=(Answer(meaning="The file.", status=201, shape=FileShown, headers=(_PLACE,)),),
    more="The body is the file, whatever it is; `Content-Type` is the file's.",
)
DOWNLOAD = Operation(
    source=f"{PAGE} 8",
    answers=(Answer(meaning="The file's bytes.", media_type="*/*"),),
    finds=("file",),
)

DELETE_FILE = Operation(
    source=f"{PAGE} 8",
    answers=(Answer(meaning="Deleted.", status=204, media_type=""),),
    finds=("file",),
)

ABOUT = About(
    title="palaver's own API",
    meaning="For callers who need no vendor's. A run is followed from any character of its answer on, and stopped with"
    " a receipt.",
    refusal=ProblemShown,
    schemes=(Scheme(name="secret", kind="bearer", meaning="The credential's secret, `pv-…`."),),
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
            meaning="The end user, percent-encoded where need be; without it the credential's `default_user`.",
            shape=Annotated[str, Meta(max_length=MAX_USER)],
            example="ann",
        ),
    ),
)
