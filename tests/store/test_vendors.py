"""What the vendors' APIs show beyond a plain conversation: profiles, listings, files, tokens, stops from afar."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta

import pytest
from support.kit import seed_app, store_on, until

from palaver.core.admit import Admission
from palaver.core.ports.store import ConversationQuery, StoredTurn
from palaver.core.problems import Busy, NotFound, Unauthenticated
from palaver.core.types import Token, new_uid
from palaver.core.users import Users
from palaver.store.files import PIECE_BYTES


async def test_a_profile_is_made_once_and_added_to(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        people = Users(store, store.keys, Admission(store.keys, store.rate_limits, store.tokens))
        known, made = await people.register(c.who, "ann", nickname="Ann")
        assert (known.id, known.nickname, made) == (c.user.id, "Ann", False)
        again, made = await people.register(c.who, "ann", avatar="a.png")
        assert (again.nickname, again.avatar, made) == ("Ann", "a.png", False)
        nobody, made = await people.register(c.who, None)
        assert made
        assert nobody.name == nobody.uid.hex
        for ref in (c.user.id, c.user.uid, c.user.uid.hex, "ann"):
            assert (await people.get(c.who, ref)).id == c.user.id
        for ref in ("bob", 10**30, new_uid(), -1):
            with pytest.raises(NotFound):
                await people.get(c.who, ref)


async def test_subscriptions_may_be_repeated(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        people = Users(store, store.keys, Admission(store.keys, store.rate_limits, store.tokens))
        for on, expected in ((True, {c.agent.id}), (True, {c.agent.id}), (False, set[int]()), (False, set[int]())):
            await people.set_subscribed(c.who, c.user, c.agent, on=on)
            assert await people.subscriptions(c.who, c.user) == expected


async def test_a_listing_is_cut_as_the_caller_says(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        titles = ["Alpha", None, "beta 100%", "ALPHABET", None]
        made = [await store.conversations.create(c.who, c.user, c.agent, title=title) for title in titles]
        at = {one.id: number for number, one in enumerate(made)}

        async def listed(**cut: object) -> list[int]:
            page = await store.conversations.list_page(c.app.id, c.user.id, ConversationQuery(**cut))  # pyright: ignore[reportArgumentType]
            return [at[one.id] for one in page]

        assert await listed() == [4, 3, 2, 1, 0]
        assert await listed(titled=True) == [3, 2, 0]
        assert await listed(containing="alpha") == [3, 0]
        assert await listed(containing="0%") == [2]
        assert await listed(offset=1, limit=2) == [3, 2]
        assert await listed(below=made[2].id) == [1, 0]
        assert await listed(after=(made[3].modified, made[3].id)) == [2, 1, 0]
        assert await store.conversations.count(c.app.id, c.user.id, ConversationQuery(titled=True, limit=1)) == 3


async def test_clearing_removes_one_agents_conversations_and_tells_what_was_live(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        opening = c.opening()
        await store.runs.open(opening)
        await store.conversations.create(c.who, c.user, c.agent)
        assert await store.conversations.delete_all(c.app.id, c.user.id, c.agent.id) == [opening.run]
        assert await store.conversations.delete_all(c.app.id, c.user.id, c.agent.id) == []
        assert await store.conversations.count(c.app.id, c.user.id, ConversationQuery()) == 0


async def test_a_conversation_shows_that_it_works_and_how_its_last_turn_ended(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        first = await store.runs.open(c.opening(variables={"city": "杭州"}))
        assert isinstance(first, StoredTurn)
        here = first.conversation
        assert (here.working, here.last_status, here.variables) == (True, None, {"city": "杭州"})
        second = await store.runs.open(c.opening(conversation=here.id))
        assert isinstance(second, StoredTurn)
        said = (await store.conversations.get_messages(c.app.id, here.id, limit=9, max_bytes=2**30)).messages
        assert [message.waiting for message in said] == [False, False, False, True]
        assert await store.runs.list_live(c.app.id, here.id) == [second.answer.uid, first.answer.uid]
        later = await store.conversations.get_messages(
            c.app.id, here.id, after=first.answer.id, limit=1, max_bytes=2**30
        )
        assert [message.id for message in later.messages] == [second.question.id]
        assert later.next == second.answer.uid


async def test_a_stop_reaches_every_process(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        told: list[str] = []
        heard = asyncio.Event()
        there.presence.subscribe("stop", lambda which: (told.append(which), heard.set())[0] if which else None)
        runs = [new_uid(), new_uid()]
        await here.runs.notify_stop(runs)
        await asyncio.wait_for(heard.wait(), 5)
        await until(lambda: asyncio.sleep(0, sorted(told)), sorted(one.hex for one in runs))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
async def test_a_file_comes_back_whole_and_in_any_part(database_url: str, size: int) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        content = os.urandom(size)
        said = {"key": "local/a/b.bin", "name": "b.bin", "media_type": "x/y", "details": {"n": 1}}
        file = await store.files.add(c.app.id, c.user.id, content=content, **said)  # pyright: ignore[reportArgumentType]
        assert (file.size, file.details, await store.files.get(c.app.id, file.key)) == (size, {"n": 1}, file)
        assert await store.files.content(file) == content
        for start, length in ((0, 1), (size // 2, 10), (PIECE_BYTES - 1, 2), (size, 5), (0, size + 5)):
            assert await store.files.content(file, start=start, length=length) == content[start : start + length]
        assert await store.files.get(c.app.id + 1, file.key) is None
        assert await store.files.get_unscoped(file.key) == file


async def test_a_token_is_found_by_its_text_until_it_runs_out_and_a_code_once(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        people = Users(store, store.keys, Admission(store.keys, store.rate_limits, store.tokens))
        secret = await people.issue_token(c.who.key, "access", "ann", ("a", "b"), life_s=60, prefix="t_")
        token = await people.find_token(secret, "access")
        assert isinstance(token, Token)
        assert (token.user, token.scopes, await people.key_of_token(token)) == ("ann", ("a", "b"), c.who.key)
        assert await people.find_token(secret, "refresh") is None
        assert await people.find_token(secret + "x", "access") is None
        gone = await people.issue_token(c.who.key, "access", "ann", (), life_s=-1)
        assert await people.find_token(gone, "access") is None
        code = await people.issue_token(c.who.key, "code", "ann", (), life_s=60, redirect="http://x/cb")
        used = await people.redeem_code(code, remember_s=60)
        assert used is not None
        assert used.redirect == "http://x/cb"
        assert used.expires > datetime.now(UTC) + timedelta(seconds=50)
        assert await people.redeem_code(code, remember_s=60) is None
        assert secret not in str(await store.db.fetch("SELECT * FROM token"))
        await store.tokens.delete_expired()
        assert await store.db.fetchval("SELECT count(*) FROM token") == 1


async def test_a_request_id_may_be_used_again_after_its_time_by_one(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store)).who.key
        assert await store.rate_limits.claim_nonce(key, "r", -1)
        claims = await asyncio.gather(*(store.rate_limits.claim_nonce(key, "r", 60) for _ in range(10)))
        assert claims.count(True) == 1


async def test_a_day_admits_so_many_calls_and_a_request_id_once(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store, rpd=2, rpm=10)
        admission = Admission(store.keys, store.rate_limits, store.tokens)
        await admission.charge(c.who.key)
        await admission.charge(c.who.key)
        with pytest.raises(Busy) as caught:
            await admission.charge(c.who.key)
        assert caught.value.reason == "day"
        assert caught.value.retry_after is not None
        assert 86_000 < caught.value.retry_after <= 86_400
        once = c.who.__class__(key=c.who.key, nonce="r1")
        await admission.reject_replay(once)
        with pytest.raises(Unauthenticated):
            await admission.reject_replay(once)
        await store.db.execute("UPDATE seen_request SET expires = now()")
        await admission.reject_replay(once)
