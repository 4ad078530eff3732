"""Turns as they are stored: order, waiting, ends, idempotency, recovery."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.kit import SeededApp, seed_app, store_on, until

from palaver.core.ports.store import Checkpoint, IdempotencyKey, ReplayedRun, RunResult, StoredTurn
from palaver.core.problems import Busy, Conflict, Internal, NotFound, Unstorable
from palaver.core.types import AnyPart, Message, RunEnded, Status, Text, Thinking, ToolResult, Usage, new_uid
from palaver.store.postgres import PostgresStore

DONE = RunEnded(status=Status.COMPLETE, usage=Usage(prompt=3, completion=5))


def claim(key: str = "k", digest: bytes = b"1") -> IdempotencyKey:
    return IdempotencyKey(scope="POST /chat", key=key, digest=digest)


def outcome(accepted: StoredTurn, ended: RunEnded = DONE, *parts: AnyPart) -> RunResult:
    here = accepted.conversation
    return RunResult(app=here.app, run=accepted.answer.id, conversation=here.id, parts=parts, ended=ended)


async def opened(c: SeededApp, text: str = "hi", **changes: Any) -> StoredTurn:
    stored = await c.store.runs.open(c.opening(text, **changes))
    assert isinstance(stored, StoredTurn)
    return stored


async def history(store: PostgresStore, accepted: StoredTurn) -> list[Message]:
    here = accepted.conversation
    return list((await store.conversations.get_messages(here.app, here.id, limit=500, max_bytes=2**30)).messages)


async def test_a_message_opens_a_conversation_with_a_question_and_an_empty_answer(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c, "你好")
        question, answer = await history(store, stored)
        assert (question.role, question.text, question.ended) == ("user", "你好", None)
        assert (answer.role, answer.parts, answer.ended) == ("assistant", (), None)
        assert (question.id, answer.id) == (stored.question.id, stored.answer.id)
        assert stored.first
        assert stored.conversation.opening == "你好"


async def test_a_hundred_simultaneous_messages_leave_questions_and_answers_in_turn(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await opened(c, "0")
        where = first.conversation.id

        async def one(number: int) -> StoredTurn:
            return await opened(c, str(number), conversation=where, max_waiting=1000)

        others = await asyncio.gather(*(one(number) for number in range(1, 101)))
        said = await history(store, first)
        assert [message.role for message in said] == ["user", "assistant"] * 101
        assert [message.id for message in said] == sorted(message.id for message in said)
        assert not any(other.first for other in others)
        waiting = sorted(other.answer.id for other in others)
        head = first
        for expected in waiting:
            assert await store.runs.finish([outcome(head)]) == {expected}
            head = next(other for other in others if other.answer.id == expected)


async def test_no_more_messages_wait_than_may(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await opened(c)
        where = first.conversation.id
        outcomes = await asyncio.gather(
            *(opened(c, conversation=where, max_waiting=4) for _ in range(20)), return_exceptions=True
        )
        assert sum(isinstance(one, StoredTurn) for one in outcomes) == 4
        assert sum(isinstance(one, Busy) for one in outcomes) == 16
        assert len(await history(store, first)) == 10


async def test_ends_of_several_runs_of_one_conversation_are_stored_together(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await opened(c)
        where = first.conversation.id
        second, third = [await opened(c, conversation=where) for _ in range(2)]
        elsewhere = await opened(c)
        stopped = RunEnded(status=Status.STOPPED)
        startable = await store.runs.finish(
            [outcome(first, DONE, Text(text="a")), outcome(second, stopped), outcome(elsewhere)]
        )
        assert startable == {third.answer.id}
        statuses = [message.ended.status for message in await history(store, first) if message.ended]
        assert statuses == [Status.COMPLETE, Status.STOPPED]


async def test_ends_of_several_applications_are_stored_all_or_none(database_url: str) -> None:
    async with store_on(database_url) as store:
        apps = [await seed_app(store, name) for name in ("one", "two")]
        firsts = [await opened(c) for c in apps]
        waiting = [await opened(c, conversation=first.conversation.id) for c, first in zip(apps, firsts, strict=True)]
        never = RunEnded(status=Status.COMPLETE, at=10**18)
        with pytest.raises(Unstorable):
            await store.runs.finish([outcome(firsts[0]), outcome(firsts[1], never)])
        assert [(await history(store, first))[1].ended for first in firsts] == [None, None]
        told: set[str] = set()
        store.presence.subscribe("start", told.add)
        startable = await store.runs.finish([outcome(first) for first in reversed(firsts)])
        assert startable == {one.answer.id for one in waiting}
        await until(lambda: asyncio.sleep(0, told), {str(run) for run in startable})
        problem = Internal(reason="interrupted")
        assert await store.runs.interrupt([store.presence.worker], problem) == 2
        assert await store.runs.list_live_ids(store.presence.worker) == set()


async def test_everything_a_model_may_say_comes_back_as_it_was(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c)
        parts: tuple[AnyPart, ...] = (
            Thinking(text="\\u0000 is not a NUL \\\\u0000", provider_data={"k": ["v", None, 1.5]}),
            Text(text="emoji 🦊, right to left שלום, line\u2028end, \x7f"),
            ToolResult(call_id="1", name="t", content="c", data=[{"a": "\ufffd"}]),
        )
        problem = Internal(reason="timeout", detail="no end")
        ended = RunEnded(status=Status.FAILED, reason="error", usage=Usage(prompt=1), problem=problem)
        await store.runs.finish([outcome(stored, ended, *parts)])
        message = (await history(store, stored))[1]
        assert message.parts == parts
        assert message.ended == ended


async def test_a_nul_that_a_model_says_is_replaced_and_breaks_nothing(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c)
        await store.runs.finish([outcome(stored, DONE, Text(text="a\0b\\\0c"))])
        assert (await history(store, stored))[1].text == "a\ufffdb\\\ufffdc"


async def test_half_a_character_from_a_tool_is_replaced_and_breaks_nothing(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c)
        broken = ToolResult(call_id="1", name="t", content="ok", data={"\ud83d": ["\ude00", 1, None]})
        await store.runs.finish([outcome(stored, DONE, broken)])
        (part,) = (await history(store, stored))[1].parts
        assert part == ToolResult(call_id="1", name="t", content="ok", data={"\ufffd": ["\ufffd", 1, None]})


async def test_a_save_that_comes_after_the_end_changes_nothing(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c)
        here = stored.conversation
        growth = Checkpoint(app=here.app, conversation=here.id, run=stored.answer.id, parts=(Text(text="half"),))
        await store.runs.save([growth])
        assert (await history(store, stored))[1].text == "half"
        await store.runs.finish([outcome(stored, DONE, Text(text="whole"))])
        await store.runs.save([growth])
        await store.runs.finish([outcome(stored, RunEnded(status=Status.STOPPED), Text(text="late"))])
        answer = (await history(store, stored))[1]
        assert answer.text == "whole"
        assert answer.ended == DONE


async def test_a_conversation_of_somebody_else_is_not_found(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        theirs = await seed_app(store, "other")
        stored = await opened(theirs)
        for ref in (stored.conversation.id, stored.conversation.uid, str(stored.conversation.uid), "nope", 2**62):
            with pytest.raises(NotFound):
                await opened(c, conversation=ref)
            assert await store.conversations.get(c.app.id, c.user.id, ref) is None


async def test_an_unknown_name_opens_a_conversation_once_however_many_ask_at_a_time(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        sent = await asyncio.gather(
            *(opened(c, conversation="conv-1", create_as="conv-1", max_waiting=99) for _ in range(20))
        )
        assert len({one.conversation.id for one in sent}) == 1
        assert sum(one.first for one in sent) == 1
        assert len(await history(store, sent[0])) == 40


async def test_another_agents_conversation_is_a_conflict(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c)
        other = await store.agents.upsert(c.app, c.agent.spec.__class__(name="second"))
        with pytest.raises(Conflict) as caught:
            await opened(c, conversation=stored.conversation.id, agent=other)
        assert caught.value.reason == "agent"


async def test_fifty_equal_calls_at_once_make_one_message(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        results = await asyncio.gather(*(store.runs.open(c.opening(idempotency_key=claim())) for _ in range(50)))
        made = [one for one in results if isinstance(one, StoredTurn)]
        replays = [one for one in results if isinstance(one, ReplayedRun)]
        assert (len(made), len(replays)) == (1, 49)
        message = await store.runs.get_answer(c.app.id, replays[0].run)
        assert message is not None
        assert message.id == made[0].answer.id
        assert await store.db.fetchval("SELECT count(*) FROM message") == 2


async def test_an_equal_call_is_recognised_in_a_conversation_that_is_full(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await opened(c)
        where = first.conversation.id
        one = await opened(c, conversation=where, max_waiting=1, idempotency_key=claim())
        again = await store.runs.open(c.opening(conversation=where, max_waiting=1, idempotency_key=claim()))
        assert isinstance(again, ReplayedRun)
        message = await store.runs.get_answer(c.app.id, again.run)
        assert message is not None
        assert message.id == one.answer.id
        with pytest.raises(Busy):
            await store.runs.open(c.opening(conversation=where, max_waiting=1, idempotency_key=claim("other")))
        await store.runs.finish([outcome(first)])
        assert isinstance(
            await store.runs.open(c.opening(conversation=where, idempotency_key=claim("other"))), StoredTurn
        )


async def test_a_key_used_for_another_request_is_a_conflict(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        await opened(c, idempotency_key=claim())
        with pytest.raises(Conflict) as caught:
            await opened(c, idempotency_key=claim(digest=b"2"))
        assert caught.value.reason == "idempotency"


async def test_a_key_is_free_again_after_an_error_and_after_its_time(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        with pytest.raises(NotFound):
            await opened(c, conversation="nope", idempotency_key=claim())
        assert await store.db.fetchval("SELECT count(*) FROM claim") == 0
        await opened(c, idempotency_key=claim(), idempotency_ttl_s=-1.0)
        assert isinstance(await store.runs.open(c.opening(idempotency_key=claim(digest=b"2"))), StoredTurn)
        await opened(c, idempotency_key=claim("expired"), idempotency_ttl_s=-1.0)
        await store.runs.delete_expired_keys()
        assert await store.db.fetchval("SELECT count(*) FROM claim") == 1


async def test_a_key_whose_conversation_was_deleted_is_free(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        stored = await opened(c, idempotency_key=claim())
        assert await store.conversations.delete(c.app.id, c.user.id, stored.conversation.id) is not None
        assert isinstance(await store.runs.open(c.opening(idempotency_key=claim())), StoredTurn)


async def test_runs_of_a_dead_process_are_interrupted_with_their_text_and_the_next_one_starts(
    database_url: str,
) -> None:
    async with store_on(database_url) as alive:
        async with store_on(database_url) as doomed:
            c = await seed_app(doomed)
            first = await opened(c, "dies")
            here = first.conversation
            growth = Checkpoint(app=here.app, conversation=here.id, run=first.answer.id, parts=(Text(text="half"),))
            await doomed.runs.save([growth])
            c.store = alive
            waiting = await opened(c, "waits", conversation=here.id, worker=alive.presence.worker)
            assert await alive.presence.find_lost_workers() == []
            assert await alive.presence.find_lost_workers() == []
            dead = doomed.presence.worker
        told = asyncio.Event()
        alive.presence.subscribe("start", lambda which: told.set() if which == str(waiting.answer.id) else None)
        lost: list[int] = []
        while not lost:
            lost = await alive.presence.find_lost_workers()
        assert lost == [dead]
        assert await alive.runs.interrupt(lost, Internal(reason="interrupted")) == 1
        await asyncio.wait_for(told.wait(), 5)
        assert await alive.runs.list_head_ids(alive.presence.worker) == {waiting.answer.id}
        answer = (await history(alive, first))[1]
        assert answer.text == "half"
        assert answer.ended is not None
        assert answer.ended.status is Status.INTERRUPTED


async def test_single_runs_of_a_process_can_be_ended(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        kept, gone = await opened(c), await opened(c)
        worker = store.presence.worker
        assert await store.runs.list_live_ids(worker) == {kept.answer.id, gone.answer.id}
        problem = Internal(reason="interrupted")
        assert await store.runs.interrupt([worker], problem, only=[gone.answer.id]) == 1
        assert await store.runs.list_live_ids(worker) == {kept.answer.id}


async def test_deleting_a_conversation_tells_which_runs_were_live(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        opening = c.opening()
        stored = await store.runs.open(opening)
        assert isinstance(stored, StoredTurn)
        assert await store.conversations.delete(c.app.id, c.user.id, stored.conversation.uid) == [opening.run]
        assert await store.conversations.delete(c.app.id, c.user.id, stored.conversation.uid) is None
        assert await store.runs.get_answer(c.app.id, opening.run) is None
        assert await store.runs.finish([outcome(stored)]) == set()
        quiet = await store.conversations.create(c.who, c.user, c.agent)
        assert await store.conversations.delete(c.app.id, c.user.id, quiet.id) == []


async def test_deleting_conversations_while_their_runs_end_hurts_nobody(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        c = await seed_app(here)
        for _ in range(15):
            runs = await asyncio.gather(*(opened(c) for _ in range(6)))
            outcomes = [outcome(one, DONE, Text(text="x" * 2000)) for one in runs]
            await asyncio.gather(
                here.runs.finish(outcomes[:4]),
                there.runs.finish(list(reversed(outcomes[2:]))),
                there.runs.interrupt([here.presence.worker], Internal(reason="interrupted")),
                there.conversations.delete_all(c.app.id, c.user.id, c.agent.id),
            )
        assert await here.runs.list_live_ids(here.presence.worker) == set()


async def test_one_statement_stores_a_turn_and_one_its_end(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await opened(c)
        before = store.db.statement_count
        second = await opened(c, conversation=first.conversation.id, idempotency_key=claim(str(new_uid())))
        assert store.db.statement_count - before == 1
        await store.runs.finish([outcome(first), outcome(second)])
        assert store.db.statement_count - before == 2
