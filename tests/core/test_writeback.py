"""What is written of live runs: how much, how often, and what becomes of what the database refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from support.core_stage import SLOW, Stage, stage
from support.kit import until

from palaver.app import Core
from palaver.core.events import BLOCK_CHARACTERS, Draft, PartStarted, TextDelta
from palaver.core.ports.store import RunResult
from palaver.core.problems import Busy, Internal, Unstorable, Upstream
from palaver.core.types import Principal, RunEnded, Status, Text, ToolResult
from palaver.store.driver import connection_to

REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.parts::text LIKE '%poison%' THEN RAISE EXCEPTION 'not this' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE INSERT ON message_piece FOR EACH ROW EXECUTE FUNCTION refuse()"""
COUNTS = """
CREATE TABLE written (size bigint);
CREATE FUNCTION measure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO written VALUES (octet_length(NEW.parts::text));
    RETURN NEW;
END $$;
CREATE TRIGGER measure BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION measure();
CREATE TRIGGER measure BEFORE INSERT ON message_piece FOR EACH ROW EXECUTE FUNCTION measure()"""


async def execute(core: Core, script: str) -> None:
    """Each statement of ``script``; bodies of functions hold semicolons of their own."""
    pieces = script.split("$$")
    texts = [piece if at % 2 else piece.replace(";", "\0") for at, piece in enumerate(pieces)]
    for statement in "$$".join(texts).split("\0"):
        await core.store.db.execute(statement)


@pytest.mark.parametrize("code", ["P0001", "22P05", "23514", "54000", "XX000"])
async def test_an_end_that_the_database_refuses_is_a_failure_and_the_others_are_stored(
    database_url: str, tmp_path: Path, code: str
) -> None:
    async with stage(database_url, tmp_path) as on:
        await execute(on.core, REFUSES.format(code=code))
        texts = [f"answer {number}" for number in range(9)]
        texts[4] = "poison"
        sent = [await on.say(await on.agent(f"- wait: 0.3\n- text: {text}")) for text in texts]
        ends = await asyncio.gather(*(on.ended(one) for one in sent))
        for text, one, ended in zip(texts, sent, ends, strict=True):
            (answer,) = await on.answers(one)
            assert answer.ended == ended
            if text == "poison":
                assert ended.status is Status.FAILED
                assert isinstance(ended.problem, Internal)
                assert answer.text == ""
            else:
                assert (ended.status, answer.text) == (Status.COMPLETE, text)
        assert len(on.core.runs) == 0


async def test_growing_text_that_the_database_refuses_holds_up_no_other(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        await execute(on.core, REFUSES.format(code="P0001"))
        words = ["a", "b", "poison", "c", "d"]
        script = "- text: {}\n- wait: 60"
        sent = [await on.say(await on.agent(script.format(word))) for word in words]

        async def saved() -> list[str]:
            return [(await on.answers(one))[0].text for one in sent]

        await until(saved, ["a", "b", "", "c", "d"])


@pytest.mark.parametrize(
    "data", [2**70, {"deep": None}, "\ud800", float("nan")], ids=["too large", "too deep", "half a character", "nan"]
)
async def test_what_is_no_json_is_refused_or_mended_and_never_ends_the_writing(
    database_url: str, tmp_path: Path, data: object
) -> None:
    if isinstance(data, dict):
        data = []
        for _ in range(100_000):
            data = [data]

    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent(SLOW))
        await on.begun(sent)
        odd = ToolResult(call_id="1", name="t", content="c", data=data)
        answer = (await on.answers(sent))[0]
        outcome = RunResult(
            app=on.who.app,
            run=answer.id,
            conversation=sent.conversation.id,
            parts=(odd,),
            ended=RunEnded(status=Status.COMPLETE),
        )
        try:
            await on.core.store.runs.finish([outcome], on.core.runs.worker())
        except Unstorable:
            assert (await on.answers(sent))[0].ended is None
        assert on.core.runs.stop(sent.run_uid)
        await on.ended(sent)


