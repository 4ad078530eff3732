"""Attacks with bodies that are large or endless."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from bench.hostile.target import Target, ask, dial
from palaver import app

UPLOAD_BYTES = 100 * 2**20
PIECE = b"x" * 2**18
ROUTES = [
    (route.method, route.path) for dialect in app.all_dialects() for route in dialect.routes if route.method == "POST"
]


async def uploads_without_credential(target: Target) -> str:
    """Anonymous uploads of 100 MiB that slow down to a drip, on upload routes and others, with a length and chunked."""
    uploads = [("POST", "/palaver/v1/files"), ("POST", "/api/v1/file/upload"), ("POST", "/v1/asset/upload")]
    paths = [path for _, path in (uploads + [ROUTES[at] for at in range(0, len(ROUTES), len(ROUTES) // 6)])]
    heads = [_head(path, at % 2 == 0) for at, path in enumerate(paths * 2)][:12]
    return await _send(target, heads, chunked=[at % 2 == 1 for at in range(len(heads))])


async def uploads_with_credential(target: Target) -> str:
    """The same with a valid credential for many end users, together with smaller uploads, which are stored."""
    drips = [_verified_head(target, f"uploader {at}", UPLOAD_BYTES) for at in range(12)]
    senders = [asyncio.create_task(_send_wholes(target, f"sender {at}")) for at in range(target.number(12))]
    note = await _send(target, drips, chunked=[False] * len(drips))
    stored = Counter[int]()
    for statuses in await asyncio.gather(*senders):
        stored.update(statuses)
    return f"{note}; " + ", ".join(f"{count} × {status}" for status, count in sorted(stored.items()))


async def _send_wholes(target: Target, user: str) -> list[int]:
    """Sequential uploads of 24 MiB until the end of the attack. Returns the statuses."""
    statuses: list[int] = []
    while target.left:
        size = target.number(24 * 2**20)
        head = _verified_head(target, user, size)
        statuses.append((await ask(target.port, head + bytes(size)))[0])
    return statuses


def _verified_head(target: Target, user: str, size: int) -> bytes:
    request = target.request("POST", "files?name=big.bin", user=user, Content_Type="application/octet-stream")
    return request.replace(b"Content-Length: 0", b"Content-Length: %d" % size)


def _head(path: str, measured: bool) -> bytes:
    how = f"Content-Length: {UPLOAD_BYTES}" if measured else "Transfer-Encoding: chunked"
    boundary = "Content-Type: multipart/form-data; boundary=b"
    nobody = "Authorization: Bearer nobody\r\nX-Api-Key: nobody\r\nSnail-Ai-Auth: nobody"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{nobody}\r\n{boundary}\r\n{how}\r\n\r\n".encode()


async def _send(target: Target, heads: list[bytes], *, chunked: list[bool]) -> str:
    size = target.number(UPLOAD_BYTES)
    ends = await asyncio.gather(
        *(_upload(target, head, size, chunks) for head, chunks in zip(heads, chunked, strict=True))
    )
    counted = Counter(ends)
    return ", ".join(f"{count} {how}" for how, count in counted.most_common())


async def _upload(target: Target, head: bytes, size: int, chunked: bool) -> str:
    """The result: the status of the rejection, or still open at the end of the attack."""
    reader, writer = await dial(target.port)
    answer = asyncio.create_task(reader.read(64))
    try:
        with suppress(OSError):
            writer.write(head)
            for _ in range(size // len(PIECE)):
                if answer.done() or not target.left:
                    break
                writer.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
                async with asyncio.timeout(target.left):
                    await writer.drain()
            while target.left and not answer.done():
                writer.write(b"1\r\nx\r\n" if chunked else b"x")
                await asyncio.wait([answer], timeout=0.5)
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()
        answer.cancel()
        ended = (await asyncio.gather(answer, return_exceptions=True))[0]
    if isinstance(ended, bytes) and ended.startswith(b"HTTP/1.1 "):
        return f"refused {ended[9:12].decode()}"
    return "closed" if isinstance(ended, OSError | bytes) else "left waiting"
