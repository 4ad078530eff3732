"""Knowledge bases in PostgreSQL: whose they are, how they are named, and what the search makes of any question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaver.core.problems import Internal
from palaver.core.types import MAX_ID
from palaver.store.applications import ApplicationTable
from palaver.store.database import Database
from palaver.store.knowledge import BATCH_PASSAGES, KnowledgeTable


class Desk:
    """Puts documents made of bare words on a shelf."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.table = KnowledgeTable(db)

    async def app(self, name: str = "acme") -> int:
        return (await ApplicationTable(self.db).get_or_create(name)).id

    async def put(self, app: int, base: int, source: str, *texts: str) -> None:
        await self.table.put_document(
            app,
            base,
            source=source,
            root="",
            title=source,
            kind="text",
            digest=source.encode(),
            headings=[""] * len(texts),
            texts=texts,
            lengths=[len(text.split()) for text in texts],
            words=[" ".join(f"'{word}':{place}" for place, word in enumerate(text.split(), 1)) for text in texts],
        )

    async def ask(self, app: int, names: list[str], *lexemes: str, limit: int = 10) -> list[str]:
        hits = await self.table.search(
            app,
            names,
            lexemes=lexemes,
            weights=[1.0] * len(lexemes),
            missed=[1.0] * len(lexemes),
            beside=[None] * len(lexemes),
            limit=limit,
        )
        return [hit.text for hit in hits]


@asynccontextmanager
async def desk_on(url: str) -> AsyncGenerator[Desk]:
    db = Database(url)
    await db.open()
    try:
        yield Desk(db)
    finally:
        await db.close()


async def test_a_base_is_found_by_number_uid_and_name(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        base = await desk.table.get_or_create(app, "docs")
        assert await desk.table.get_or_create(app, "docs") == base
        other = await desk.table.get_or_create(app, str(base))
        await desk.put(app, base, "a.md", "one", "two")
        found = await desk.table.get(app, base)
        assert found is not None
        assert (found.id, found.name, found.documents, found.passages) == (base, "docs", 1, 2)
        assert found == await desk.table.get(app, "docs")
        assert found == await desk.table.get(app, found.uid)
        assert found == await desk.table.get(app, found.uid.hex)
        by_name = await desk.table.get(app, str(base))
        assert by_name is not None
        assert by_name.id == other, "a text is a name first"
        for ref in (0, -1, MAX_ID + 1, "nothing", "9" * 30, uuid4(), "", "nul\0"):
            assert await desk.table.get(app, ref) is None
        assert [one.name for one in await desk.table.list_bases(app)] == sorted(["docs", str(base)])


async def test_a_base_belongs_to_one_application(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        mine, theirs = await desk.app("mine"), await desk.app("theirs")
        base = await desk.table.get_or_create(theirs, "docs")
        await desk.table.get_or_create(mine, "docs")
        await desk.put(theirs, base, "a.md", "secret")
        assert await desk.table.get(mine, base) is None
        assert await desk.table.list_documents(mine, base) == []
        assert await desk.ask(mine, ["docs"], "secret") == []
        assert await desk.table.delete_documents(mine, base, [("", "a.md")]) == []
        assert not await desk.table.delete(mine, base)
        assert await desk.ask(theirs, ["docs"], "secret") == ["secret"]
        with pytest.raises(Internal):
            await desk.put(mine, base, "a.md", "intruder")


async def test_the_search_looks_into_the_named_bases_only(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        for name in ("one", "two", "three"):
            await desk.put(app, await desk.table.get_or_create(app, name), "a.md", f"word {name}")
        assert await desk.ask(app, ["one"], "word") == ["word one"]
        assert sorted(await desk.ask(app, ["three", "one", "no such base"], "word")) == ["word one", "word three"]
        assert await desk.ask(app, ["no such base"], "word") == []
        assert await desk.ask(app, [], "word") == []


async def test_a_removed_document_and_a_dropped_base_leave_nothing(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        base = await desk.table.get_or_create(app, "docs")
        for source in ("a.md", "b.md"):
            await desk.put(app, base, source, f"word {source}")
        assert await desk.table.delete_documents(app, base, [("", "a.md"), ("", "c.md"), ("elsewhere", "b.md")]) == [
            "a.md"
        ]
        assert await desk.ask(app, ["docs"], "word") == ["word b.md"]
        assert [one.source for one in await desk.table.list_documents(app, base)] == ["b.md"]
        assert await desk.table.delete(app, base)
        assert await desk.db.fetchval("SELECT count(*) FROM passage") == 0
        assert await desk.db.fetchval("SELECT count(*) FROM document") == 0


async def test_a_large_document_is_replaced_whole_or_not_at_all(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        base = await desk.table.get_or_create(app, "docs")
        await desk.put(app, base, "a.md", *(f"old {number}" for number in range(2 * BATCH_PASSAGES + 1)))
        with pytest.raises(Internal):
            await desk.put(app, base, "a.md", *(["new"] * BATCH_PASSAGES), "broken'")
        assert len(await desk.ask(app, ["docs"], "old", limit=1000)) == 2 * BATCH_PASSAGES + 1
        await desk.put(app, base, "a.md", *(["new"] * 3))
        assert await desk.ask(app, ["docs"], "old") == []
        assert await desk.ask(app, ["docs"], "new") == ["new"] * 3


async def test_rare_words_and_short_passages_and_many_hits_come_first(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        base = await desk.table.get_or_create(app, "docs")
        await desk.put(
            app,
            base,
            "a.md",
            "common rare",
            "common common common filler",
            "common",
            "common filler filler filler filler filler filler filler filler",
            *(["other"] * 20),
        )
        assert (await desk.ask(app, ["docs"], "common", "rare"))[0] == "common rare"
        assert await desk.ask(app, ["docs"], "common") == [
            "common common common filler",
            "common",
            "common rare",
            "common filler filler filler filler filler filler filler filler",
        ]
        assert await desk.ask(app, ["docs"], "common", "absent", "missing", "gone") == []


async def test_a_search_is_one_statement(database_url: str) -> None:
    async with desk_on(database_url) as desk:
        app = await desk.app()
        await desk.put(app, await desk.table.get_or_create(app, "docs"), "a.md", "word")
        before = desk.db.statement_count
        assert await desk.ask(app, ["docs"], "word", "another") == ["word"]
        assert desk.db.statement_count == before + 1


def test_any_lexeme_and_any_name_may_be_asked_for(database_url: str) -> None:
    with asyncio.Runner() as runner:
        opened = desk_on(database_url)
        desk = runner.run(opened.__aenter__())
        app = runner.run(desk.app())
        base = runner.run(desk.table.get_or_create(app, "docs"))
        runner.run(desk.put(app, base, "a.md", "word"))
        text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)

        @settings(deadline=None, max_examples=50)
        @given(st.lists(text | st.sampled_from(["'", "\\", "''", "a'b\\c", "word:*", "& | !", "@1"]), min_size=1))
        def check(lexemes: list[str]) -> None:
            runner.run(desk.ask(app, ["docs", *lexemes], *lexemes))

        check()
        runner.run(opened.__aexit__(None, None, None))
