"""HTTP/1 on one connection: uvicorn's parser and ASGI cycle, plus the limits that they lack.

A request head is buffered before it is parsed, up to a size and a time limit. While a response is pending, the next
request is not parsed: bytes already read are buffered once, and reading from the socket pauses. A response is written
in pieces that the client must read in time.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from palaver.http.connections import ConnectionLimits, Connections, set_reset_on_close
from palaver.http.heads import HEAD_TOO_LARGE, NOT_HTTP, host_error, normalize_head, origin_form, split_target
from palaver.wire.framing import compact_json

MAX_HEAD_BYTES = 65_536
"""Maximum size of a request head, in bytes."""
MAX_WRITE_BYTES = 65_536
"""Maximum bytes passed to the socket at a time."""
CHUNKED_PARSE_BYTES = 4096
"""Bytes of a chunked body parsed at a time: every chunk has a cost, however small."""
MAX_PIPELINED_REQUESTS = 16
"""Maximum number of requests in one read after a chunked body."""
DISCARD_TIMEOUT_S = 30.0
"""Seconds to receive the rest of a body that the handler no longer reads."""
LINGER_TIMEOUT_S = 2.0
"""Seconds that a connection stays open after its last response, so that a client still sending can read it."""
HALF_CLOSED_TIMEOUT_S = 1.0
"""Seconds to respond to a client that has half-closed the connection."""

log = structlog.get_logger("palaver.http")

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]{1,32}) ([^\x00-\x20\x7f]+) HTTP/(1)\.([01])")


class HttpProtocol(HttpToolsProtocol):
    """The server side of one HTTP/1 connection."""

    app: Any
    cycle: Any  # ``None`` before the first request
    parser: Any

    def __init__(self, *, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._limits: ConnectionLimits = connections.limits
        self._buffer = bytearray()
        """Bytes not parsed yet: part of a head, or data that follows a request whose response is pending."""
        self._pipelined_bytes = 0
        """How many buffered bytes count as pipelined."""
        self._scanned = 0
        """Buffered bytes already searched for the end of a head."""
        self._body_remaining = 0
        """Bytes of the body still expected, by ``Content-Length``; 0 for a chunked body, whose end the parser finds."""
        self._deferred: tuple[bytes, int] | None = None
        """Data of a chunked body, and the offset at which to resume parsing in a later iteration of the event loop."""
        self._in_body = False
        """The request's head is complete and its body is not."""
        self._tail = b""
        """The last bytes parsed of a chunked body: an empty line may begin with them."""
        self._discarding = False
        """Incoming bytes are dropped."""
        self._request_line: re.Match[bytes] | None = None
        """The first line of the request being read."""
        self._has_request_line = False
        """The buffer begins with a request line."""
        self._timer: asyncio.TimerHandle | None = None
        """The deadline for the head, or for the rest of a body that the handler no longer reads."""
        self._write_timer: asyncio.TimerHandle | None = None
        self._written = 0
        self._sent_at_check = 0
        self._write_target = 0
        self.peer = ""

    # Connection -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._connections.add(self)
        self._set_timer(self._limits.head_timeout_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._set_buffer(b"")
        self._clear_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that half-closes may still read. One that follows a stream, or has sent nothing, is gone."""
        if self._in_body or self._discarding or not self._responding or self.cycle.response_started:
            return None
        self._set_timer(HALF_CLOSED_TIMEOUT_S, self.transport.close)
        self.cycle.keep_alive = False
        return True

    def evict(self) -> None:
        self.transport.abort()

    @property
    def awaits_peer(self) -> bool:
        return not self._responding or self._in_body or self.flow.write_paused

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Reading --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._unset_keepalive_if_required()
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer) if self._parsable() else b""
            if not data:
                self._wait_for_more()
                return
        self._parse(data)

    def _parsable(self) -> bool:
        """Whether the buffer can be parsed now: it holds a complete head, or cannot be a head."""
        complete_head = b"\r\n\r\n" in self._buffer[max(self._scanned - 3, 0) :]
        return not self._responding and (complete_head or not self._may_be_head())

    def _wait_for_more(self) -> None:
        """Keep the buffer, which cannot be parsed yet; reject a head that is too large."""
        if self._responding:
            self._set_buffer(bytes(self._buffer))
            return
        self._scanned = len(self._buffer)
        if self._scanned > MAX_HEAD_BYTES:
            self._request_line = _REQUEST_LINE.match(bytes(self._buffer))
            self._reject(431, HEAD_TOO_LARGE)

    def _parse(self, data: bytes, start: int = 0) -> None:
        """Feed the parser as much as allowed now; buffer the rest."""
        self._set_buffer(b"")
        while start < len(data) and not self._discarding and not self.transport.is_closing():
            if self._in_body:
                start = self._feed_body(data, start)
                if self._in_body and start < len(data):
                    self._defer_parse(data, start)
                    return
                continue
            if self._responding:
                self._set_buffer(data[start:])
                return
            if (end := self._feed_head(data, start)) < 0:
                return
            start = end

    def _feed_body(self, data: bytes, start: int) -> int:
        """Parse the body that continues at ``start``; return the end offset."""
        end = min(len(data), start + (self._body_remaining or CHUNKED_PARSE_BYTES))
        if self._body_remaining:
            self._feed(data[start:end])
            return end
        while start < end and self._in_body and not self._discarding:
            start = self._feed_chunks(data, start, end)
        return start

    def _feed_chunks(self, data: bytes, start: int, end: int) -> int:
        """Parse a chunked body up to its next empty line or ``end``; return the offset reached. Only the parser knows
        which empty line ends the body, and it must not see the head that follows."""
        window = self._tail + data[start:end]
        empty_line = _EMPTY_LINE.search(window)
        if empty_line is not None:
            end = start + empty_line.end() - len(self._tail)
        self._tail = window[-2:] if empty_line is None else b"\n"
        self._feed(data[start:end])
        return end

    def _defer_parse(self, data: bytes, start: int) -> None:
        """Continue parsing after other connections have had their turn; pause reading until then."""
        self._deferred = (data, start)
        self.flow.pause_reading()
        self._connections.call_soon(self._parse_deferred)

    def _parse_deferred(self) -> None:
        deferred, self._deferred = self._deferred, None
        if deferred is None or self._discarding or self.transport.is_closing():
            return
        self._parse(*deferred)
        if self.cycle.response_complete or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.resume_reading()

    def _feed_head(self, data: bytes, start: int) -> int:
        """Parse the head that begins at ``start``. Returns its end offset, -1 if it is incomplete or rejected."""
        while data.startswith(b"\r\n", start):  # RFC 9112, 2.2: allowed before a request
            start += 2
        if start == len(data):
            return start
        self._begin_request()
        end = data.find(b"\r\n\r\n", start) + 4
        complete_head = end >= 4
        if (end if complete_head else len(data)) - start > MAX_HEAD_BYTES:
            self._request_line = _REQUEST_LINE.match(data, start)
            self._reject(431, HEAD_TOO_LARGE)
            return -1
        if not complete_head:
            self._buffer += data[start:]
            self._scanned = len(self._buffer)
            if not self._may_be_head():
                self._reject(400, NOT_HTTP)
            return -1
        line_end = data.find(b"\r\n", start)
        self._request_line = _REQUEST_LINE.fullmatch(data, start, line_end)
        if self._request_line is None:
            self._reject(400, NOT_HTTP)
            return -1
        self._clear_timer()
        self._feed(normalize_head(self._request_line, data[line_end:end]))
        return end

    def _may_be_head(self) -> bool:
        """Whether the buffer may still become a request head."""
        if not self._has_request_line:
            line, ended, _ = self._buffer.partition(b"\n")
            if not ended:
                return self._buffer[:1].isalpha()
            self._has_request_line = line.endswith(b"\r") and _REQUEST_LINE.fullmatch(line[:-1]) is not None
        return self._has_request_line

    def _begin_request(self) -> None:
        """Reset the state for a new request."""
        self._request_line = None
        self._has_request_line = False
        self.headers = []
        self._connections.mark_unverified(self)
        if self._timer is None:
            self._set_timer(self._limits.head_timeout_s, self.transport.close)

    def _feed(self, data: bytes) -> None:
        if self._in_body:
            self._body_remaining = max(self._body_remaining - len(data), 0)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # CONNECT: the bytes that follow are not HTTP
            self.cycle.keep_alive = False
        except httptools.HttpParserInvalidMethodError:
            self._reject_method()
        except httptools.HttpParserError as error:
            self._reject(400, str(error.__context__ or error))

    def _set_buffer(self, data: bytes) -> None:
        """Buffer ``data`` until the pending response is sent; pause reading until then."""
        self._connections.pipelined += len(data) - self._pipelined_bytes
        self._pipelined_bytes = len(data)
        self._buffer = bytearray(data)
        self._scanned = 0
        if not data:
            return
        self.flow.pause_reading()
        if self._connections.pipelined > self._limits.max_pipelined:
            log.warning("pipelining limit exceeded", peer=self.peer, bytes=self._connections.pipelined)
            self.transport.abort()

    # Parser callbacks -----------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._in_body = True
        method = self.parser.get_method().decode("ascii")
        version = self.parser.get_http_version()
        length = next((value for name, value in self.headers if name == b"content-length"), b"0")
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._body_remaining = int(length) if length.isdigit() and not chunked else 0
        self._tail = b""
        malformed_host = host_error([value for name, value in self.headers if name == b"host"], version)
        malformed = (400, malformed_host) if malformed_host else None
        self._start(
            method, version, malformed=malformed, keep_alive=version != "1.0" and self.parser.should_keep_alive()
        )

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._request_line = None
        if self.cycle.response_complete:  # the rest of a discarded body
            self._clear_timer()
            self._next_request()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # Responding -----------------------------------------------------------------------------------------------------

    def _start(self, method: str, version: str, *, keep_alive: bool, malformed: tuple[int, str] | None = None) -> None:
        """Start the ASGI cycle of the request whose head was read. ``malformed``: its rejection's status and reason."""
        line = self._request_line
        target = None if line is None else split_target(line[2])
        if line is None or target is None:
            self._reject(400, "the request's target is no address")
            return
        path, query = target
        cast("dict[str, Any]", self.scope).update(
            method=method,
            http_version=version,
            path=urllib.parse.unquote(path.decode("ascii")),
            raw_path=path,
            query_string=query,
            target=origin_form(line[2]),
            verified=self._mark_verified,
            malformed=malformed,
        )
        existing, self.cycle = self.cycle, self._new_cycle(version, keep_alive=keep_alive and malformed is None)
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        elif len(self.pipeline) < MAX_PIPELINED_REQUESTS:
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self.transport.abort()

    def _mark_verified(self) -> None:
        self._connections.mark_verified(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start the request when it is its credential's turn."""
        start = super()._start_asgi_task
        self._connections.requests.start(self.headers, lambda: start(cycle, app))

    def _new_cycle(self, version: str, *, keep_alive: bool) -> ResponseCycle:
        return ResponseCycle(
            self,
            http_10=version == "1.0",
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._discarding:
            return
        if self._deferred is None:
            self.flow.resume_reading()
        if self._in_body:
            self._set_timer(DISCARD_TIMEOUT_S, self.transport.close)
        else:
            self._next_request()

    def _next_request(self) -> None:
        """The request and its response are complete: start the next one."""
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if buffered := bytes(self._buffer):
            self._unset_keepalive_if_required()
            self._parse(buffered)

    def resume_reading(self) -> None:
        """Resume reading: the handler waits for more of the body, or for a disconnect."""
        if not self._pipelined_bytes and self._deferred is None:
            self.flow.resume_reading()

    def write(self, data: bytes | memoryview) -> None:
        self.transport.write(data)
        self._written += len(data)
        if self._write_timer is None:
            self._sent_at_check, self._write_target = (
                self._written - self.transport.get_write_buffer_size(),
                self._written,
            )
            self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self._check_write_progress)

    def _check_write_progress(self) -> None:
        """Abort unless the client has read what was pending at the last check, or reads at ``min_rate`` at least."""
        self._write_timer = None
        pending = self.transport.get_write_buffer_size()
        sent = self._written - pending
        min_bytes = self._limits.min_rate * self._limits.write_timeout_s
        if sent < self._write_target and sent - self._sent_at_check < min_bytes:
            log.info("client too slow", peer=self.peer, seconds=self._limits.write_timeout_s, pending=pending)
            self.transport.abort()
        elif pending:
            self._sent_at_check, self._write_target = sent, self._written
            self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self._check_write_progress)

    def close_gracefully(self) -> None:
        """Close after the last response. If the client may still be sending, linger so that it can read the response:
        data that arrives at a closed socket causes a reset, which discards unread data."""
        if not self._in_body and not self._buffer and not self._discarding:
            self.transport.close()
            return
        self._discarding = True
        self._set_buffer(b"")
        self.flow.resume_reading()
        self._set_timer(LINGER_TIMEOUT_S, self.transport.close)
        if self.transport.can_write_eof():
            with suppress(OSError):
                self.transport.write_eof()

    # Rejecting ------------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._reject(400, msg)

    def _reject(self, status: int, reason: str) -> None:
        """Respond to a request that cannot be served, and close: in the form of the path's dialect, if it has one."""
        if self._discarding or self.transport.is_closing():
            return
        self._clear_timer()
        self._buffer.clear()
        if self._responding and not self._in_body:  # the pending response is still sent
            self._discarding, self.cycle.keep_alive = True, False
            return
        if self._responding:  # the handler sees a disconnect
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._in_body = False
        self._discarding = True
        if self._request_line is None or split_target(self._request_line[2]) is None:
            self._reject_without_app(status, reason)
            return
        self._restart((status, reason))

    def _reject_method(self) -> None:
        """Handle a method unknown to the parser: no route has it."""
        self._discarding = True
        self._restart(None)

    def _restart(self, malformed: tuple[int, str] | None) -> None:
        assert self._request_line is not None
        headers = self.headers
        self.on_message_begin()
        self.scope["headers"] = self.headers = headers
        self.cycle = None
        version = "1.0" if self._request_line.group(3, 4) == (b"1", b"0") else "1.1"
        self._start(self._request_line[1].decode(), version, keep_alive=False, malformed=malformed)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _reject_without_app(self, status: int, reason: str) -> None:
        trace = uuid4().hex
        log.info("invalid HTTP request", peer=self.peer, reason=reason, status=status, trace=trace)
        body = compact_json({"error": "bad request", "detail": reason, "trace": trace})
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (trace.encode(), len(body))
        )
        self.write(STATUS_LINE[status] + head + body)
        self.close_gracefully()

    # Timers ---------------------------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self.loop.call_later(seconds, callback)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ResponseCycle(RequestResponseCycle):
    """A request and its response, written in pieces no faster than the client reads them."""

    def __init__(self, protocol: HttpProtocol, *, http_10: bool, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._protocol = protocol
        self._http_10 = http_10
        self._bodiless = False

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self._protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self._protocol.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        if not self.response_started:
            assert message["type"] == "http.response.start", message["type"]
            await self._write(self._head(message["status"], message.get("headers", ())))
            self.response_started = True
            return
        assert message["type"] == "http.response.body", message["type"]
        assert not self.response_complete, "the response is complete already"
        body, more = message.get("body", b""), message.get("more_body", False)
        if not self._bodiless:
            await self._write_body(body, more=more)
        if not more and not self.disconnected:
            if self._http_10 and self._length_unknown:
                set_reset_on_close(self.transport, on=False)
            self._end()

    def _head(self, status: int, headers: Any) -> bytes:
        if self.waiting_for_100_continue:  # the body will never come, or would be parsed as a request
            self.keep_alive = self.waiting_for_100_continue = False
        self._bodiless = self.scope["method"] == "HEAD" or status in {204, 304}
        lines = [STATUS_LINE[status]]
        length: int | None = None
        for name, value in (*self.default_headers, *headers):
            match name.lower():
                case b"content-length":
                    length = int(value)
                case b"connection":
                    self.keep_alive = self.keep_alive and value.lower() != b"close"
                    continue
                case _:
                    pass
            if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                raise RuntimeError(f"invalid response header {name!r}: {value!r}")
            lines.append(b"%s: %s\r\n" % (name.lower(), value))
        self.expected_content_length = 0 if self._bodiless else length or 0
        self.chunked_encoding = length is None and not self._bodiless and not self._http_10
        self._length_unknown = length is None
        if self._http_10 and self._length_unknown and not self._bodiless:
            # The end of the connection ends the response, so a truncated response must end with a reset.
            set_reset_on_close(self.transport, on=True)
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _write_body(self, body: bytes, *, more: bool) -> None:
        if self.chunked_encoding:
            framed = b"%x\r\n" % len(body) if body else b""
            end = (b"\r\n" if body else b"") + (b"" if more else b"0\r\n\r\n")
            if len(body) < MAX_WRITE_BYTES:
                await self._write(framed + body + end)
                return
            await self._write(framed)
            await self._write(body)
            await self._write(end)
            return
        if not self._length_unknown:
            self.expected_content_length -= len(body)
            assert self.expected_content_length >= 0, "the body is longer than its Content-Length"
        await self._write(body)

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), MAX_WRITE_BYTES):
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            if self.disconnected:
                return
            self._protocol.write(data if len(data) <= MAX_WRITE_BYTES else view[start : start + MAX_WRITE_BYTES])

    def _end(self) -> None:
        assert self.expected_content_length == 0, "the body is shorter than its Content-Length"
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self._protocol.close_gracefully()
        self.on_response()
