"""Attacks by slow readers, who request much and read nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

from bench.calling import Failed
from bench.hostile.connections import lines
from bench.hostile.target import Target, ask

FILE_BYTES = 60 * 2**20


async def unread_files(target: Target) -> str:
    """Readers of a file of 60 MiB; half of them read nothing, half a little."""
    content = b"x" * target.number(FILE_BYTES)
    more = {"user": "reader of files", "Content_Type": "application/octet-stream"}
    request = target.request("POST", "files?name=big.bin", content, **more)
    status, body = await ask(target.port, request)
    if status != 201:
        raise Failed(f"the file was not taken: {status} {body[:200]!r}")
    key = json.loads(body)["key"]
    return await _unread(
        target, [target.request("GET", f"files/{key}", user=more["user"])] * target.number(32, least=8)
    )


async def unread_history(target: Target) -> str:
    """Readers of conversations with messages of 0.5 MiB each."""
    conversation = ""
    for _ in range(target.number(20, least=4)):
        path = f"conversations/{conversation}/messages" if conversation else "messages"
        message = {"agent": target.ground.agents["reader"].id, "content": "中" * 160_000}
        status, body = await ask(target.port, target.request("POST", path, message))
        if status != 200:
            raise Failed(f"a message was not taken: {status} {body[:200]!r}")
        conversation = conversation or json.loads(body)["conversation"]["uid"]
    request = target.request("GET", f"conversations/{conversation}/messages?limit=100")
    return await _unread(target, [request] * target.number(48, least=8))


async def unread_streams(target: Target) -> str:
    """Thousands of readers of one run; half of them read nothing."""
    status, body = await ask(
        target.port, target.request("POST", "messages", _saying(target, "endless"), Prefer="respond-async")
    )
    if status != 202:
        raise Failed(f"the run was not started: {status} {body[:200]!r}")
    run = json.loads(body)["answer"]["uid"]
    try:
        return await _unread(target, [target.request("GET", f"runs/{run}/events")] * target.number(2000, least=300))
    finally:
        await ask(target.port, target.request("POST", f"runs/{run}/stop", b"{}"))


def _saying(target: Target, agent: str) -> dict[str, object]:
    return {"agent": target.ground.agents[agent].id, "content": "hi"}


async def _unread(target: Target, requests: Sequence[bytes]) -> str:
    async with lines(target, len(requests)) as connections:
        for at, ((reader, writer), request) in enumerate(zip(connections, requests, strict=True)):
            if at % 2 == 0:
                reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way
            writer.write(request)
        while target.left:
            for reader, _ in connections[1::2]:
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(0.001):
                        await reader.read(1024)
            await asyncio.sleep(0.1)
        return f"{len(connections)} readers"
