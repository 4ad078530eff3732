"""Whatever callers make the server keep has a limit, and what has run out goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from support.kit import SeededApp, seed_app, store_on, until

from palaver import app
from palaver.config import Settings
from palaver.core.admit import Admission
from palaver.core.ports.store import IdempotencyKey, ReplayedRun, StoredResponse, StoredTurn
from palaver.core.problems import Busy
from palaver.core.users import Users
from palaver.store.quotas import FIRST_RECOUNT_ROWS, RECOUNTS_PER_QUOTA, QuotaKind
from palaver.store.tokens import TokenTable

Act = Callable[[SeededApp, int], Awaitable[Any]]


def people(c: SeededApp) -> Users:
    return Users(c.store, c.store.keys, Admission(c.store.keys, c.store.rate_limits, c.store.tokens))


def claim(number: int) -> IdempotencyKey:
    return IdempotencyKey(scope="POST /chat", key=f"k{number}", digest=b"1")


async def converse(c: SeededApp, number: int) -> None:
    await c.store.conversations.create(c.who, c.user, c.agent, alias=f"c{number}")


async def message(c: SeededApp, number: int) -> None:
    """Two messages of one conversation."""
    if number == 0:
        await converse(c, 0)
    await c.store.runs.open(c.opening(conversation="c0", max_waiting=10_000))


async def answer(c: SeededApp, number: int) -> None:
    assert await c.store.idempotency.begin(c.who, c.user, claim(number), 60, c.store.presence.worker) is True


async def token(c: SeededApp, kind: Any) -> None:
    await people(c).issue_token(c.who.key, kind, "ann", (), life_s=60)


ACTS: dict[str, tuple[QuotaKind, Act, int]] = {
    "an end user who says something": ("users", lambda c, n: c.store.users.get_or_create(c.app.id, f"user {n}"), 1),
    "an end user who is registered": ("users", lambda c, n: people(c).register(c.who, f"user {n}"), 1),
    "an end user without a name": ("users", lambda c, _: people(c).register(c.who, None), 1),
    "a conversation": ("conversations", converse, 1),
    "a conversation of an end user": ("user_conversations", converse, 1),
    "a message without a conversation": ("conversations", lambda c, _: c.store.runs.open(c.opening()), 1),
    "a conversation that a message names": (
        "user_conversations",
        lambda c, n: c.store.runs.open(c.opening(conversation=f"c{n}", create_as=f"c{n}")),
        1,
    ),
    "a message": ("conversation_messages", message, 2),
    "a message with an Idempotency-Key": (
        "idempotency_keys",
        lambda c, n: c.store.runs.open(c.opening(idempotency_key=claim(n), idempotency_ttl_s=60.0)),
        1,
    ),
    "another call with an Idempotency-Key": ("idempotency_keys", answer, 1),
    "a code": ("codes", lambda c, _: token(c, "code"), 1),
    "an access token": ("tokens", lambda c, _: token(c, "access"), 1),
    "a refresh token": ("tokens", lambda c, _: token(c, "refresh"), 1),
    "a request id": ("request_ids", lambda c, n: c.store.rate_limits.claim_nonce(c.who.key, f"r{n}", 60), 1),
}
"""What callers do, the quota that it is of, and the rows that it makes."""
ROWS = {
    "users": "end_user",
    "conversations": "conversation",
    "user_conversations": "conversation",
    "conversation_messages": "message",
    "idempotency_keys": "claim",
    "codes": "token",
    "tokens": "token",
    "request_ids": "seen_request",
}
TOKEN = {"codes": "kind = 'code'", "tokens": "kind <> 'code'"}


async def refused(act: Act, c: SeededApp, number: int) -> bool:
    try:
        await act(c, number)
    except Busy as busy:
        if busy.reason != "full" or busy.retry_after is not None:
            raise
        return True
    return False


def test_every_quota_is_tried() -> None:
    assert {kind for kind, _, _ in ACTS.values()} == set(ROWS) == set(app.row_quotas(Settings()))


@pytest.mark.parametrize("what", ACTS)
async def test_a_quota_is_exact_in_one_process_and_room_comes_by_deletion(database_url: str, what: str) -> None:
    kind, act, rows = ACTS[what]
    limit = 10 * rows

    async with store_on(database_url) as store:
        other, c = await seed_app(store, "other"), await seed_app(store)
        if kind == "users":  # the seeded end user counts
            await store.db.execute("DELETE FROM end_user WHERE app = $1", c.app.id)
        store.quotas.limits = {kind: limit}
        made: list[bool] = []
        for number in range(14):
            made.append(not await refused(act, c, number))
            await settled(store.quotas._counters)  # pyright: ignore[reportPrivateUsage]
        assert made == [True] * 10 + [False] * 4
        assert await store.db.fetchval(f"SELECT count(*) FROM {ROWS[kind]} WHERE app = $1", c.app.id) == limit
        assert not await refused(act, other, 0), "another application has quotas of its own"
        await store.db.execute(f"DELETE FROM {ROWS[kind]} WHERE app = $1", c.app.id)
        if kind == "conversation_messages":
            await store.db.execute("UPDATE conversation SET queue = '{}'")
        await until(lambda: refused(act, c, 20), False)


@pytest.mark.parametrize("what", ACTS)
async def test_what_was_there_before_the_process_counts(database_url: str, what: str) -> None:
    kind, act, rows = ACTS[what]
    limit = 20 * rows

    async with store_on(database_url) as store:
        c = await seed_app(store)
        for number in range(19):
            await act(c, number)
    async with store_on(database_url) as store:
        c = SeededApp(store, c.app, c.who, c.user, c.agent)
        store.quotas.limits = {kind: limit}
        made = 0
        while not await refused(act, c, 100 + made):
            made += 1
            await settled(store.quotas._counters)  # pyright: ignore[reportPrivateUsage]
            assert made <= FIRST_RECOUNT_ROWS
        assert await refused(act, c, 200)


async def settled(tallies: Any) -> None:
    """Wait for the counts that are made beside the calls."""
    await asyncio.gather(*(tally.task for tally in tallies.values() if tally.task is not None))


async def test_processes_go_beyond_by_what_they_add_between_two_counts(database_url: str) -> None:
    limit, processes = 640, 3

    async with store_on(database_url) as one, store_on(database_url) as two, store_on(database_url) as three:
        c = await seed_app(one)
        stores = (one, two, three)
        for store in stores:
            store.quotas.limits = {"codes": limit}
        seeded = [SeededApp(store, c.app, c.who, c.user, c.agent) for store in stores]
        full = 0
        for number in range(2 * limit):
            full += await refused(ACTS["a code"][1], seeded[number % processes], number)
            await settled(stores[number % processes].quotas._counters)  # pyright: ignore[reportPrivateUsage]
        kept = await one.db.fetchval("SELECT count(*) FROM token")
        assert kept == 2 * limit - full
        assert limit <= kept <= limit + processes * max(FIRST_RECOUNT_ROWS, limit // RECOUNTS_PER_QUOTA)


async def test_refusing_costs_no_statement_once_it_was_counted(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        store.quotas.limits = {"codes": 1}
        assert not await refused(ACTS["a code"][1], c, 0)
        assert await refused(ACTS["a code"][1], c, 1)
        before = store.db.statement_count
        for number in range(100):
            assert await refused(ACTS["a code"][1], c, number)
        assert store.db.statement_count - before <= 2


async def test_counting_takes_an_index(database_url: str) -> None:
    async with store_on(database_url) as store:
        for sql, ones in (
            ("SELECT FROM end_user WHERE app = 1", "end_user_"),
            ("SELECT FROM conversation WHERE app = 1 AND end_user = 1", "conversation_"),
            ("SELECT FROM token WHERE app = 1 AND credential = 1 AND kind = 'code' AND NOT used", "token_"),
        ):
            indexed = ("SET LOCAL enable_seqscan = off", ())
            plan = await store.db.transaction([indexed, (f"EXPLAIN (COSTS off) {sql}", ())])
            assert any("Index" in row[0] and ones in row[0] for row in plan), plan


async def test_what_was_answered_before_is_answered_although_the_quota_is_used_up(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        store.quotas.limits = {"idempotency_keys": 2, "user_conversations": 1, "users": 1}
        first = c.opening(idempotency_key=claim(1), idempotency_ttl_s=60.0)
        assert isinstance(await store.runs.open(first), StoredTurn)
        again = msgspec.structs.replace(c.opening(idempotency_key=claim(1), idempotency_ttl_s=60.0))
        assert await store.runs.open(again) == ReplayedRun(run=first.run)
        await answer(c, 2)
        kept = StoredResponse(status=200, media_type="text/plain", headers=(), body=b"so it is")
        await store.idempotency.complete(c.who, c.user, claim(2), kept)
        begun = await store.idempotency.begin(c.who, c.user, claim(2), 60, store.presence.worker)
        assert isinstance(begun, StoredResponse)
        assert begun.body == b"so it is"
        assert await refused(answer, c, 3)
        known, made = await people(c).register(c.who, "ann", nickname="Ann")
        assert (known.nickname, made) == ("Ann", False)


async def test_a_used_code_does_not_count_as_a_good_one(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        store.quotas.limits = {"codes": 2, "tokens": 10}
        for _ in range(12):
            code = await people(c).issue_token(c.who.key, "code", "ann", (), life_s=60)
            assert await people(c).redeem_code(code, remember_s=60) is not None
            store.quotas._counters.clear()  # pyright: ignore[reportPrivateUsage]  as if a second had gone by
        assert await store.db.fetchval("SELECT count(*) FROM token WHERE used") == 12


async def test_everything_that_runs_out_is_removed(database_url: str) -> None:
    """A table with a column ``expires`` that nobody sweeps fails here."""

    async with store_on(database_url) as store:
        c = await seed_app(store)
        tables = {
            row[0]
            for row in await store.db.fetch(
                "SELECT table_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND column_name = 'expires'"
            )
        }
        assert isinstance(store.tokens, TokenTable)
        for number in range(2):
            for what in ("another call with an Idempotency-Key", "a code", "an access token", "a request id"):
                await ACTS[what][1](c, number)
            for table in tables if number == 0 else ():
                await store.db.execute(f"UPDATE {table} SET expires = now() - interval '1 second'")
        await app.delete_expired_rows(store)
        left = {table: await store.db.fetchval(f"SELECT count(*) FROM {table}") for table in tables}
        assert left == {"claim": 1, "token": 2, "seen_request": 1}
