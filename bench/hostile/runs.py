"""Attacks with runs: long ones, many, and endless ones."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from bench.calling import Failed
from bench.hostile.connections import lines
from bench.hostile.target import Target, ask

REFUSES = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.parts::text LIKE '%UNSTORABLE%' THEN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION refuse()"""


async def long_answers(target: Target) -> str:
    """200 concurrent answers of 2 MiB that nobody reads."""
    return await _begin(target, "long", target.number(200, least=20))


async def hanging_runs(target: Target) -> str:
    """Endless runs of one credential, more than its limit."""
    return await _begin(target, "hanging", target.number(4000, least=1000))


async def _begin(target: Target, agent: str, number: int) -> str:
    """Start that many runs, wait for the end of the attack, and stop them."""
    at_once = asyncio.Semaphore(10)

    async def begin(at: int) -> tuple[int, str]:
        async with at_once:
            if not target.left:
                return 0, ""
            body = {"agent": target.ground.agents[agent].id, "content": "hi"}
            request = target.request("POST", "messages", body, user=f"user-{at % 50}", Prefer="respond-async")
            status, answer = await ask(target.port, request)
            return status, json.loads(answer)["answer"]["uid"] if status == 202 else ""

    begun = await asyncio.gather(*(begin(at) for at in range(number)))
    counted = Counter(status for status, _ in begun)
    live = await target.metric("palaver_live_runs")
    await asyncio.sleep(target.left)

    async def stop(at: int, run: str) -> None:
        async with at_once:
            await ask(target.port, target.request("POST", f"runs/{run}/stop", b"{}", user=f"user-{at % 50}"))

    await asyncio.gather(*(stop(at, run) for at, (_, run) in enumerate(begun) if run))
    statuses = ", ".join(f"{count} × {status or 'not sent'}" for status, count in sorted(counted.items()))
    return f"{statuses}; {live:.0f} live"


async def refused_rows(target: Target) -> str:
    """Answers that the database rejects, together with others."""
    await target.connection.execute(REFUSES)
    try:
        requests = [
            target.message(agent, user=f"user-{at}")
            for at in range(target.number(40, least=8))
            for agent in ("refused", "quick")
        ]
        answers = await asyncio.gather(*(ask(target.port, one) for one in requests))
    finally:
        await target.connection.execute("DROP TRIGGER refuse ON message")
    ends = [json.loads(body)["answer"]["status"] if status == 200 else str(status) for status, body in answers]
    if set(ends[::2]) != {"failed"} or set(ends[1::2]) != {"complete"}:
        raise Failed(f"they ended {Counter(ends[::2])} and {Counter(ends[1::2])}")
    return f"{len(ends) // 2} ended failed, {len(ends) // 2} complete"


async def equal_calls(target: Target) -> str:
    """Identical calls with one Idempotency-Key whose callers disconnect: for a long run, and for a single response."""
    before, begun = await target.metric("palaver_statements_total"), target.left
    number = target.number(3000, least=300)
    run = target.message("hanging").replace(b"\r\n\r\n", b"\r\nIdempotency-Key: one\r\n\r\n", 1)
    create = target.request("POST", "conversations", {"agent": target.ground.agents["quick"].id}, Idempotency_Key="two")
    sent = 0
    while sent < number and target.left:
        async with lines(target, min(100, number - sent)) as some:
            for at, (_, writer) in enumerate(some):
                writer.write(create if at % 4 == 0 else run)
            await asyncio.sleep(0.05)
            sent += len(some)
    await asyncio.sleep(target.left)
    rate = (await target.metric("palaver_statements_total") - before) / begun
    live = await target.connection.fetchval(
        "SELECT count(*) FROM message WHERE app = $1 AND status = 'live'", target.ground.keys["native"].app
    )
    if live > 1:
        raise Failed(f"{live} runs of {sent} equal calls")
    await target.stop_all()
    return f"{sent} calls, {rate:.0f} statements/s"
