"""The ASGI application: one request from its first byte to its last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import structlog

from palaver.core.admit import Admission
from palaver.core.disconnect import CallerDisconnected, disconnect_scope
from palaver.core.fair_queue import set_owner
from palaver.core.problems import AnyProblem, Internal, Invalid, NotFound, Problem, Unauthenticated
from palaver.core.redaction import redact_url
from palaver.core.types import ANONYMOUS, ApiKey, Principal, Token
from palaver.http.body import FREE_BYTES, BodyReader, BodyTooSlow, IncompleteBody, RequestBody
from palaver.http.docs import Docs
from palaver.http.home import home
from palaver.http.metrics import MEDIA_TYPE, Metrics
from palaver.http.pace import RequestPacer
from palaver.http.revocation import RevocationWatcher
from palaver.http.router import RouteMatch, Router
from palaver.http.stream import EventStream, HeartbeatTimer, Receive, Send
from palaver.wire.contract import Dialect, Headers, Request, Response, Services, StreamingResponse, request_id
from palaver.wire.framing import compact_json

MAX_LOGGED_PATH = 300
_EXPOSED = ("X-Conversation-Id", "X-Chat-Id", "X-Session-Id", "X-Request-ID", "Idempotency-Replayed")
_METHODS = "HEAD, GET, POST, PUT, DELETE, OPTIONS"
_STREAM_HEADERS = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))

log = structlog.get_logger("palaver.http")

Scope = dict[str, Any]


class App:
    """Routes, admits, answers. ``ready`` says what keeps the server from working, ``None`` when nothing does."""

    def __init__(
        self,
        *,
        dialects: Sequence[Dialect],
        room: Services,
        admission: Admission,
        metrics: Metrics,
        pulse: HeartbeatTimer,
        ready: Callable[[], Awaitable[str | None]],
        bodies: BodyReader,
        callers: RevocationWatcher,
        site_url: str | None,
        language: str,
    ) -> None:
        self._dialects = dialects
        self._router = Router(dialects)
        self._handbook = Docs(dialects, site_url)
        self._room = room
        self._admission = admission
        self._metrics = metrics
        self._pulse = pulse
        self._ready = ready
        self._bodies = bodies
        self._callers = callers
        self._pace = RequestPacer()
        self._site_url = site_url
        self._language = language
        self._process = structlog.contextvars.get_contextvars()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _Exchange(scope, receive, send)
        if request.method == "OPTIONS" and request.malformed is None:
            await request.reply(Response(status=204, headers=(("Allow", _METHODS),)))
            return
        if (probe := await self._probe(request)) is not None:
            await request.reply(probe)
            return
        match = self._router.match(request.method, request.raw_path)
        request.exposed = () if match.dialect is None else match.dialect.exposed
        set_owner(None)
        structlog.contextvars.clear_contextvars()  # a pipelined request begins in its forerunner's context
        structlog.contextvars.bind_contextvars(**self._process, trace=request.trace)
        if request.id != request.trace:
            structlog.contextvars.bind_contextvars(request_id=request.id)
        try:
            await self._serve(request, match)
        except (IncompleteBody, CallerDisconnected):
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not request.left.done():
                raise
            task.uncancel()
        finally:
            self._note(request, match)

    async def _serve(self, request: _Exchange, match: RouteMatch) -> None:
        answer, who = await self._answer(request, match)
        if not isinstance(answer, Response):
            await self._stream(request, answer, who)
            return
        if request.malformed is not None:
            answer = replace(answer, status=request.malformed[0])
        try:
            with self._callers.of(who, request.break_off, since=request.since):
                await request.reply(answer)
        except Problem as problem:  # of an answer that comes in pieces, in its middle
            log.warning("answer broken off", problem=problem.record())
        finally:
            self._bodies.answers.release(_key(who), request.holds)

    async def _answer(self, request: _Exchange, match: RouteMatch) -> tuple[Response | StreamingResponse, Principal]:
        """The answer, and whom it is for. With it the call and its body are done with."""
        call = request.call(match, self._site_url, self._language)
        if match.dialect is not None and match.dialect.traced_as is not None:
            structlog.contextvars.bind_contextvars(**match.dialect.traced_as(call))
        shown: list[ApiKey] = []
        body: RequestBody | None = None
        try:
            if request.malformed is not None:
                raise Invalid(field="request", rule="type", detail=request.malformed[1])  # noqa: TRY301
            dialect, route, absent = match.dialect, match.route, _absent(request, match)
            if dialect is None or (route is None and dialect.unrouted == "first"):
                raise absent  # noqa: TRY301
            body = self._bodies.body(
                request.receive,
                request.headers.get("content-length", ""),
                upload=any(other.upload for other in match.routes),
                public=_is_public(match),
            )
            if route is None and dialect.unrouted == "after size":
                await body.discard()
                raise absent  # noqa: TRY301
            who, call = await self._admit(request, call, dialect, match, body, shown)
            return await self._handle(request, call, match, who), who
        except Problem as problem:
            request.closes = isinstance(problem, BodyTooSlow)
            return self._refuse(problem, call, match, shown), ANONYMOUS
        except CallerDisconnected:
            if request.ended is None:
                raise
            return self._refuse(request.ended, call, match, shown), ANONYMOUS
        except IncompleteBody:
            raise
        except Exception as error:
            log.exception("request failed", method=request.method, path=_loggable_path(request, match))
            problem = Internal(reason="unforeseen", detail=type(error).__name__)
            return self._refuse(problem, call, match, shown), ANONYMOUS
        finally:
            if body is not None:
                body.close()

    async def _admit(
        self,
        request: _Exchange,
        call: Request,
        dialect: Dialect,
        match: RouteMatch,
        body: RequestBody,
        shown: list[ApiKey],
    ) -> tuple[Principal, Request]:
        """Who calls, and the call with its body, which is read for verified callers, and for an enabled credential
        that signs it. Closed by default: only a path whose route says ``public`` is served without a credential. The
        key that the call names goes into ``shown``, whatever comes of it."""
        if _is_public(match):
            if match.route is None:
                raise _absent(request, match)
            return ANONYMOUS, await _with_body(call, match, body, None)
        request.since = self._callers.changes
        key, token = await self._claimed(call, dialect)
        if key is not None:
            shown.append(key)
            structlog.contextvars.bind_contextvars(key=key.id)
        if read := dialect.signs_body and key is not None and key.enabled:
            call = await _with_body(call, match, body, key)
        who = _verified(dialect, call, key, token)
        request.verified()
        request.app = who.app
        set_owner((who.app, who.user or ""))
        await self._pace.turn(who.app)
        await self._admission.first_time(who)
        await self._admission.count(who.key)
        for route in match.routes if match.route is None else (match.route,):
            if route.permit is not None:
                route.permit(who)
        if match.route is None:
            raise _absent(request, match)
        return who, call if read else await _with_body(call, match, body, who.key)

    async def _claimed(self, call: Request, dialect: Dialect) -> tuple[ApiKey | None, Token | None]:
        """The credential and the token that the call says it has, where there are such."""
        claim = dialect.claim(call)
        token = None if claim.token is None else await self._admission.token(claim.token, signed=claim.signed)
        if claim.id is None and claim.secret is None and token is not None:
            return await self._admission.key_of(token, dialect.name), token
        return await self._admission.key(dialect.name, id=claim.id, secret=claim.secret), token

    async def _handle(
        self, request: _Exchange, call: Request, match: RouteMatch, who: Principal
    ) -> Response | StreamingResponse:
        """What the route answers, as long as there is somebody to answer to: reads are given up, what changes
        something goes on, and what waits in it finds out."""
        assert match.route is not None
        task = asyncio.current_task() if request.method in {"GET", "HEAD"} else None
        watch = asyncio.create_task(request.watch(task))
        try:
            with disconnect_scope(request.left), self._callers.of(who, request.revoke, since=request.since):
                answer = await match.route.handle(call, who, self._room)
        finally:
            watch.cancel()
        if isinstance(answer, Response) and not answer.charged:
            await self._admission.refund(who.key)
        if (
            isinstance(answer, Response)
            and task is not None
            and (size := max(len(answer.body), answer.held)) > FREE_BYTES
        ):
            self._bodies.answers.take(who.key, size)
            request.holds = size
        return answer

    def _refuse(self, problem: Problem, call: Request, match: RouteMatch, shown: Sequence[ApiKey]) -> Response:
        if match.dialect is None:
            if isinstance(problem, Invalid):
                return Response(status=400, body=compact_json({"error": "bad request", "detail": problem.detail}))
            return Response(status=404, body=compact_json({"error": "not found", "path": call.path}))
        reply = match.dialect.refuse(cast("AnyProblem", problem), call, shown[0] if shown else None)
        if isinstance(problem, Internal) or reply.status >= 500:
            log.warning("refused", problem=_loggable_problem(problem), status=reply.status)
        else:
            log.info("refused", problem=_loggable_problem(problem), status=reply.status)
        if isinstance(problem, NotFound) and problem.noun == "method":
            allow = ", ".join((*match.allowed, *(["HEAD"] if "GET" in match.allowed else []), "OPTIONS"))
            return Response(
                status=reply.status,
                body=reply.body,
                media_type=reply.media_type,
                headers=(*reply.headers, ("Allow", allow)),
            )
        return reply

    async def _stream(self, request: _Exchange, answer: StreamingResponse, who: Principal) -> None:
        replayed = (("Idempotency-Replayed", "true"),) if answer.replayed else ()
        await request.start(200, answer.media_type, (*_STREAM_HEADERS, *answer.headers, *replayed))
        following = EventStream(answer.reader, answer.encoder, request.send)
        self._pulse.open.add(following)
        try:
            with self._callers.of(who, lambda _: following.end(), since=request.since):
                if await following.follow(request.receive, self._pulse.heartbeat_s):
                    await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._pulse.open.discard(following)

    # What is no dialect's -------------------------------------------------------------------------------------------

    async def _probe(self, request: _Exchange) -> Response | None:
        if request.method not in {"GET", "HEAD"} or request.malformed is not None:
            return None
        match request.raw_path:
            case "/":
                return home(self._dialects, request.headers)
            case "/healthz":
                return Response(body=compact_json({"status": "alive"}))
            case "/readyz":
                wrong = await self._ready()
                if wrong is None:
                    return Response(body=compact_json({"status": "ready"}))
                return Response(status=503, body=compact_json({"status": "not ready", "reason": wrong}))
            case "/metrics":
                return Response(body=self._metrics.text(), media_type=MEDIA_TYPE)
            case path if self._handbook.covers(path):
                origin = request.origin(self._site_url)
                return await self._handbook.reply(path, request.query, request.headers, origin)
            case _:
                return None

    def _note(self, request: _Exchange, match: RouteMatch) -> None:
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


def _verified(dialect: Dialect, call: Request, key: ApiKey | None, token: Token | None) -> Principal:
    """The caller, by the key's secret or by the one before it while a rotation's overlap lasts. Raises
    ``Unauthenticated``."""
    try:
        return dialect.verify(call, key, token)
    except Unauthenticated:
        if key is None or len(versions := key.versions(call.now)) == 1:
            raise
        return dialect.verify(call, versions[1], token)


def _nothing() -> None:
    """Nobody wants to know."""


def _is_public(match: RouteMatch) -> bool:
    """Whether a path is served without a credential."""
    routes = match.routes if match.route is None else (match.route,)
    return bool(routes) and all(route.public for route in routes)


def _key(who: Principal) -> ApiKey | None:
    return None if who is ANONYMOUS else who.key


async def _with_body(call: Request, match: RouteMatch, body: RequestBody, key: ApiKey | None) -> Request:
    """The call with its body, which takes of the key's budget."""
    if key is not None and match.route is not None and match.route.upload:
        return replace(call, upload=await body.spooled(key))
    return replace(call, body=await body.whole(key))


