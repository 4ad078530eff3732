"""What every dialect must do, whatever its vendor says. ``test_contract`` runs it for each of them.

A dialect's folder of tests says in ``contract_adapter.py`` what cannot be known from outside: its encoders, how
what they write is read, headers that are no credential, its clients and where ids stand in its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args, get_type_hints

from hypothesis import strategies as st
from requests import PreparedRequest
from support.check_orders import CheckOrder
from support.dialect_clients import DialectClient
from support.histories import HistoryForm
from support.http_clients import Ask
from support.id_fields import Probe
from support.limits import LimitCalls
from support.live_server import Served
from support.stream_forms import StreamForm
from support.turns import FailedTurnForm, MessageForm, StopForm

from palaver import app
from palaver.core.admit import Admission
from palaver.core.events import Draft, Event, PartAdded, PartStarted, TextDelta
from palaver.core.ports.store import AdmittedCalls
from palaver.core.problems import (
    AnyProblem,
    AuthReason,
    Busy,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    Noun,
    Rule,
    Unauthenticated,
    Upstream,
)
from palaver.core.types import (
    Agent,
    ApiKey,
    File,
    Principal,
    RunEnded,
    Status,
    Text,
    Thinking,
    Token,
    ToolCall,
    ToolResult,
)
from palaver.http.app import App
from palaver.http.body import BodyLimits, BodyReader
from palaver.http.metrics import Gauges, Metrics
from palaver.http.revocation import CredentialRef, RevocationWatcher
from palaver.http.stream import HeartbeatTimer
from palaver.wire.contract import Dialect, Encoder, Request, Response, Route, Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one event of a stream says to its reader. ``whole`` is the answer given once more as a whole."""

    thinking: str = ""
    text: str = ""
    whole: str | None = None
    last: bool = False
    failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a dialect's streams. ``read`` asserts that each write is one event, and reads them."""

    name: str
    encoder: Callable[[], Encoder]
    read: Callable[[Sequence[bytes]], list[Heard]]


RequestBuilder = Callable[[Route, str, str, Any], Ask]
"""A request to a route, of its path, query and body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractAdapter:
    """What the shared suites have to know of a dialect. Every member is required: a suite that has nothing to test of
    a dialect is one that somebody forgot."""

    forms: tuple[Form, ...]
    wrong_credentials: tuple[Mapping[str, str], ...]
    """Headers that let nobody in."""
    credentials_with: Callable[[str], tuple[Mapping[str, str], ...]]
    """Headers that let nobody in, with that text as every secret, id and signature."""
    streams: tuple[StreamForm, ...]
    id_fields: Mapping[str, tuple[Probe, ...]]
    exempt_id_fields: Mapping[str, str]
    not_ids: Mapping[str, str]
    client: Callable[[Served, Agent], DialectClient]
    key_settings: Callable[[Agent], Mapping[str, Any]]
    """Settings of a credential that may do whatever ``USER`` may do with that agent."""
    sign: Callable[[ApiKey, PreparedRequest], Mapping[str, str]]
    """The headers that prove that the key's owner sends the request."""
    requests: Callable[[Served, str, Sequence[str], ApiKey | None], RequestBuilder]
    """Requests of an end user, with a credential for agents of those UUIDs; ``None`` makes one."""
    check_orders: tuple[CheckOrder, ...]
    """The order of its checks, of each surface that has one of its own."""
    limits: LimitCalls
    stops: tuple[StopForm, ...]
    """Every call that stops a run; empty if the vendor has none."""
    messages: tuple[MessageForm, ...]
    """Every call that sends a message in a conversation."""
    failed_turns: tuple[FailedTurnForm, ...]
    """Every way to read the messages of a conversation; empty if the vendor has none."""
    histories: tuple[HistoryForm, ...]
    """The same, for conversations of many pages."""


DIALECTS = {dialect.name: dialect for dialect in app.all_dialects()}


# Problems -----------------------------------------------------------------------------------------------------------


def reasons(kind: type[Any]) -> tuple[Any, ...]:
    """The reasons that a kind of problem knows."""
    return get_args(get_type_hints(kind.__init__)["reason"])


FIELDS = ("body", "Idempotency-Key", "content", "agentId", "openId", "x", "")
SUBJECTS = ("", "app-1", "用户\u2028\r\n\0\x7f\x85🙂", '"}\\')
WAITS = (None, 0, 0.0, 0.2, 1, 59.99, 60, 1e9)


def problems() -> list[AnyProblem]:
    """One of every kind, reason and field, with texts that are hard to write down."""
    return [
        *(Unauthenticated(reason=reason, subject=text) for reason in get_args(AuthReason) for text in SUBJECTS),
        *(Forbidden(reason=text) for text in SUBJECTS),
        *(NotFound(noun=noun, ref=text) for noun in get_args(Noun) for text in SUBJECTS),
        *(
            Invalid(field=field, rule=rule, detail=text)
            for field in FIELDS
            for rule in get_args(Rule)
            for text in SUBJECTS[:2]
        ),
        *(Conflict(reason=reason, detail=SUBJECTS[2]) for reason in reasons(Conflict)),
        *(Busy(reason=reason, retry_after=wait) for reason in reasons(Busy) for wait in WAITS),
        *(
            Upstream(reason=reason, status=status, detail=SUBJECTS[2], retry_after=wait)
            for reason in reasons(Upstream)
            for status, wait in ((None, None), (429, 3.5), (500, 0))
        ),
        *(Internal(reason=reason, detail=SUBJECTS[2]) for reason in reasons(Internal)),
    ]


