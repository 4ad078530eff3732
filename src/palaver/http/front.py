"""The ASGI application: one request from its first byte to its last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import msgspec
import structlog

from palaver.core.admit import Admission
from palaver.core.loggable import loggable
from palaver.core.problems import AnyProblem, Internal, Invalid, NotFound, Problem, Unauthenticated
from palaver.core.types import ANYBODY, Key, Principal, Token
from palaver.http.handbook import Handbook
from palaver.http.home import home
from palaver.http.metrics import MEDIA_TYPE, Metrics
from palaver.http.router import Match, Router
from palaver.http.stream import Following, Pulse, Receive, Send
from palaver.wire.contract import Call, Dialect, Headers, Reply, Room, Stream, request_id
from palaver.wire.framing import compact

BODY_PAUSE = 20.0
"""Seconds that may pass between two pieces of a body."""
MAX_LOGGED_PATH = 300
_EXPOSED = ("X-Conversation-Id", "X-Chat-Id", "X-Session-Id", "X-Request-ID", "Idempotency-Replayed")
_METHODS = "HEAD, GET, POST, PUT, DELETE, OPTIONS"
_STREAM_HEADERS = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))

log = structlog.get_logger("palaver.http")

Scope = dict[str, Any]


class HungUp(Exception):  # noqa: N818  not an error of ours
    """The caller went away before the request was complete."""


class Front:
    """Routes, admits, answers. ``ready`` says what keeps the server from working, ``None`` when nothing does."""

    def __init__(
        self,
        *,
        dialects: Sequence[Dialect],
        room: Room,
        admission: Admission,
        metrics: Metrics,
        pulse: Pulse,
        ready: Callable[[], Awaitable[str | None]],
        max_body_bytes: int,
        max_upload_bytes: int,
        site_url: str | None,
        language: str,
    ) -> None:
        self._dialects = dialects
        self._router = Router(dialects)
        self._handbook = Handbook(dialects, site_url)
        self._room = room
        self._admission = admission
        self._metrics = metrics
        self._pulse = pulse
        self._ready = ready
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._site_url = site_url
        self._language = language
        self._process = structlog.contextvars.get_contextvars()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _Request(scope, receive, send)
        if request.method == "OPTIONS" and request.malformed is None:
            await request.reply(Reply(status=204, headers=(("Allow", _METHODS),)))
            return
        if (probe := await self._probe(request)) is not None:
            await request.reply(probe)
            return
        match = self._router.match(request.method, request.raw_path)
        request.exposed = () if match.dialect is None else match.dialect.exposed
        structlog.contextvars.clear_contextvars()  # a pipelined request begins in its forerunner's context
        structlog.contextvars.bind_contextvars(**self._process, trace=request.trace)
        if request.id != request.trace:
            structlog.contextvars.bind_contextvars(request_id=request.id)
        try:
            await self._serve(request, match)
        except HungUp:
            return
        except asyncio.CancelledError:
            raise
        finally:
            self._note(request, match)

    async def _serve(self, request: _Request, match: Match) -> None:
        call = request.call(match, b"", self._site_url, self._language)
        if match.dialect is not None and match.dialect.traced_as is not None:
            structlog.contextvars.bind_contextvars(**match.dialect.traced_as(call))
        shown: list[Key] = []
        try:
            if request.malformed is not None:
                raise Invalid(field="request", rule="type", detail=request.malformed[1])  # noqa: TRY301
            dialect, route, absent = match.dialect, match.route, _absent(request, match)
            if dialect is None or (route is None and dialect.unrouted == "first"):
                raise absent  # noqa: TRY301
            upload = any(other.upload for other in match.routes)
            body = await request.body(self._max_upload_bytes if upload else self._max_body_bytes)
            call = request.call(match, body, self._site_url, self._language)
            if route is None and dialect.unrouted == "after size":
                raise absent  # noqa: TRY301
            who = await self._admit(request, call, dialect, match, shown)
            if route is None:
                raise absent  # noqa: TRY301
            answer = await route.handle(call, who, self._room)
            if isinstance(answer, Reply) and not answer.charged:
                await self._admission.give_back(who.key)
        except Problem as problem:
            answer = self._refuse(problem, call, match, shown)
        except HungUp:
            raise
        except Exception as error:
            log.exception("request failed", method=request.method, path=_loggable_path(request, match))
            answer = self._refuse(Internal(reason="unforeseen", detail=type(error).__name__), call, match, shown)
        if isinstance(answer, Reply):
            await request.reply(answer if request.malformed is None else replace(answer, status=request.malformed[0]))
        else:
            await self._stream(request, answer)

    async def _admit(
        self, request: _Request, call: Call, dialect: Dialect, match: Match, shown: list[Key]
    ) -> Principal:
        """Closed by default: only a path whose route says ``public`` is served without a credential. The key that the
        call names goes into ``shown``, whatever comes of it."""
        routes = match.routes if match.route is None else (match.route,)
        if routes and all(route.public for route in routes):
            return ANYBODY
        claim = dialect.claim(call)
        token = None if claim.token is None else await self._admission.token(claim.token, signed=claim.signed)
        if claim.id is None and claim.secret is None and token is not None:
            key = await self._admission.key_of(token, dialect.name)
        else:
            key = await self._admission.key(dialect.name, id=claim.id, secret=claim.secret)
        if key is not None:
            shown.append(key)
            structlog.contextvars.bind_contextvars(key=key.id)
        who = _verified(dialect, call, key, token)
        request.verified()
        request.app = who.app
        await self._admission.first_time(who)
        await self._admission.count(who.key)
        for route in routes:
            if route.permit is not None:
                route.permit(who)
        return who

    def _refuse(self, problem: Problem, call: Call, match: Match, shown: Sequence[Key]) -> Reply:
        if match.dialect is None:
            if isinstance(problem, Invalid):
                return Reply(status=400, body=compact({"error": "bad request", "detail": problem.detail}))
            return Reply(status=404, body=compact({"error": "not found", "path": call.path}))
        reply = match.dialect.refuse(cast("AnyProblem", problem), call, shown[0] if shown else None)
        if isinstance(problem, Internal) or reply.status >= 500:
            log.warning("refused", problem=_loggable_problem(problem), status=reply.status)
        else:
            log.info("refused", problem=_loggable_problem(problem), status=reply.status)
        if isinstance(problem, NotFound) and problem.noun == "method":
            allow = ", ".join((*match.allowed, *(["HEAD"] if "GET" in match.allowed else []), "OPTIONS"))
            return Reply(
                status=reply.status,
                body=reply.body,
                media_type=reply.media_type,
                headers=(*reply.headers, ("Allow", allow)),
            )
        return reply

    async def _stream(self, request: _Request, answer: Stream) -> None:
        replayed = (("Idempotency-Replayed", "true"),) if answer.replayed else ()
        await request.start(200, answer.media_type, (*_STREAM_HEADERS, *answer.headers, *replayed))
        following = Following(answer.reader, answer.encoder, request.send)
        self._pulse.open.add(following)
        try:
            if await following.follow(request.receive, self._pulse.heartbeat_s):
                await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._pulse.open.discard(following)

    # What is no dialect's -------------------------------------------------------------------------------------------

    async def _probe(self, request: _Request) -> Reply | None:
        if request.method not in {"GET", "HEAD"} or request.malformed is not None:
            return None
        match request.raw_path:
            case "/":
                return home(self._dialects, request.headers)
            case "/healthz":
                return Reply(body=compact({"status": "alive"}))
            case "/readyz":
                wrong = await self._ready()
                if wrong is None:
                    return Reply(body=compact({"status": "ready"}))
                return Reply(status=503, body=compact({"status": "not ready", "reason": wrong}))
            case "/metrics":
                return Reply(body=self._metrics.text(), media_type=MEDIA_TYPE)
            case path if self._handbook.covers(path):
                origin = request.origin(self._site_url)
                return await self._handbook.reply(path, request.query, request.headers, origin)
            case _:
                return None

    def _note(self, request: _Request, match: Match) -> None:
        dialect = "" if match.dialect is None else match.dialect.name
        route = "" if match.route is None else match.route.path
        status = request.status or 499  # nginx's number for a caller who left before the answer
        self._metrics.requests.labels(dialect, route, str(status)).inc()
        if request.app is not None:
            self._metrics.request_of(request.app, status)
        self._metrics.seconds.labels(dialect, route).observe(request.first_byte - request.begun)
        log.info(
            "request",
            method=request.method,
            path=_loggable_path(request, match),
            status=status,
            ms=round((time.perf_counter() - request.begun) * 1000, 1),
        )


def _verified(dialect: Dialect, call: Call, key: Key | None, token: Token | None) -> Principal:
    """The caller, by the key's secret or by the one before it while a rotation's overlap lasts. Raises
    ``Unauthenticated``."""
    try:
        return dialect.verify(call, key, token)
    except Unauthenticated:
        if key is None or len(secrets := key.secrets(call.now)) == 1:
            raise
        return dialect.verify(call, msgspec.structs.replace(key, secret=secrets[1]), token)


def _nothing() -> None:
    """Nobody wants to know."""


def _absent(request: _Request, match: Match) -> NotFound:
    """What a call that no route serves asks for."""
    if match.routes:
        return NotFound(noun="method", ref=request.method)
    return NotFound(noun="route", ref=request.raw_path)


def _loggable_path(request: _Request, match: Match) -> str:
    """The path where a route serves it, except one that is worth a credential; of others what is plainly a word."""
    if any(route.capability for route in match.routes):
        return match.routes[0].path
    return request.raw_path[:MAX_LOGGED_PATH] if match.routes else loggable(request.raw_path)


def _loggable_problem(problem: Problem) -> dict[str, Any]:
    """The problem without what the caller put in a credential's or an address's place."""
    record = problem.record()
    match problem:
        case NotFound(noun="route" | "file", ref=ref):
            record["ref"] = loggable(ref)
        case Unauthenticated(reason=reason) if reason != "missing":
            del record["subject"]
        case _:
            pass
    return record


class _Request:
    """One request's connection, with what was read off it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.raw_path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.target: str = scope.get("target") or self.raw_path + (f"?{self.query}" if self.query else "")
        self.malformed: tuple[int, str] | None = scope.get("malformed")
        """That it is not as HTTP has it: the status to answer, and why."""
        self.verified: Callable[[], None] = scope.get("verified", _nothing)
        """To be called when the caller has proved who it is."""
        self.app: int | None = None
        """The caller's application, once he has proved it."""
        self.receive = receive
        self.send = send
        self.trace = uuid4().hex
        self.status = 0
        self.closes = False
        """The connection cannot be used again: the rest of a body may still come on it."""
        self.exposed: tuple[str, ...] = ()
        """Headers of the dialect's own that a page in a browser may read."""
        self.begun = self.first_byte = time.perf_counter()
        self.headers = Headers(scope["headers"])
        self.now = time.time()
        own = request_id(self.headers)
        self.id = self.trace if own is None else self.headers["x-request-id"]
        """What the caller calls the request, or we: comes back in ``X-Request-ID``."""
        self._scope = scope

    def call(self, match: Match, body: bytes, site_url: str | None, language: str) -> Call:
        return Call(
            method=self.method,
            path=self._scope["path"],
            target=self.target,
            headers=self.headers,
            route="" if match.route is None else match.route.path,
            params=match.params or {},
            body=body,
            now=self.now,
            trace=self.trace,
            origin=self.origin(site_url),
            language=language,
        )

    def origin(self, site_url: str | None) -> str:
        """``https://host`` of this server, as it is configured, else as the caller reached it."""
        return site_url or f"{self._scope['scheme']}://{self.headers.get('host', 'localhost')}"

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ``Invalid(rule="size")`` as soon as it is known to be larger than ``limit``."""
        declared = self.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise Invalid(field="body", rule="size", detail=f"more than {limit} bytes")
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive_piece()
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise Invalid(field="body", rule="size", detail=f"more than {limit} bytes")
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def _receive_piece(self) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(BODY_PAUSE):
                message = await self.receive()
        except TimeoutError as error:
            self.closes = True
            raise Invalid(field="body", rule="json", detail=f"nothing came for {BODY_PAUSE:g} s") from error
        if message["type"] == "http.disconnect":
            raise HungUp
        return message

    async def start(self, status: int, media_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.status = status
        self.first_byte = time.perf_counter()
        pairs = [("Content-Type", media_type)] if media_type else []
        if self.closes:
            pairs.append(("Connection", "close"))
        if all(name.lower() != "x-request-id" for name, _ in headers):
            pairs.append(("X-Request-ID", self.id))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*pairs, *headers, *self._cors())]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def reply(self, reply: Reply) -> None:
        bare = reply.status in {204, 304}
        measured = () if bare else (("Content-Length", str(len(reply.body))),)
        how = _STREAM_HEADERS if reply.writes else measured
        await self.start(reply.status, "" if bare else reply.media_type, (*how, *reply.headers))
        for piece in reply.writes:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.send({"type": "http.response.body", "body": reply.body, "more_body": False})

    def _cors(self) -> list[tuple[str, str]]:
        """Browsers may call from anywhere: the key is what protects, and it is in a header that no page sends alone."""
        origin = self.headers.get("origin")
        if origin is None:
            return []
        headers = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", ", ".join((*_EXPOSED, *self.exposed))),
            ("Vary", "Origin"),
        ]
        if self.method == "OPTIONS":
            headers.append(("Access-Control-Allow-Methods", _METHODS))
            headers.append(("Access-Control-Max-Age", "86400"))
            if (wanted := self.headers.get("access-control-request-headers")) is not None:
                headers.append(("Access-Control-Allow-Headers", wanted))
        return headers