async def test_what_is_written_of_a_long_answer_stays_in_proportion_to_it(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        await execute(on.core, COUNTS)
        long = f"- repeat: {{text: {'x' * 8192}, times: 100}}\n- repeat: {{text: y, times: 40, every: 0.1}}"
        sent = await on.say(await on.agent(long))
        await on.ended(sent)
        text = (await on.answers(sent))[0].text
        size = len(text)
        written = await on.core.store.db.fetchval("SELECT sum(size) FROM written")
        assert size < written < 1.2 * size
        assert await on.core.store.runs.fold()
        assert not await on.core.store.runs.fold()
        assert (await on.answers(sent))[0].text == text
        assert await on.core.store.db.fetchval("SELECT count(*) FROM message_piece") == 0


async def test_ends_that_never_cease_hold_up_no_save(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        quick = await on.agent("- text: hi", name="quick")
        slow = await on.say(await on.agent("- repeat: {text: 'growing ', times: 200, every: 0.03}", name="slow"))
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 3

        async def keep_ending() -> None:
            while loop.time() < until_then:
                await on.ended(await on.say(quick))

        async def compare() -> None:
            await asyncio.sleep(1)
            live = on.core.runs.get(slow.run_uid)
            assert live is not None
            written = live.draft.steps
            await asyncio.sleep(1.5)
            (answer,) = await on.answers(slow)
            assert 1 + len(answer.text) >= written > 100

        await asyncio.gather(compare(), *(keep_ending() for _ in range(20)))
        await on.core.chat.stop_run(slow)


async def test_a_short_end_does_not_wait_for_long_ones(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        long = await on.agent(f"- repeat: {{text: {'好' * 4096}, times: 100}}\n- wait: 1", name="long")
        quick = await on.agent("- text: hi", name="quick")
        sent = [await on.say(long) for _ in range(20)]
        slowest = 0.0
        loop = asyncio.get_running_loop()
        while len(on.core.runs):
            begun = loop.time()
            await on.ended(await on.say(quick))
            slowest = max(slowest, loop.time() - begun)
        assert slowest < 1
        for one in sent:
            assert (await on.answers(one))[0].text == "好" * 409_600


async def test_a_long_end_does_not_wait_for_all_of_another_application(database_url: str, tmp_path: Path) -> None:
    script = f"- repeat: {{text: {'x' * 4096}, times: 50}}\n- wait: 60"

    async with stage(database_url, tmp_path) as on:
        many = [await on.say(await on.agent(script)) for _ in range(10)]
        other = await on.core.store.applications.get_or_create("other")
        on.who = Principal(key=await on.core.store.keys.create(other, "snail", "app-2", "SAI_2", {}), user="bob")
        one = await on.say(await on.agent(script, app="other"))
        for sent in (*many, one):
            await on.begun(sent, "x" * 204_800)
        async with connection_to(database_url, timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE message IN SHARE ROW EXCLUSIVE MODE")
            for sent in (*many, one):
                assert on.core.runs.stop(sent.answer.uid)
            for _ in range(10):
                await asyncio.sleep(0)
        await on.ended(one)
        assert len(on.core.runs) >= 7


async def problem_of(on: Stage, script: str) -> tuple[object, int]:
    sent = await on.say(await on.agent(script, name="long"))
    ended = await on.ended(sent)
    assert ended.status is Status.FAILED
    return ended.problem, len((await on.answers(sent))[0].text)


async def test_an_answer_that_is_too_long_fails_with_what_it_had(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_answer_bytes=100_000) as on:
        problem, length = await problem_of(on, "- repeat: {text: 0123456789, times: 20000}")
        assert problem == Upstream(reason="cut", detail="the answer has more than 100000 bytes")
        assert 99_000 < length <= 100_010


async def test_when_all_answers_together_are_too_long_the_longest_fail_and_short_ones_go_on(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path, max_live_bytes=BLOCK_CHARACTERS * 8) as on:
        short = await on.say(await on.agent("- repeat: {text: hi, times: 20, every: 0.1}", name="short"))
        noise = "".join(chr(33 + (number * number * 7919 >> 5) % 90) for number in range(8192))
        script = "- repeat: " + msgspec.json.encode({"text": noise, "times": 1000}).decode()
        problem, _ = await problem_of(on, script)
        assert problem == Busy(reason="overload")
        assert (await on.ended(short)).status is Status.COMPLETE


@pytest.mark.parametrize(
    "length",
    [BLOCK_CHARACTERS - 1, BLOCK_CHARACTERS, 2 * BLOCK_CHARACTERS, 2 * BLOCK_CHARACTERS + 1, 5 * BLOCK_CHARACTERS + 7],
)
@pytest.mark.parametrize("piece", [1000, BLOCK_CHARACTERS, 3 * BLOCK_CHARACTERS])
def test_every_stretch_of_a_long_text_reads_as_it_was_written(length: int, piece: int) -> None:
    text = "".join(chr(0x4E00 + number % 20_000) for number in range(length))
    draft = Draft()
    draft.apply(PartStarted(part=Text()))
    for at in range(0, length, piece):
        draft.apply(TextDelta(text=text[at : at + piece]))
    assert draft.parts() == (Text(text=text),)
    for after in (0, 1, BLOCK_CHARACTERS - 1, BLOCK_CHARACTERS, BLOCK_CHARACTERS + 1, length // 2, length - 1):
        for most in (1, 100, BLOCK_CHARACTERS, -1):
            place = draft.cursor(1 + after)
            heard = ""
            while events := draft.read(place, most):
                (event,) = (one for one in events if isinstance(one, TextDelta))
                heard += event.text
                if most == 1 or len(heard) > 3 * BLOCK_CHARACTERS:
                    break
            assert heard == text[after : after + len(heard)]
            assert most == 1 or heard == text[after:] or len(heard) > 3 * BLOCK_CHARACTERS


def test_a_long_answer_takes_less_memory_than_it_has_characters() -> None:
    draft = Draft()
    draft.apply(PartStarted(part=Text()))
    for number in range(200_000):
        draft.apply(TextDelta(text=f"word {number} "))
    assert draft.memory_bytes < draft.steps / 2
    assert draft.size == len("".join(f"word {number} " for number in range(200_000))) + 64
