"""HTTP/1 on one connection: uvicorn's parser and its ASGI cycle, with the limits that they have not.

A head is collected before it is parsed, within a size and a time. While an answer is out nothing of the next request
is parsed: what has been read already is kept, once, and the socket is left alone. An answer goes out in pieces that
the reader must take in time.
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

from palaver.http.connections import ConnectionLimits, Connections, end_by_reset
from palaver.http.heads import origin_form, parsed, plain, wrong_host
from palaver.wire.framing import compact

HEAD_BYTES = 65_536
"""Bytes a request's head may have."""
TOO_LARGE = "the head has more than 64 KiB"
NO_HTTP = "it does not begin with a request line of HTTP/1.1"
WRITE_BYTES = 65_536
"""Bytes that are handed to the socket at a time."""
CHUNKED_BYTES = 4096
"""Bytes of a body in chunks that are parsed at a time: each chunk costs, however small it is."""
MAX_QUEUED = 16
"""Requests that may come in one read behind a chunked body."""
DISCARDING_S = 30.0
"""Seconds in which the rest of a body may come that nobody reads any more."""
LINGERING_S = 2.0
"""Seconds that a connection is kept after its last answer, for a caller who is still sending to read it."""
HALF_CLOSED_S = 1.0
"""Seconds that a caller who will send no more is given his answer."""

