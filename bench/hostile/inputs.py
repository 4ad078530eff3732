"""Attacks with the content of requests: bodies that are expensive to parse, endless new names, search patterns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from bench.calling import Failed
from bench.hostile.target import Target, ask

BODY_BYTES = 1_000_000


async def dear_bodies(target: Target) -> str:
    """1 MB of JSON with very many members, elements, brackets, escapes, digits or NULs."""
    size = target.number(BODY_BYTES)
    body = b'{"agent":1,"content":"hi","variables":%s}'
    bodies = [
        body % (b"{" + b",".join(b'"%x":0' % at for at in range(size // 10)) + b"}"),
        body % (b'{"a":[' + b",".join([b"0"] * (size // 2)) + b"]}"),
        body % (b'{"a":[' + b",".join([b"[]"] * (size // 3)) + b"]}"),
        body % (b'{"a":[' + b",".join([b'"\\u0000"'] * (size // 9)) + b"]}"),
        body % (b'{"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"),
        body % (b'{"a":' + b"9" * size + b"}"),
        b'{"agent":1,"content":"%s"}' % (b"\\ud83d\\ude00" * (size // 12)),
        b'{"agent":1,"content":"%s"}' % ("e\u0301\u0323".encode() * (size // 5)),
        b'{"agent":"%s","content":"hi"}' % (b"9" * size),
    ]
    return await _all(target, [target.request("POST", "messages", body) for body in bodies * 4])


async def small_parts(target: Target) -> str:
    """Uploads with very many small parts, or lines that look like boundaries."""
    size = target.number(4 * BODY_BYTES)
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    bodies = [
        part * (size // len(part)) + b"--b--\r\n",
        b"\r\n--" * (size // 4),
        b"--b\r\n" + b"a: b\r\n" * (size // 6),
    ]
    key = target.ground.keys["xspace"].secret
    head = "POST /api/v1/file/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-User-ID: mallory\r\n"
    kind = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n"
    return await _all(target, [(head.format(key) + kind.format(len(body))).encode() + body for body in bodies * 2])


async def names_without_end(target: Target) -> str:
    """Thousands of new end users, Idempotency-Keys, long paths, queries and headers."""
    long = "a" * 30_000
    number = target.number(2000, least=100)
    requests = [
        target.request("POST", "conversations", {"agent": target.ground.agents["quick"].id}, user=f"minted-{at}",
                       Idempotency_Key=f"key-{at}")
        if at % 2
        else target.request("GET", f"conversations?q={long}&limit={10**12}&{at}", X_Long=long)
        for at in range(number)
    ]  # fmt: skip
    return await _all(target, requests)


async def dear_searches(target: Target) -> str:
    """Search a user's thousands of long titles for patterns."""
    agent = target.ground.agents["quick"]
    await target.connection.execute(
        "INSERT INTO conversation (app, uid, end_user, agent, title)"
        " SELECT $1, gen_random_uuid(), u.id, $2, repeat('a', 255) FROM end_user u, generate_series(1, $4::integer)"
        " WHERE u.app = $1 AND u.name = $3",
        agent.app,
        agent.id,
        "mallory",
        target.number(50_000),
    )
    patterns = ("%25a" * 60 + "b", "a_" * 100 + "b", "%5C" * 80, "(a%2B)%2B%24" * 20, "%EF%B7%BA" * 80)
    return await _all(target, [target.request("GET", f"conversations?q={one}&limit=100") for one in patterns * 40])


async def _all(target: Target, requests: Sequence[bytes]) -> str:
    """Send requests, a few at a time. Raises ``Failed`` for a server error."""
    at_once = asyncio.Semaphore(8)

    async def send(request: bytes) -> int:
        async with at_once:
            return (await ask(target.port, request))[0] if target.left else -1

    counted = Counter(await asyncio.gather(*map(send, requests)))
    if counted[500] or counted[0]:
        raise Failed(f"{counted[500]} failed, {counted[0]} had no answer")
    return ", ".join(f"{count} × {status}" for status, count in sorted(counted.items()) if status >= 0)
