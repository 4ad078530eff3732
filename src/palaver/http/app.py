"""The ASGI application: routes and admits a request, calls its handler, and sends the response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import structlog

from palaver.core.admit import Admission, Admitted
from palaver.core.disconnect import CallerDisconnected, disconnect_scope
from palaver.core.fair_semaphore import set_owner
from palaver.core.problems import AnyProblem, Internal, Invalid, NotFound, Problem, Unauthenticated
from palaver.core.redaction import redact_url
from palaver.core.types import ANONYMOUS, ApiKey, Principal, Token
from palaver.http.body import UNBUDGETED_BYTES, BodyReader, BodyTooSlow, RequestBody
from palaver.http.docs import Docs
from palaver.http.home import home
from palaver.http.metrics import MEDIA_TYPE, Metrics
from palaver.http.revocation import RevocationWatcher
from palaver.http.router import RouteMatch, Router
from palaver.http.stream import EventStream, HeartbeatTimer, Receive, Send
from palaver.wire.contract import Dialect, Headers, Request, Response, Services, StreamingResponse, request_id
from palaver.wire.framing import compact_json

MAX_LOGGED_PATH_CHARS = 300
_COMMON_EXPOSED_HEADERS = ("X-Request-ID", "Idempotency-Replayed")
"""Headers of every dialect that browser scripts may read."""
_ALLOWED_METHODS = "HEAD, GET, POST, PUT, DELETE, OPTIONS"
_STREAM_HEADERS = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))

log = structlog.get_logger("palaver.http")

Scope = dict[str, Any]


class App:
    """The ASGI application. ``ready`` returns why the server is not ready, ``None`` if it is."""

    def __init__(
        self,
        *,
        dialects: Sequence[Dialect],
        services: Services,
        admission: Admission,
        metrics: Metrics,
        heartbeats: HeartbeatTimer,
        ready: Callable[[], Awaitable[str | None]],
        body_reader: BodyReader,
        revocations: RevocationWatcher,
        site_url: str | None,
        language: str,
    ) -> None:
        self._dialects = dialects
        self._exposed_headers = (
            *(name for dialect in dialects for name in dialect.id_headers),
            *_COMMON_EXPOSED_HEADERS,
        )
        self._router = Router(dialects)
        self._docs = Docs(dialects, site_url)
        self._services = services
        self._admission = admission
        self._metrics = metrics
        self._heartbeats = heartbeats
        self._ready = ready
        self._body_reader = body_reader
        self._revocations = revocations
        self._site_url = site_url
        self._language = language
        self._process = structlog.contextvars.get_contextvars()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        exchange.exposed_headers = self._exposed_headers
        if exchange.method == "OPTIONS" and exchange.malformed is None:
            await exchange.send_response(Response(status=204, headers=(("Allow", _ALLOWED_METHODS),)))
            return
        if (response := await self._builtin_response(exchange)) is not None:
            await exchange.send_response(response)
            return
        match = self._router.match(exchange.method, exchange.raw_path)
        exchange.exposed_headers = (
            *self._exposed_headers,
            *(() if match.dialect is None else match.dialect.cors_exposed_headers),
        )
        set_owner(None)
        structlog.contextvars.clear_contextvars()  # a pipelined request starts in its predecessor's context
        structlog.contextvars.bind_contextvars(**self._process, trace=exchange.trace)
        if exchange.request_id != exchange.trace:
            structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            await self._serve(exchange, match)
        except CallerDisconnected:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not exchange.disconnected.done():
                raise
            task.uncancel()
        finally:
            self._record(exchange, match)

    async def _serve(self, exchange: _Exchange, match: RouteMatch) -> None:
        """Handle the request and send its response."""
        response, principal = await self._respond(exchange, match)
        if not isinstance(response, Response):
            await self._send_stream(exchange, response, principal)
            return
        if exchange.malformed is not None:
            response = replace(response, status=exchange.malformed[0])
        try:
            with self._revocations.watch(principal, exchange.abort, since=exchange.changes_seen):
                await exchange.send_response(response)
        except Problem as problem:  # raised in the middle of a streamed response
            log.warning("response aborted", problem=problem.to_dict())
        finally:
            self._body_reader.responses.release(_budget_key(principal), exchange.held_bytes)

    async def _respond(self, exchange: _Exchange, match: RouteMatch) -> tuple[Response | StreamingResponse, Principal]:
        """The response and its principal. The request body is closed on return."""
        request = exchange.request(match, self._site_url, self._language)
        if match.dialect is not None and match.dialect.trace_fields is not None:
            structlog.contextvars.bind_contextvars(**match.dialect.trace_fields(request))
        admitted = Admitted()
        body: RequestBody | None = None
        try:
            if exchange.malformed is not None:
                raise Invalid(field="request", rule="type", detail=exchange.malformed[1])  # noqa: TRY301
            dialect, route, not_found = match.dialect, match.route, _not_found(exchange, match)
            if dialect is None or (route is None and dialect.unrouted == "first"):
                raise not_found  # noqa: TRY301
            body = self._body_reader.open(
                exchange.receive,
                exchange.headers.get("content-length", ""),
                upload=any(other.upload for other in match.routes),
                public=_is_public(match),
            )
            if route is None and dialect.unrouted == "after size":
                await body.drain()
                raise not_found  # noqa: TRY301
            admitted = await self._admit(exchange, request, dialect, match, body)
            if admitted.problem is not None:
                raise admitted.problem  # noqa: TRY301
            _authorize(match, admitted.principal, not_found)
            request = await _with_body(request, match, body, admitted)
            return await self._handle(exchange, request, match, admitted.principal), admitted.principal
        except Problem as problem:
            exchange.close_connection = isinstance(problem, BodyTooSlow)
            return self._refuse(problem, request, match, admitted.key), ANONYMOUS
        except CallerDisconnected:
            if exchange.revoked is None:
                raise
            return self._refuse(exchange.revoked, request, match, admitted.key), ANONYMOUS
        except Exception as error:
            log.exception("request failed", method=exchange.method, path=_loggable_path(exchange, match))
            problem = Internal(reason="unforeseen", detail=type(error).__name__)
            return self._refuse(problem, request, match, admitted.key), ANONYMOUS
        finally:
            if body is not None:
                body.close()

    async def _admit(
        self, exchange: _Exchange, request: Request, dialect: Dialect, match: RouteMatch, body: RequestBody
    ) -> Admitted:
        """Admit the caller. Closed by default: only routes marked ``public`` need no credential. The body is read
        before verification only if an enabled credential signs it."""
        if _is_public(match):
            return Admitted()
        exchange.changes_seen = self._revocations.changes

        async def verify(key: ApiKey | None, token: Token | None) -> Principal:
            if key is not None:
                structlog.contextvars.bind_contextvars(key=key.id)
            signed = request
            if dialect.signs_body and key is not None and key.enabled:
                signed = await _with_body(request, match, body, Admitted(key=key))
            principal = _verify(dialect, signed, key, token)
            exchange.mark_verified()
            exchange.app = principal.app
            set_owner((principal.app, principal.user or ""))
            return principal

        return await self._admission.admit(dialect.name, dialect.claim(request), verify)

    async def _handle(
        self, exchange: _Exchange, request: Request, match: RouteMatch, principal: Principal
    ) -> Response | StreamingResponse:
        """The route's response. If the caller disconnects, reads are cancelled; writes continue, and code that waits
        inside them is notified."""
        assert match.route is not None
        task = asyncio.current_task() if exchange.method in {"GET", "HEAD"} else None
        disconnect_watch = asyncio.create_task(exchange.watch_disconnect(task))
        try:
            with (
                disconnect_scope(exchange.disconnected),
                self._revocations.watch(principal, exchange.revoke_credential, since=exchange.changes_seen),
            ):
                response = await match.route.handle(request, principal, self._services)
        finally:
            disconnect_watch.cancel()
        if isinstance(response, Response) and not response.counts_toward_quota:
            await self._admission.refund(principal.key)
        if (
            isinstance(response, Response)
            and task is not None
            and (size := max(len(response.body), response.buffered_bytes)) > UNBUDGETED_BYTES
        ):
            self._body_reader.responses.acquire(principal.key, size)
            exchange.held_bytes = size
        return response

    def _refuse(self, problem: Problem, request: Request, match: RouteMatch, key: ApiKey | None) -> Response:
        """The error response, in the form of the path's dialect."""
        if match.dialect is None:
            if isinstance(problem, Invalid):
                return Response(status=400, body=compact_json({"error": "bad request", "detail": problem.detail}))
            return Response(status=404, body=compact_json({"error": "not found", "path": request.path}))
        response = match.dialect.refuse(cast("AnyProblem", problem), request, key)
        if isinstance(problem, Internal) or response.status >= 500:
            log.warning("request refused", problem=_loggable_problem(problem), status=response.status)
        else:
            log.info("request refused", problem=_loggable_problem(problem), status=response.status)
        if isinstance(problem, NotFound) and problem.noun == "method":
            allow = ", ".join((*match.allowed, *(["HEAD"] if "GET" in match.allowed else []), "OPTIONS"))
            return Response(
                status=response.status,
                body=response.body,
                media_type=response.media_type,
                headers=(*response.headers, ("Allow", allow)),
            )
        return response

    async def _send_stream(self, exchange: _Exchange, response: StreamingResponse, principal: Principal) -> None:
        """Follow the run until it ends, the caller disconnects, or the credential is revoked."""
        replayed = (("Idempotency-Replayed", "true"),) if response.replayed else ()
        await exchange.start_response(200, response.media_type, (*_STREAM_HEADERS, *response.headers, *replayed))
        stream = EventStream(response.reader, response.encoder, exchange.send)
        self._heartbeats.streams.add(stream)
        try:
            with self._revocations.watch(principal, lambda _: stream.abort(), since=exchange.changes_seen):
                if await stream.follow(exchange.receive, self._heartbeats.heartbeat_s):
                    await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._heartbeats.streams.discard(stream)

    # Outside every dialect ------------------------------------------------------------------------------------------

    async def _builtin_response(self, exchange: _Exchange) -> Response | None:
        """The home page, a health check, the metrics or the documentation; ``None`` for any other path."""
        if exchange.method not in {"GET", "HEAD"} or exchange.malformed is not None:
            return None
        match exchange.raw_path:
            case "/":
                return home(self._dialects, exchange.headers)
            case "/healthz":
                return Response(body=compact_json({"status": "alive"}))
            case "/readyz":
                reason = await self._ready()
                if reason is None:
                    return Response(body=compact_json({"status": "ready"}))
                return Response(status=503, body=compact_json({"status": "not ready", "reason": reason}))
            case "/metrics":
                return Response(body=self._metrics.text(), media_type=MEDIA_TYPE)
            case path if self._docs.covers(path):
                origin = exchange.base_url(self._site_url)
                return await self._docs.reply(path, exchange.query, exchange.headers, origin)
            case _:
                return None

    def _record(self, exchange: _Exchange, match: RouteMatch) -> None:
        """Count and log a completed request."""
        dialect = "" if match.dialect is None else match.dialect.name
        route = "" if match.route is None else match.route.path
        status = exchange.status or 499  # nginx's status for a client that disconnected before the response
        self._metrics.requests.labels(dialect, route, str(status)).inc()
        if exchange.app is not None:
            self._metrics.count_request(exchange.app, status)
        self._metrics.request_seconds.labels(dialect, route).observe(exchange.first_byte_at - exchange.started_at)
        log.info(
            "request",
            method=exchange.method,
            path=_loggable_path(exchange, match),
            status=status,
            ms=round((time.perf_counter() - exchange.started_at) * 1000, 1),
        )


