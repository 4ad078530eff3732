"""Applications, keys, agents, end users, conversations; who sees what, and how fast a change is known."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kit import seed_app, store_on, until

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Conflict, Internal
from palaver.core.types import AgentSpec, clean, parse_uid
from palaver.store.secrets import SecretBox, load_or_create_master_key, parse_master_key


async def test_a_key_is_found_by_id_and_by_secret_and_its_secret_is_not_in_the_database(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        key = c.who.key
        assert await store.keys.get_by_id("snail", key.id) == key
        assert await store.keys.get_by_secret("snail", key.secret) == key
        assert await store.keys.get_by_id("wps", key.id) is None
        assert await store.keys.get_by_secret("snail", "SAI_other") is None
        assert await store.keys.get_by_id("snail", "nul\0byte") is None
        stored = str(await store.db.fetch("SELECT * FROM credential"))
        assert key.secret not in stored
        assert key.secret not in repr(key)


async def test_what_another_process_does_to_a_key_is_known_within_a_second(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        key = (await seed_app(here)).who.key
        assert await there.keys.get_by_id("snail", key.id) == key
        (disabled,) = await here.keys.set_enabled(key.id, enabled=False)
        await until(lambda: there.keys.get_by_id("snail", key.id), disabled, within=1)
        rotated = await here.keys.rotate(key, "SAI_new")
        await until(lambda: there.keys.get_by_secret("snail", "SAI_new"), rotated, within=1)
        assert await there.keys.get_by_secret("snail", key.secret) is None
        await here.keys.delete(rotated)
        await until(lambda: there.keys.get_by_id("snail", key.id), None, within=1)


async def test_a_key_that_is_known_costs_no_statement(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)

        async def cost() -> int:
            before = store.db.statement_count
            await store.keys.get_by_id("snail", c.who.key.id)
            await store.agents.get(c.app.id, c.agent.id)
            await store.users.get_or_create(c.app.id, "ann")
            return store.db.statement_count - before

        # Not at once: the word that they were made empties what is remembered when it comes round.
        await until(cost, 0)


async def test_another_master_key_does_not_open_the_store(database_url: str) -> None:
    async with store_on(database_url):
        pass
    with pytest.raises(Internal, match="another master key"):
        async with store_on(database_url, bytes([1] * 32)):
            pass


def test_a_secret_moved_to_another_row_does_not_open() -> None:
    box = SecretBox(bytes(32))
    sealed = box.seal("s3cret", context="snail/a")
    assert box.open(sealed, context="snail/a") == "s3cret"
    with pytest.raises(Internal):
        box.open(sealed, context="snail/b")
    assert box.seal("s3cret", context="snail/a") != sealed


def test_a_master_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    made = load_or_create_master_key(path)
    assert load_or_create_master_key(path) == made == parse_master_key(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        load_or_create_master_key(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "AAAA", "no key, but long enough for one"])
def test_a_master_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="master key"):
        parse_master_key(text)


async def test_an_agent_is_named_by_number_uid_alias_and_name(database_url: str) -> None:
    async with store_on(database_url) as store:
        app = await store.applications.get_or_create("acme")
        agent = await store.agents.upsert(app, AgentSpec(name="Guide", alias=("helper", "g")))
        for ref in (agent.id, agent.uid, str(agent.uid), agent.uid.hex.upper(), "helper", "g", "Guide"):
            assert await store.agents.get(app.id, ref) == agent
        for ref in ("guide", "HELPER", 2**62, -1, 2**80, uuid4(), "a\0b"):
            assert await store.agents.get(app.id, ref) is None
        rival = await store.agents.upsert(app, AgentSpec(name="helper"))
        named_like = await store.agents.upsert(app, AgentSpec(name=agent.uid.hex))
        for ref in ("helper", agent.uid.hex):  # uids and aliases come before names
            assert await store.agents.get(app.id, ref) == agent
        assert await store.agents.get(app.id, rival.id) == rival
        assert await store.agents.get(app.id, named_like.uid) == named_like
        other = await store.applications.get_or_create("other")
        for ref in (agent.id, agent.uid, "helper"):
            assert await store.agents.get(other.id, ref) is None


async def test_an_agent_applied_again_is_changed_everywhere_and_keeps_its_ids(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        app = await here.applications.get_or_create("acme")
        first = await here.agents.upsert(app, AgentSpec(name="guide", alias=("a", "b")))
        assert await there.agents.get(app.id, "a") == first
        second = await here.agents.upsert(app, AgentSpec(name="guide", alias=("b", "c"), instructions="new"))
        assert (second.id, second.uid) == (first.id, first.uid)
        await until(lambda: there.agents.get(app.id, "a"), None, within=1)
        assert await there.agents.get(app.id, "c") == second
        with pytest.raises(Conflict, match="'b' belongs to agent 'guide'"):
            await here.agents.upsert(app, AgentSpec(name="rival", alias=("b",)))


async def test_an_end_user_is_made_once_and_known_by_name_and_by_issued_uid(database_url: str) -> None:
    async with store_on(database_url) as store:
        app = await store.applications.get_or_create("acme")
        users = await asyncio.gather(*(store.users.get_or_create(app.id, "ann") for _ in range(10)))
        assert len({user.id for user in users}) == 1
        assert await store.users.get_or_create(app.id, users[0].uid.hex) == users[0]
        bob = await store.users.get_or_create(app.id, uuid4().hex)
        assert bob.id != users[0].id
        other = await store.applications.get_or_create("other")
        assert (await store.users.get_or_create(other.id, "ann")).id != users[0].id
        odd = await store.users.get_or_create(app.id, "nul\0 \ud800")
        assert odd.name == "nul\ufffd \ufffd"


async def test_conversations_come_last_changed_first_page_by_page(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        made = [await store.conversations.create(c.who, c.user, c.agent, title=str(n)) for n in range(7)]
        renamed = await store.conversations.rename(c.app.id, c.user.id, made[2].uid, title="新标题")
        assert renamed is not None
        assert renamed.title == "新标题"
        expected = [made[2].id, *(one.id for one in reversed(made) if one.id != made[2].id)]
        seen: list[int] = []
        after = None
        while page := await store.conversations.list_page(c.app.id, c.user.id, ConversationQuery(after=after, limit=3)):
            seen += [one.id for one in page]
            after = (page[-1].modified, page[-1].id)
        assert seen == expected
        assert await store.conversations.list_page(c.app.id, c.user.id, ConversationQuery(agent=999)) == []
        assert await store.conversations.list_page(c.app.id, 999, ConversationQuery()) == []
        assert await store.conversations.rename(c.app.id, 999, made[0].id, title="x") is None


async def test_an_application_is_removed_with_everything_it_owns(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        await store.runs.open(c.opening())
        assert await store.applications.delete("acme")
        assert not await store.applications.delete("acme")
        for table in ("credential", "agent", "end_user", "conversation", "message"):
            assert await store.db.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await store.applications.get("acme") is None


@given(st.text(alphabet=st.characters(exclude_categories=())))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_clean_text_is_what_a_database_takes(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned
    cleaned.encode()
    assert clean(cleaned) == cleaned
    if "\0" not in text and text.isprintable():
        assert cleaned == text
    msgspec.json.encode(cleaned)


@given(st.uuids(), st.text(max_size=40))
def test_a_uuid_is_read_in_both_its_forms_and_nothing_else_is(uid: object, text: str) -> None:
    assert parse_uid(str(uid)) == uid
    assert parse_uid(str(uid).replace("-", "").upper()) == uid
    assert parse_uid("{" + str(uid)[:-2] + "}") is None
    assert parse_uid(text) is None or text.lower() in {str(parse_uid(text)), str(parse_uid(text)).replace("-", "")}


async def test_agents_are_applied_all_or_none_and_may_exchange_aliases(database_url: str) -> None:
    async with store_on(database_url) as store:
        app = await store.applications.get_or_create("acme")
        await store.agents.upsert(app, AgentSpec(name="owner", alias=("taken",)))
        rows = [AgentSpec(name="one", alias=("a",)), AgentSpec(name="two", alias=("taken",))]
        with pytest.raises(Conflict, match="'taken' belongs to agent 'owner'"):
            await store.agents.upsert_all(app, rows)
        with pytest.raises(Conflict, match="'a' belongs to agent 'one'"):
            await store.agents.upsert_all(app, [rows[0], AgentSpec(name="two", alias=("a",))])
        assert [agent.name for _, agent in await store.agents.list_all(app)] == ["owner"]
        await store.agents.upsert_all(app, [AgentSpec(name="one", alias=("a",)), AgentSpec(name="two", alias=("b",))])
        swapped = await store.agents.upsert_all(
            app, [AgentSpec(name="one", alias=("b",)), AgentSpec(name="two", alias=("a",))]
        )
        assert [await store.agents.get(app.id, alias) for alias in ("b", "a")] == swapped