def _absent(request: _Exchange, match: RouteMatch) -> NotFound:
    """What a call that no route serves asks for."""
    if match.routes:
        return NotFound(noun="method", ref=request.method)
    return NotFound(noun="route", ref=request.raw_path)


def _loggable_path(request: _Exchange, match: RouteMatch) -> str:
    """The path where a route serves it, except one that is worth a credential; of others what is plainly a word."""
    if any(route.capability for route in match.routes):
        return match.routes[0].path
    return request.raw_path[:MAX_LOGGED_PATH] if match.routes else redact_url(request.raw_path)


def _loggable_problem(problem: Problem) -> dict[str, Any]:
    """The problem without what the caller put in a credential's or an address's place."""
    record = problem.record()
    match problem:
        case NotFound(noun="route" | "file", ref=ref):
            record["ref"] = redact_url(ref)
        case Unauthenticated(reason=reason) if reason != "missing":
            del record["subject"]
        case _:
            pass
    return record


class _Exchange:
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
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the caller has gone away."""
        self.ended: Unauthenticated | None = None
        """Why the caller may not have the answer any more."""
        self.since = 0
        """Which change of credentials the caller's was looked up after."""
        self.holds = 0
        """Bytes of the answer that are counted until it is taken."""
        self.exposed: tuple[str, ...] = ()
        """Headers of the dialect's own that a page in a browser may read."""
        self.begun = self.first_byte = time.perf_counter()
        self.headers = Headers(scope["headers"])
        self.now = time.time()
        own = request_id(self.headers)
        self.id = self.trace if own is None else self.headers["x-request-id"]
        """What the caller calls the request, or we: comes back in ``X-Request-ID``."""
        self._scope = scope
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())

    def call(self, match: RouteMatch, site_url: str | None, language: str) -> Request:
        return Request(
            method=self.method,
            path=self._scope["path"],
            target=self.target,
            headers=self.headers,
            route="" if match.route is None else match.route.path,
            params=match.params or {},
            body=b"",
            now=self.now,
            trace=self.trace,
            origin=self.origin(site_url),
            language=language,
        )

    def origin(self, site_url: str | None) -> str:
        """``https://host`` of this server, as it is configured, else as the caller reached it."""
        return site_url or f"{self._scope['scheme']}://{self.headers.get('host', 'localhost')}"

    async def watch(self, task: asyncio.Task[Any] | None) -> None:
        """Notice when the caller goes away; ``task`` is cancelled then."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.leave()
        if task is not None:
            task.cancel()

    def revoke(self, why: Unauthenticated) -> None:
        """The credential is none any more: what its caller waits for is not for him."""
        self.ended = why
        self.leave()

    def break_off(self, _why: Unauthenticated) -> None:
        """The same while the answer is on its way: what has been sent of it is all there is."""
        self.leave()
        self._task.cancel()

    def leave(self) -> None:
        if not self.left.done():
            self.left.set_result(None)

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

    async def reply(self, reply: Response) -> None:
        bare = reply.status in {204, 304}
        size = len(reply.body) if reply.pieces is None else reply.length
        measured = () if bare or size is None else (("Content-Length", str(size)),)
        how = _STREAM_HEADERS if reply.writes else measured
        await self.start(reply.status, "" if bare else reply.media_type, (*how, *reply.headers))
        for piece in reply.writes:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        if reply.pieces is not None and self.method != "HEAD":
            await self._send_pieces(reply.pieces)
        await self.send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def _send_pieces(self, pieces: AsyncIterator[bytes]) -> None:
        """What comes as it is read is read as long as there is somebody to take it."""
        watch = asyncio.create_task(self.watch(None))
        try:
            async for piece in pieces:
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
                if self.left.done():
                    raise IncompleteBody
        finally:
            watch.cancel()

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