def _verify(dialect: Dialect, request: Request, key: ApiKey | None, token: Token | None) -> Principal:
    """The principal, verified with the key's secret or, during a rotation's overlap, its previous one. Raises
    ``Unauthenticated``."""
    try:
        return dialect.verify(request, key, token)
    except Unauthenticated:
        if key is None or len(versions := key.versions(request.now)) == 1:
            raise
        return dialect.verify(request, versions[1], token)


def _do_nothing() -> None:
    """No listener."""


def _is_public(match: RouteMatch) -> bool:
    """Whether the path needs no credential."""
    routes = match.routes if match.route is None else (match.route,)
    return bool(routes) and all(route.public for route in routes)


def _budget_key(principal: Principal) -> ApiKey | None:
    return None if principal is ANONYMOUS else principal.key


def _authorize(match: RouteMatch, principal: Principal, not_found: NotFound) -> None:
    """Raises ``Forbidden`` if the caller may not use the path, with any method, and ``not_found`` if no route serves
    the method."""
    if principal is not ANONYMOUS:
        for route in match.routes if match.route is None else (match.route,):
            if route.authorize is not None:
                route.authorize(principal)
    if match.route is None:
        raise not_found


async def _with_body(request: Request, match: RouteMatch, body: RequestBody, admitted: Admitted) -> Request:
    """The request with its body, which counts against the key's budget."""
    if admitted.key is not None and match.route is not None and match.route.upload:
        return replace(request, upload=await body.spool(admitted.key))
    return replace(request, body=await body.read(admitted.key))


