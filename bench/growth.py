"""Measurements of growth: a long conversation, a long list of conversations."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from bench.callers import LISTS, Caller
from bench.calling import Line
from bench.report import Row
from bench.sizes import Sizes
from bench.stage import Stage
from bench.streams import MICRO, MILLI
from bench.turns import INSTANT

FEW, MANY = "few", "many"
"""Two end users, one with a page of conversations, one with very many."""
_PAGE = 20
_MESSAGES = """
INSERT INTO message (app, conversation, id, uid, role, parts, status, ended)
SELECT c.app, c.id, n.question + side, gen_random_uuid(), CASE side WHEN 0 THEN 'user' ELSE 'assistant' END,
    jsonb_build_array(jsonb_build_object('type', 'text', 'text', 'message ' || n.question)),
    CASE side WHEN 1 THEN 'complete' END, CASE side WHEN 1 THEN now() END
FROM conversation c, (SELECT nextval('message_id') AS question FROM generate_series(1, $2::integer / 2)) n,
    generate_series(0, 1) side
WHERE c.uid = $1"""
_CONVERSATIONS = """
INSERT INTO conversation (app, uid, end_user, agent, title, opening, modified)
SELECT u.app, gen_random_uuid(), u.id, $2, 'conversation ' || n, 'opening', now() - make_interval(secs => n)
FROM end_user u, generate_series(1, $4::integer) n WHERE u.app = $1 AND u.name = $3"""


async def sending(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """The time of a whole turn in a long conversation and in an empty one, alternating."""
    stage.upstream.fresh(INSTANT)
    line = await Line.to(stage.palaver.port)
    process = stage.palaver.process
    for name in dialects:
        caller = stage.ground.callers[name]
        (long,) = await stage.conversations(1)
        await stage.connection.execute(_MESSAGES, long, sizes.long_conversation)
        # A database would do this by itself within a minute.
        await stage.connection.execute("VACUUM ANALYZE message")
        seconds: dict[bool, list[float]] = {True: [], False: []}
        cpu = {True: 0.0, False: 0.0}
        empty = await stage.conversations(sizes.turns)
        await line.whole(caller.say(long))
        for conversation in empty:
            for one in (long, conversation):
                begun = process.cpu()
                seconds[one is long].append(await _send(line, caller, one))
                cpu[one is long] += process.cpu() - begun
        value, yardstick = (statistics.median(seconds[is_long]) for is_long in (True, False))
        yield Row(
            measure=f"a send into {sizes.long_conversation:,} messages: {name}",
            value=value * MILLI,
            unit="ms",
            yardstick=yardstick * MILLI,
            ratio=value / yardstick,
            goal="≤ 1.5 × empty",
            met=value / yardstick <= 1.5,
            note=f"server {cpu[True] / sizes.turns * MICRO:,.0f} µs CPU a turn, {cpu[False] / sizes.turns * MICRO:,.0f}"
            " in the empty one",
        )
    line.hang_up()


async def _send(line: Line, caller: Caller, conversation: UUID) -> float:
    await line.whole(caller.say(conversation))
    return line.ended - line.sent_at


async def listing(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """The first page of a user's conversations, of one page in total and of very many."""
    names = [name for name in dialects if name in LISTS]
    if not names:
        return
    await _fill(stage, FEW, _PAGE)
    before = {name: await _list(stage, f"{name} {FEW}", sizes.turns) for name in names}
    await _fill(stage, MANY, sizes.many_conversations)
    await stage.connection.execute("VACUUM ANALYZE conversation")
    for name in names:
        value = await _list(stage, f"{name} {MANY}", sizes.turns)
        few = await _list(stage, f"{name} {FEW}", sizes.turns)
        yield Row(
            measure=f"listing among {sizes.many_conversations:,} conversations: {name}",
            value=value * MILLI,
            unit="ms",
            yardstick=before[name] * MILLI,
            ratio=value / before[name],
            goal="≤ 1.5 × few",
            met=value / before[name] <= 1.5,
            note=f"of a user with {_PAGE}, measured afterwards: {few * MILLI:.2f} ms",
        )


async def _fill(stage: Stage, user: str, count: int) -> None:
    """Insert conversations without checking foreign keys, which would take most of the time."""
    ground = stage.ground
    await stage.connection.execute("SET session_replication_role = replica")
    try:
        await stage.connection.execute(_CONVERSATIONS, ground.application.id, ground.agent.id, user, count)
    finally:
        await stage.connection.execute("RESET session_replication_role")


async def _list(stage: Stage, name: str, times: int) -> float:
    """The median time of ``times`` calls, in seconds."""
    line = await Line.to(stage.palaver.port)
    request = stage.ground.callers[name].listing()
    seconds: list[float] = []
    for _ in range(times):
        await line.whole(request)
        seconds.append(line.ended - line.sent_at)
    line.hang_up()
    return statistics.median(seconds)
