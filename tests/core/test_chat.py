"""The use cases, with a scripted model and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest
from support.core_stage import SLOW, Stage, stage
from support.kit import drained, read, until

from palaver.core.chat import Turn
from palaver.core.events import PartAdded, PartStarted, TextDelta
from palaver.core.ports.store import ConversationQuery, IdempotencyKey, NewTurn, StoredTurn
from palaver.core.problems import Busy, Internal, NotFound, Problem, Upstream
from palaver.core.runs import ActiveRun, RunReader
from palaver.core.turn import TurnContext
from palaver.core.types import (
    Principal,
    RunEnded,
    Status,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    new_uid,
)
from palaver.knowledge.ingest import ingest


async def test_an_answer_comes_as_it_is_made_and_is_kept(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        script = "- think: hm\n- think: '...'\n- text: Hel\n- text: lo\n- usage: {prompt: 3, completion: 2}"
        sent = await on.say(await on.agent(script))
        events, (parts, ended) = await read(sent.reader)
        assert parts == (Thinking(text="hm..."), Text(text="Hello"))
        assert ended is not None
        assert ended == RunEnded(status=Status.COMPLETE, usage=Usage(prompt=3, completion=2), at=ended.at)
        assert isinstance(events[0], PartStarted)
        question, answer = await on.core.chat.list_messages(on.who, sent.conversation)
        assert question.text == "hi"
        assert (answer.uid, answer.parts, answer.ended) == (sent.run_uid, parts, ended)


async def test_a_turn_costs_at_most_five_statements_however_long_the_conversation(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent("- repeat: {text: x, times: 50}")
        first = await on.say(agent)
        await on.ended(first)
        here = first.conversation.id
        for _ in range(30):
            before = on.core.store.db.statement_count
            await on.ended(await on.say(agent, conversation=here))
            assert on.core.store.db.statement_count - before <= 5


async def test_a_reader_that_goes_away_changes_nothing(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent("- repeat: {text: ab, times: 40, every: 0.005}"))
        await sent.reader.wait()
        sent.reader.close()
        again = await on.core.chat.resume(sent)
        _, (parts, _) = await read(again)
        assert parts == (Text(text="ab" * 40),)


async def test_a_run_is_taken_up_exactly_from_any_cursor_live_and_later(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent("- think: 思考\n- repeat: {text: 你好, times: 30, every: 0.003}"))
        cursors = range(0, 66, 5)
        live = [await on.core.chat.resume(sent, after) for after in cursors if after <= 5]
        for after, reader in zip(cursors, live, strict=False):
            await check_text_after(reader, after)
        for after in cursors:
            await check_text_after(await on.core.chat.resume(sent, after), after)


async def check_text_after(reader: RunReader, after: int) -> None:
    """Cursors: the thinking part, its 2 characters, the answer's part, its 60 characters, the end."""
    text = "".join(event.text for event in await drained(reader) if isinstance(event, TextDelta))
    start = min(62, max(0, after - 1 - (after > 3)))
    assert text == ("思考" + "你好" * 30)[start:]


async def test_a_run_of_somebody_else_is_not_found(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent("- text: secret"))
        await on.ended(sent)
        bob = on.who.acting_for("bob")
        calls: tuple[Awaitable[object], ...] = (
            on.core.chat.open_run(bob, sent.run_uid),
            on.core.chat.open_conversation(bob, sent.conversation.id),
            on.core.chat.conversation(bob, sent.conversation.id),
            on.core.chat.conversation(bob, sent.conversation.uid),
            on.core.chat.rename_conversation(bob, sent.conversation.id, "mine"),
            on.core.chat.delete_conversation(bob, sent.conversation.id),
        )
        for call in calls:
            with pytest.raises(NotFound):
                await call
        assert await on.core.chat.conversations(bob, ConversationQuery()) == []