def _not_found(exchange: _Exchange, match: RouteMatch) -> NotFound:
    """The problem for a request that no route serves."""
    if match.routes:
        return NotFound(noun="method", ref=exchange.method)
    return NotFound(noun="route", ref=exchange.raw_path)


def _loggable_path(exchange: _Exchange, match: RouteMatch) -> str:
    """The path if a route serves it, its template if it contains a secret; otherwise the path, redacted."""
    if any(route.secret_path for route in match.routes):
        return match.routes[0].path
    return exchange.raw_path[:MAX_LOGGED_PATH_CHARS] if match.routes else redact_url(exchange.raw_path)


def _loggable_problem(problem: Problem) -> dict[str, Any]:
    """The problem without the caller's input in the place of a credential or URL."""
    record = problem.to_dict()
    match problem:
        case NotFound(noun="route" | "file", ref=ref):
            record["ref"] = redact_url(ref)
        case Unauthenticated(reason=reason) if reason != "missing":
            del record["subject"]
        case _:
            pass
    return record


class _Exchange:
    """One HTTP exchange: a request and its response, with the state of both."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.raw_path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.target: str = scope.get("target") or self.raw_path + (f"?{self.query}" if self.query else "")
        self.malformed: tuple[int, str] | None = scope.get("malformed")
        """For a malformed request: the response status and the reason."""
        self.mark_verified: Callable[[], None] = scope.get("verified", _do_nothing)
        """Called once the caller is authenticated."""
        self.app: int | None = None
        """The caller's application, once authenticated."""
        self.receive = receive
        self.send = send
        self.trace = uuid4().hex
        self.status = 0
        self.close_connection = False
        """The connection cannot be reused: the rest of a body may still arrive on it."""
        self.disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the caller has disconnected."""
        self.revoked: Unauthenticated | None = None
        """Why the caller lost access to the response."""
        self.changes_seen = 0
        """The credential change counter at the time of the credential lookup."""
        self.held_bytes = 0
        """Bytes of the response that count against the budget until it is sent."""
        self.exposed_headers: tuple[str, ...] = _COMMON_EXPOSED_HEADERS
        """The response headers that browser scripts may read (CORS)."""
        self.started_at = self.first_byte_at = time.perf_counter()
        self.headers = Headers(scope["headers"])
        self.now = time.time()
        caller_id = request_id(self.headers)
        self.request_id = self.trace if caller_id is None else self.headers["x-request-id"]
        """The caller's request ID, or ours; returned in ``X-Request-ID``."""
        self._scope = scope
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())

    def request(self, match: RouteMatch, site_url: str | None, language: str) -> Request:
        return Request(
            method=self.method,
            path=self._scope["path"],
            target=self.target,
            headers=self.headers,
            route="" if match.route is None else match.route.path,
            path_params=match.params or {},
            body=b"",
            now=self.now,
            trace=self.trace,
            base_url=self.base_url(site_url),
            language=language,
        )

    def base_url(self, site_url: str | None) -> str:
        """``https://host`` of this server: the configured one, or the one in the request."""
        return site_url or f"{self._scope['scheme']}://{self.headers.get('host', 'localhost')}"

    async def watch_disconnect(self, task: asyncio.Task[Any] | None) -> None:
        """Wait until the caller disconnects, then cancel ``task``."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.disconnect()
        if task is not None:
            task.cancel()

    def revoke_credential(self, why: Unauthenticated) -> None:
        """The credential was revoked: stop waiting, and refuse the request."""
        self.revoked = why
        self.disconnect()

    def abort(self, _why: Unauthenticated) -> None:
        """The credential was revoked while the response is being sent: send no more of it."""
        self.disconnect()
        self._task.cancel()

    def disconnect(self) -> None:
        if not self.disconnected.done():
            self.disconnected.set_result(None)

    async def start_response(self, status: int, media_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.status = status
        self.first_byte_at = time.perf_counter()
        pairs = [("Content-Type", media_type)] if media_type else []
        if self.close_connection:
            pairs.append(("Connection", "close"))
        if all(name.lower() != "x-request-id" for name, _ in headers):
            pairs.append(("X-Request-ID", self.request_id))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*pairs, *headers, *self._cors())]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def send_response(self, response: Response) -> None:
        """Send a complete response. Raises ``CallerDisconnected``, and problems of its ``body_iterator``."""
        bodiless = response.status in {204, 304}
        size = len(response.body) if response.body_iterator is None else response.length
        content_length = () if bodiless or size is None else (("Content-Length", str(size)),)
        extra_headers = _STREAM_HEADERS if response.chunks else content_length
        await self.start_response(
            response.status, "" if bodiless else response.media_type, (*extra_headers, *response.headers)
        )
        for chunk in response.chunks:
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        if response.body_iterator is not None and self.method != "HEAD":
            await self._send_body_iterator(response.body_iterator)
        await self.send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def _send_body_iterator(self, body_iterator: AsyncIterator[bytes]) -> None:
        """Send the chunks as they are read. Raises ``CallerDisconnected``."""
        disconnect_watch = asyncio.create_task(self.watch_disconnect(None))
        try:
            async for chunk in body_iterator:
                await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
                if self.disconnected.done():
                    raise CallerDisconnected
        finally:
            disconnect_watch.cancel()

    def _cors(self) -> list[tuple[str, str]]:
        """CORS headers. Any origin may call: the key protects, in a header that browsers never add by themselves."""
        origin = self.headers.get("origin")
        if origin is None:
            return []
        headers = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", ", ".join(self.exposed_headers)),
            ("Vary", "Origin"),
        ]
        if self.method == "OPTIONS":
            headers.append(("Access-Control-Allow-Methods", _ALLOWED_METHODS))
            headers.append(("Access-Control-Max-Age", "86400"))
            if (requested_headers := self.headers.get("access-control-request-headers")) is not None:
                headers.append(("Access-Control-Allow-Headers", requested_headers))
        return headers