# Events -------------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    [" ", "\n\n", "\t", "\u3000", "\u2028\u2029\x85", "\x00\x1f\x7f", "🙂", "\ud83d", "data: x\n\n", '}{"\\']
)
"""Anything a model might say, halves of emoji included."""
_whole_parts = st.sampled_from(
    [
        ToolCall(call_id="1", name="knowledge_search", arguments={"query": "用户"}, at=1),
        ToolResult(call_id="1", name="knowledge_search", content="found", data=[{"text": "x"}], at=2),
        ToolResult(call_id="2", name="x", content="", error=True),
        File(ref="f", name="a.md", media_type="text/markdown"),
    ]
)
_ends = st.builds(
    RunEnded,
    status=st.sampled_from([status for status in Status if status is not Status.LIVE]),
    reason=st.sampled_from(["stop", "length", "error"]),
    problem=st.none() | st.sampled_from(problems()),
)
_events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(
        [PartStarted(part=Text()), PartStarted(part=Thinking()), PartStarted(part=Thinking(provider_data={"s": "1"}))]
    ),
    st.builds(TextDelta, text=words),
    st.builds(TextDelta, text=words),
    st.builds(PartAdded, part=_whole_parts),
)


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    """The events of a run that ended: any sequence that a ``Draft`` takes."""
    draft = Draft()
    taken: list[Event] = []
    for event in [*draw(st.lists(_events, max_size=12)), draw(_ends)]:
        try:
            draft.apply(event)
        except ValueError:
            continue
        taken.append(event)
    return taken


def at_once(events: Sequence[Event]) -> list[Event]:
    """The same run, as somebody reads it who comes when it is over."""
    draft = Draft()
    for event in events:
        draft.apply(event)
    return draft.read(draft.cursor(0))


def one_by_one(events: Sequence[Event]) -> list[Event]:
    """The same run, character by character."""
    return [
        piece
        for event in at_once(events)
        for piece in ([TextDelta(text=one) for one in event.text] if isinstance(event, TextDelta) else [event])
    ]


NOW = 1_790_000_000.0


def encoded(form: Form, events: Sequence[Event]) -> list[bytes]:
    """What a fresh encoder writes of events a tenth of a second apart, what it held back included."""
    encoder = form.encoder()
    writes: list[bytes] = []
    for number, event in enumerate(events):
        now = NOW + number / 10
        if encoder.flush_at is not None and encoder.flush_at <= now:
            writes += encoder.flush(now)
        writes += encoder.encode(event, now)
    if encoder.flush_at is not None:
        writes += encoder.flush(encoder.flush_at)
    assert encoder.flush_at is None, "nothing is held back after the end"
    return writes


# A server that lets nobody in ---------------------------------------------------------------------------------------


async def nobody_enabled(_names: Sequence[CredentialRef]) -> dict[CredentialRef, ApiKey]:
    """Where there is no credential."""
    return {}


class NoKeys:
    """Credentials of an installation that has none."""

    async def get_by_id(self, dialect: str, id: str) -> ApiKey | None:
        return None

    async def get_by_secret(self, dialect: str, secret: str) -> ApiKey | None:
        return None

    def record_use(self, key: ApiKey) -> None: ...

    async def get_by_number(self, app_id: int, number: int) -> ApiKey | None:
        return None

    async def list_with_setting(self, dialect: str, name: str) -> list[ApiKey]:
        return []


class NoLimits:
    """Limits that admit everything."""

    async def count(self, key: ApiKey, calls: int) -> AdmittedCalls:
        return AdmittedCalls(by_rate=calls, by_day=calls, by_total=calls, wait_s=0, wait_day_s=0)

    async def refund(self, key: ApiKey) -> None:
        raise AssertionError(key)

    async def claim_nonce(self, key: ApiKey, request: str, ttl_s: float) -> bool:
        return True


class NoTokens:
    """Tokens of an installation that issued none."""

    async def issue(self, token: Token, secret: str, *, parent: str | None = None) -> bool:
        raise AssertionError(token)

    async def find(self, secret: str, kind: str) -> Token | None:
        return None

    async def redeem(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        return None

    def sign(self, token: Token) -> str:
        raise AssertionError(token)

    async def verify(self, text: str) -> Token | None:
        return None


def trapped(dialect: Dialect, reached: list[str]) -> Dialect:
    """The dialect, with handlers that do nothing but note that they were called."""

    async def trap(call: Request, who: Principal, room: Services) -> Response:
        reached.append(call.path)
        return Response()

    return replace(
        dialect, routes=tuple(replace(route, endpoint=trap, request=None, response=None) for route in dialect.routes)
    )


async def _ready() -> str | None:
    return None


def front(dialect: Dialect, reached: list[str]) -> App:
    """The dialect alone behind HTTP, on nothing; the paths whose handlers are called come into ``reached``."""
    return App(
        dialects=[trapped(dialect, reached)],
        services=cast("Any", None),  # no handler uses it
        admission=Admission(NoKeys(), NoLimits(), NoTokens()),
        metrics=Metrics(Gauges),
        heartbeats=HeartbeatTimer(10),
        ready=_ready,
        body_reader=BodyReader(BodyLimits(max_body_bytes=1000, max_upload_bytes=1000)),
        revocations=RevocationWatcher(nobody_enabled),
        site_url=None,
        language="en-US",
    )


def path(route: Route) -> str:
    """A path that the route serves."""
    return "/".join("x" if segment.startswith("{") else segment for segment in route.path.split("/"))