async def test_stop_ends_the_turn_at_once_and_keeps_its_text(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent(SLOW)
        sent = await on.say(agent)
        waiting = await on.say(agent, conversation=sent.conversation.id)
        while not any(isinstance(event, TextDelta) for event in sent.reader.take()):
            await sent.reader.wait()
        assert await on.core.chat.stop(sent.conversation) == 2
        assert (await on.ended(waiting)).status is Status.STOPPED
        messages = await on.core.chat.list_messages(on.who, sent.conversation)
        assert [message.text for message in messages] == ["hi", "begun", "hi", ""]
        assert await on.core.chat.stop(sent.conversation) == 0
        quick = await on.agent("- text: on we go")
        assert (await on.ended(await on.say(quick, conversation=sent.conversation.id))).status is Status.COMPLETE


async def test_messages_wait_their_turn_and_see_what_was_said_before(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent("- text: '${turn}:${content}'\n- wait: 0.2")
        first = await on.say(agent, "0")
        sent = [first] + [await on.say(agent, str(n), conversation=first.conversation.id) for n in range(1, 5)]
        with pytest.raises(Busy) as caught:
            await on.say(agent, "5", conversation=first.conversation.id)
        assert caught.value.reason == "waiting"
        answers = [(await read(one.reader))[1][0] for one in sent]
        assert answers == [(Text(text=f"{n + 1}:{n}"),) for n in range(5)]


async def test_more_runs_than_may_live_are_refused_at_once(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_live_runs=2) as on:
        agent = await on.agent(SLOW)
        await on.say(agent)
        await on.say(agent)
        with pytest.raises(Busy) as caught:
            await on.say(agent)
        assert caught.value == Busy(reason="overload", retry_after=1)


@pytest.mark.parametrize(
    ("script", "problem", "text"),
    [
        ("- text: a\n- fail: cut", Upstream(reason="cut"), "a"),
        ("- fail: limit", Upstream(reason="limit"), ""),
        (SLOW, Internal(reason="timeout"), "begun"),
        ("- dance: now", Upstream(reason="configuration"), ""),
    ],
)
async def test_a_run_that_fails_keeps_its_text_and_says_why(
    database_url: str, tmp_path: Path, script: str, problem: Problem, text: str
) -> None:
    async with stage(database_url, tmp_path, run_timeout_s=2) as on:
        sent = await on.say(await on.agent(script))
        ended = await on.ended(sent)
        assert ended.status is Status.FAILED
        assert ended.problem is not None
        assert (ended.problem.kind, ended.problem.data()["reason"]) == (problem.kind, problem.data()["reason"])
        answer = (await on.core.chat.list_messages(on.who, sent.conversation))[1]
        assert answer.text == text
        assert answer.ended == ended


async def test_an_equal_call_gets_the_same_run_while_it_lives_and_afterwards(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        claim = IdempotencyKey(scope="POST /x", key="k", digest=b"1")
        agent = await on.agent("- repeat: {text: x, times: 20, every: 0.005}")
        sent = await on.say(agent, idempotency_key=claim)
        live = await on.say(agent, idempotency_key=claim)
        assert (live.run_uid, live.replayed, sent.replayed) == (sent.run_uid, True, False)
        assert (await read(live.reader))[1] == (await read(sent.reader))[1]
        late = await on.say(agent, idempotency_key=claim)
        assert (await read(late.reader))[1][0] == (Text(text="x" * 20),)
        assert late.conversation.id == sent.conversation.id


async def test_equal_calls_for_a_live_run_cost_no_statements(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        claim = IdempotencyKey(scope="POST /x", key="k", digest=b"1")
        agent = await on.agent("- text: begun\n- wait: 1\n- text: '!'")
        await on.core.chat.get_or_create_user(on.who)
        before = on.core.store.db.statement_count
        sent = await asyncio.gather(*(on.say(agent, idempotency_key=claim) for _ in range(300)))
        assert on.core.store.db.statement_count - before < 12
        assert len({one.run_uid for one in sent}) == 1
        assert sorted(one.replayed for one in sent) == [False] + [True] * 299
        contents = await asyncio.gather(*(read(one.reader) for one in sent))
        assert all(content == contents[0][1] for _, content in contents)


async def test_a_run_of_another_process_can_be_followed(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        claim = IdempotencyKey(scope="POST /x", key="k", digest=b"1")
        agent = await here.agent("- text: one\n- wait: 1.5\n- text: ' two'")
        sent = await here.say(agent, idempotency_key=claim)
        replay = await there.say(agent, idempotency_key=claim)
        assert replay.replayed
        events, content = await read(replay.reader)
        assert content == (await read(sent.reader))[1]
        assert content[0] == (Text(text="one two"),)
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one two"


async def test_a_message_waits_also_for_a_run_of_another_process(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        agent = await here.agent("- text: 'turn ${turn}'\n- wait: 0.1")
        first = await here.say(agent)
        second = await there.say(agent, conversation=first.conversation.id)
        assert (await read(second.reader))[1][0] == (Text(text="turn 2"),)
        assert (await on_history(here, first)) == ["hi", "turn 1", "hi", "turn 2"]


async def test_a_run_that_may_start_before_it_is_known_starts_when_it_is(database_url: str, tmp_path: Path) -> None:
    """The run before it ends between the moment the database stores a message and the moment we hear of it."""

    async with stage(database_url, tmp_path) as on:
        first = await on.say(await on.agent(SLOW))
        agent = await on.agent("- text: begun")
        user = await on.core.store.users.get_or_create(on.who.app, "ann")
        opening = NewTurn(
            principal=on.who,
            user=user,
            agent=agent,
            run=new_uid(),
            question=new_uid(),
            parts=(Text(text="hi"),),
            conversation=first.conversation.id,
            worker=on.core.store.presence.worker,
        )
        stored = await on.core.store.runs.open(opening)
        assert isinstance(stored, StoredTurn)
        assert not stored.first
        await on.core.chat.stop_run(first)
        await on.ended(first)
        context = TurnContext(
            agent=agent, user=user.id, conversation=first.conversation.id, question=stored.question, variables={}
        )
        live = ActiveRun(app_id=on.who.app, run_id=stored.answer.id, uid=opening.run, context=context)
        reader = RunReader(live)
        on.core.runs.add(live, start=stored.first)
        assert (await read(reader))[1][0] == (Text(text="begun"),)


async def on_history(on: Stage, sent: Turn) -> list[str]:
    return [message.text for message in await on.core.chat.list_messages(on.who, sent.conversation)]


async def test_closing_saves_what_was_said_and_says_it_was_interrupted(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent(SLOW))
        await sent.reader.wait()
        closing = asyncio.create_task(on.core.runs.close(drain=0.05))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await on.say(await on.agent(SLOW))
        assert (await on.ended(sent)).status is Status.INTERRUPTED
        await closing
    async with stage(database_url, tmp_path) as on:
        answer = (await on.core.chat.list_messages(on.who, sent.conversation))[1]
        assert answer.text == "begun"
        assert answer.ended is not None
        assert answer.ended.problem == Internal(reason="interrupted")


async def test_closing_lets_a_short_turn_end_by_itself(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent("- wait: 0.1\n- text: done"))
        await on.core.runs.close(drain=5)
        assert (await on.ended(sent)).status is Status.COMPLETE


async def test_growing_text_is_saved_while_it_grows(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent(SLOW))

        async def saved() -> list[str]:
            return await on_history(on, sent)

        await until(saved, ["hi", "begun"])


async def test_variables_fill_the_instructions(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent("- text: '{{city}}|{{ n }}|{{none}}|{{o}}'")
        sent = await on.say(agent, variables={"city": "杭州", "n": 7, "o": {"a": [1]}})
        assert (await read(sent.reader))[1][0] == (Text(text='杭州|7||{"a":[1]}'),)


@pytest.mark.parametrize("mode", ["always", "tool"])
async def test_what_is_known_stands_in_the_message_as_a_call_and_its_result(
    database_url: str, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "office.md").write_text(
        "# 办公室\n\n## 年假\n\n员工每年有十五天年假。\n\n## Parking\n\nBehind the house."
    )
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent("", model="extract", knowledge=("handbook",), knowledge_mode=mode)
        await ingest(on.core.store.knowledge, agent.app, "handbook", [tmp_path / "office.md"])
        sent = await on.say(agent, "年假有几天？")
        events, (parts, ended) = await read(sent.reader)
        call, result, *_ = parts
        assert isinstance(call, ToolCall)
        assert isinstance(result, ToolResult)
        assert (call.name, result.call_id, result.error) == ("knowledge_search", call.call_id, False)
        answer = "".join(part.text for part in parts if isinstance(part, Text))
        assert "十五天年假" in answer
        assert "office.md" in answer
        assert ended is not None
        assert sum(isinstance(event, PartAdded) for event in events) == 2


async def test_a_tool_that_is_not_there_is_told_to_the_model(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        script = "- call: {name: dance, arguments: {how: fast}}\n- text: '${result}'"
        for agent in (await on.agent(script), await on.agent(script, knowledge=("a",), knowledge_mode="tool")):
            parts = (await read((await on.say(agent)).reader))[1][0]
            assert isinstance(parts[1], ToolResult)
            assert parts[1].error
            assert parts[2] == Text(text="there is no tool called 'dance'")


async def test_a_model_that_never_stops_calling_tools_is_stopped(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        script = "\n".join(["- call: {name: knowledge_search, arguments: {query: x}}"] * 30)
        agent = await on.agent(script, knowledge=("a",), knowledge_mode="tool")
        parts = (await read((await on.say(agent)).reader))[1][0]
        assert sum(isinstance(part, ToolCall) for part in parts) == 8
        assert sum(isinstance(part, ToolResult) for part in parts) == 7


async def test_deleting_a_conversation_ends_its_turn(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent(SLOW))
        await on.core.chat.delete_conversation(on.who, sent.conversation.id)
        assert (await on.ended(sent)).status is Status.STOPPED
        with pytest.raises(NotFound):
            await on.core.chat.conversation(on.who, sent.conversation.id)


async def test_a_disabled_agent_and_one_the_key_may_not_use_are_not_found(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent(enabled=False)
        with pytest.raises(NotFound):
            await on.core.chat.agent(on.who, agent.id)
        agent = await on.agent()
        assert await on.core.chat.agent(on.who, agent.id) == agent
        app = await on.core.store.applications.get_or_create("acme")
        for allowed, may in ((["guide"], True), ([str(agent.uid)], True), ([agent.id], True), (["x"], False)):
            key = await on.core.store.keys.create(app, "snail", f"k{allowed}", f"s{allowed}", {"agents": allowed})
            assert Principal(key=key).may_use(agent) is may