log = structlog.get_logger("palaver.http")

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]{1,32}) ([^\x00-\x20\x7f]+) HTTP/(1)\.([01])")


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    app: Any
    cycle: Any  # none before the first request
    parser: Any

    def __init__(self, *, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._limits: ConnectionLimits = connections.limits
        self._kept = bytearray()
        """Bytes that are not parsed yet: a part of a head, or what came behind a request that is being answered."""
        self._counted = 0
        """How many of them are counted as pipelined."""
        self._scanned = 0
        self._body_left = 0
        """Bytes of the body that are to come, where its head says it; 0 for a chunked one."""
        self._rest: tuple[bytes, int] | None = None
        """What has been read of a body in chunks, and from where on it is to be parsed in a later pass of the loop."""
        self._in_body = False
        """A request's head is complete and its body is not."""
        self._tail = b""
        """The last bytes parsed of a chunked body: an empty line may begin with them."""
        self._discarding = False
        """What comes is nobody's any more."""
        self._line: re.Match[bytes] | None = None
        """The first line of the request that is being read."""
        self._plausible = False
        """What is kept begins with a request line."""
        self._timer: asyncio.TimerHandle | None = None
        """Until when the head, or the rest of a body that nobody reads, must be there."""
        self._write_timer: asyncio.TimerHandle | None = None
        self._handed = 0
        self._taken = 0
        self._due = 0
        self.peer = ""

    # Coming and going -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._connections.add(self)
        self._set_timer(self._limits.head_timeout_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._keep(b"")
        self._clear_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A caller who sends no more may still read. One who follows a stream, or has sent nothing, is gone."""
        if self._in_body or self._discarding or not self._answering or self.cycle.response_started:
            return None
        self._set_timer(HALF_CLOSED_S, self.transport.close)
        self.cycle.keep_alive = False
        return True

    def evict(self) -> None:
        self.transport.abort()

    @property
    def awaits_peer(self) -> bool:
        return not self._answering or self._in_body or self.flow.write_paused

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Reading --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._unset_keepalive_if_required()
        if self._kept:
            self._kept += data
            data = bytes(self._kept) if self._complete() else b""
            if not data:
                self._wait_for_more()
                return
        self._parse(data)

    def _complete(self) -> bool:
        """Whether what is kept can be parsed now: it has a whole head, or is no head at all."""
        whole = b"\r\n\r\n" in self._kept[max(self._scanned - 3, 0) :]
        return not self._answering and (whole or not self._may_be_head())

    def _wait_for_more(self) -> None:
        """Nothing of what is kept can be parsed yet."""
        if self._answering:
            self._keep(bytes(self._kept))
            return
        self._scanned = len(self._kept)
        if self._scanned > HEAD_BYTES:
            self._line = _REQUEST_LINE.match(bytes(self._kept))
            self._refuse(431, TOO_LARGE)

    def _parse(self, data: bytes, at: int = 0) -> None:
        """Give the parser what it may have by now; the rest is kept."""
        self._keep(b"")
        while at < len(data) and not self._discarding and not self.transport.is_closing():
            if self._in_body:
                at = self._take_body(data, at)
                if self._in_body and at < len(data):
                    self._put_off(data, at)
                    return
                continue
            if self._answering:
                self._keep(data[at:])
                return
            if (end := self._take_head(data, at)) < 0:
                return
            at = end

    def _take_body(self, data: bytes, at: int) -> int:
        """Parse the body that continues at ``at``; where parsing goes on."""
        end = min(len(data), at + (self._body_left or CHUNKED_BYTES))
        if self._body_left:
            self._feed(data[at:end])
            return end
        while at < end and self._in_body and not self._discarding:
            at = self._take_chunks(data, at, end)
        return at

    def _take_chunks(self, data: bytes, at: int, end: int) -> int:
        """The same for a chunked body. It ends with an empty line, but only the parser knows which one ends it: give it
        no more than up to the next, so that it never sees the following head."""
        window = self._tail + data[at:end]
        empty_line = _EMPTY_LINE.search(window)
        if empty_line is not None:
            end = at + empty_line.end() - len(self._tail)
        self._tail = window[-2:] if empty_line is None else b"\n"
        self._feed(data[at:end])
        return end

    def _put_off(self, data: bytes, at: int) -> None:
        """Parse on when others have had their turn, and read no more until then."""
        self._rest = (data, at)
        self.flow.pause_reading()
        self._connections.later(self._parse_on)

    def _parse_on(self) -> None:
        rest, self._rest = self._rest, None
        if rest is None or self._discarding or self.transport.is_closing():
            return
        self._parse(*rest)
        if self.cycle.response_complete or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.may_read()

    def _take_head(self, data: bytes, at: int) -> int:
        """Where the head that begins at ``at`` ends, -1 where it is not to be parsed."""
        while data.startswith(b"\r\n", at):  # RFC 9112, 2.2: may stand before a request
            at += 2
        if at == len(data):
            return at
        self._begin()
        end = data.find(b"\r\n\r\n", at) + 4
        whole = end >= 4
        if (end if whole else len(data)) - at > HEAD_BYTES:
            self._line = _REQUEST_LINE.match(data, at)
            self._refuse(431, TOO_LARGE)
            return -1
        if not whole:
            self._kept += data[at:]
            self._scanned = len(self._kept)
            if not self._may_be_head():
                self._refuse(400, NO_HTTP)
            return -1
        line_end = data.find(b"\r\n", at)
        self._line = _REQUEST_LINE.fullmatch(data, at, line_end)
        if self._line is None:
            self._refuse(400, NO_HTTP)
            return -1
        self._clear_timer()
        self._feed(plain(self._line, data[line_end:end]))
        return end

    def _may_be_head(self) -> bool:
        """Whether what came of a head may still become one."""
        if not self._plausible:
            line, ended, _ = self._kept.partition(b"\n")
            if not ended:
                return self._kept[:1].isalpha()
            self._plausible = line.endswith(b"\r") and _REQUEST_LINE.fullmatch(line[:-1]) is not None
        return self._plausible

    def _begin(self) -> None:
        """A request begins."""
        self._line = None
        self._plausible = False
        self.headers = []
        self._connections.doubt(self)
        if self._timer is None:
            self._set_timer(self._limits.head_timeout_s, self.transport.close)

    def _feed(self, data: bytes) -> None:
        if self._in_body:
            self._body_left = max(self._body_left - len(data), 0)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # CONNECT: what follows is no HTTP
            self.cycle.keep_alive = False
        except httptools.HttpParserInvalidMethodError:
            self._refuse_method()
        except httptools.HttpParserError as error:
            self._refuse(400, str(error.__context__ or error))

    def _keep(self, data: bytes) -> None:
        """Keep what may be parsed only when the answer is out, and read no more until then."""
        self._connections.pipelined += len(data) - self._counted
        self._counted = len(data)
        self._kept = bytearray(data)
        self._scanned = 0
        if not data:
            return
        self.flow.pause_reading()
        if self._connections.pipelined > self._limits.max_pipelined:
            log.warning("too much is pipelined", peer=self.peer, bytes=self._connections.pipelined)
            self.transport.abort()

    # What the parser says -------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._in_body = True
        method = self.parser.get_method().decode("ascii")
        version = self.parser.get_http_version()
        length = next((value for name, value in self.headers if name == b"content-length"), b"0")
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._body_left = int(length) if length.isdigit() and not chunked else 0
        self._tail = b""
        wrong = wrong_host([value for name, value in self.headers if name == b"host"], version)
        malformed = (400, wrong) if wrong else None
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
        self._line = None
        if self.cycle.response_complete:  # the rest of a body that nobody wanted
            self._clear_timer()
            self._await_next()
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # Answering ------------------------------------------------------------------------------------------------------

    def _start(self, method: str, version: str, *, keep_alive: bool, malformed: tuple[int, str] | None = None) -> None:
        """Begin to answer the request whose head has been read; ``malformed``: with which status, and why."""
        line = self._line
        target = None if line is None else parsed(line[2])
        if line is None or target is None:
            self._refuse(400, "the request's target is no address")
            return
        path, query = target
        cast("dict[str, Any]", self.scope).update(
            method=method,
            http_version=version,
            path=urllib.parse.unquote(path.decode("ascii")),
            raw_path=path,
            query_string=query,
            target=origin_form(line[2]),
            verified=self._verified,
            malformed=malformed,
        )
        existing, self.cycle = self.cycle, self._cycle(version, keep_alive=keep_alive and malformed is None)
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        elif len(self.pipeline) < MAX_QUEUED:
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self.transport.abort()

    def _verified(self) -> None:
        self._connections.verify(self)

    def _cycle(self, version: str, *, keep_alive: bool) -> Cycle:
        return Cycle(
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
        if self._rest is None:
            self.flow.resume_reading()
        if self._in_body:
            self._set_timer(DISCARDING_S, self.transport.close)
        else:
            self._await_next()

    def _await_next(self) -> None:
        """The request and its answer are over."""
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if kept := bytes(self._kept):
            self._unset_keepalive_if_required()
            self._parse(kept)

    def may_read(self) -> None:
        """The request that is being answered wants the rest of its body, or to hear that its caller is gone."""
        if not self._counted and self._rest is None:
            self.flow.resume_reading()

    def write(self, data: bytes | memoryview) -> None:
        self.transport.write(data)
        self._handed += len(data)
        if self._write_timer is None:
            self._taken, self._due = self._handed - self.transport.get_write_buffer_size(), self._handed
            self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        """Whether the reader has taken what was there for it the last time, or is at least about it."""
        self._write_timer = None
        pending = self.transport.get_write_buffer_size()
        taken = self._handed - pending
        least = self._limits.min_rate * self._limits.write_timeout_s
        if taken < self._due and taken - self._taken < least:
            log.info("reader took nothing", peer=self.peer, seconds=self._limits.write_timeout_s, pending=pending)
            self.transport.abort()
        elif pending:
            self._taken, self._due = taken, self._handed
            self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self._check_reader)

    def finish(self) -> None:
        """Close after the last answer. Where the caller may still be sending it is given the time to read it: data that
        comes to a closed socket makes the system take back what was not read."""
        if not self._in_body and not self._kept and not self._discarding:
            self.transport.close()
            return
        self._discarding = True
        self._keep(b"")
        self.flow.resume_reading()
        self._set_timer(LINGERING_S, self.transport.close)
        if self.transport.can_write_eof():
            with suppress(OSError):
                self.transport.write_eof()

    # What is no request ---------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what cannot be served, and close: in the form of who keeps the path, where there is one."""
        if self._discarding or self.transport.is_closing():
            return
        self._clear_timer()
        self._kept.clear()
        if self._answering and not self._in_body:  # that answer still goes out
            self._discarding, self.cycle.keep_alive = True, False
            return
        if self._answering:  # to the handler it is a caller who left
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._in_body = False
        self._discarding = True
        if self._line is None or parsed(self._line[2]) is None:
            self._refuse_plainly(status, reason)
            return
        self._restart((status, reason))

    def _refuse_method(self) -> None:
        """A method that the parser does not know is one that no route has."""
        self._discarding = True
        self._restart(None)

    def _restart(self, malformed: tuple[int, str] | None) -> None:
        assert self._line is not None
        headers = self.headers
        self.on_message_begin()
        self.scope["headers"] = self.headers = headers
        self.cycle = None
        version = "1.0" if self._line.group(3, 4) == (b"1", b"0") else "1.1"
        self._start(self._line[1].decode(), version, keep_alive=False, malformed=malformed)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _refuse_plainly(self, status: int, reason: str) -> None:
        trace = uuid4().hex
        log.info("no request", peer=self.peer, reason=reason, status=status, trace=trace)
        body = compact({"error": "bad request", "detail": reason, "trace": trace})
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (trace.encode(), len(body))
        )
        self.write(STATUS_LINE[status] + head + body)
        self.finish()

    # Time -----------------------------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self.loop.call_later(seconds, act)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Cycle(RequestResponseCycle):
    """A request and its answer, which goes out in pieces: no faster than they are taken."""

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
            self._protocol.may_read()
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
        assert not self.response_complete, "something is written after the end"
        body, more = message.get("body", b""), message.get("more_body", False)
        if not self._bodiless:
            await self._write_body(body, more=more)
        if not more and not self.disconnected:
            if self._http_10 and self._unmeasured:
                end_by_reset(self.transport, on=False)
            self._end()

    def _head(self, status: int, headers: Any) -> bytes:
        if self.waiting_for_100_continue:  # the body will never come, or be taken for a request
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
                raise RuntimeError(f"an answer's header cannot be {name!r}: {value!r}")
            lines.append(b"%s: %s\r\n" % (name.lower(), value))
        self.expected_content_length = 0 if self._bodiless else length or 0
        self.chunked_encoding = length is None and not self._bodiless and not self._http_10
        self._unmeasured = length is None
        if self._http_10 and self._unmeasured and not self._bodiless:
            end_by_reset(self.transport, on=True)  # its end is the connection's: a broken one must look broken
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
            if len(body) < WRITE_BYTES:
                await self._write(framed + body + end)
                return
            await self._write(framed)
            await self._write(body)
            await self._write(end)
            return
        if not self._unmeasured:
            self.expected_content_length -= len(body)
            assert self.expected_content_length >= 0, "more is written than was said"
        await self._write(body)

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(data), WRITE_BYTES):
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            if self.disconnected:
                return
            self._protocol.write(data if len(data) <= WRITE_BYTES else view[at : at + WRITE_BYTES])

    def _end(self) -> None:
        assert self.expected_content_length == 0, "less is written than was said"
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self._protocol.finish()
        self.on_response()
