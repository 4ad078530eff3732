"""Bases are filled, renewed and pruned, by one process or two, to the end or not."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from support.repositories import reader_on

from palaver.core.ports.admin import IngestProgress
from palaver.core.problems import Invalid
from palaver.knowledge.ingest import ingest


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text)


async def test_files_are_added_left_alone_and_replaced(tmp_path: Path, database_url: str) -> None:
    write(tmp_path, one="# One\n\nThe zebra is striped.", two="# Two\n\nThe giraffe is tall.")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "empty.txt").write_text("\n")
    async with reader_on(database_url) as reader:
        report = await reader.add(tmp_path)
        assert (report.added, report.passages) == (("one.md", "two.md"), 2)
        assert {(skipped.name, skipped.reason) for skipped in report.skipped} == {
            ("photo.jpg", "not Markdown, text or HTML"),
            ("empty.txt", "no text in it"),
        }
        (before,) = [
            one for one in await reader.table.list_documents(reader.app, report.base) if one.source == "one.md"
        ]
        write(tmp_path, one="# One\n\nThe zebra became a horse.")
        report = await reader.add(tmp_path)
        assert (report.added, report.replaced, report.unchanged) == ((), ("one.md",), ("two.md",))
        assert await reader.ask("striped") == []
        (hit,) = await reader.ask("horse")
        assert (hit.source, hit.title, hit.text) == ("one.md", "One", "The zebra became a horse.")
        (after,) = [one for one in await reader.table.list_documents(reader.app, report.base) if one.source == "one.md"]
        assert (after.id, after.uid) == (before.id, before.uid) == (hit.document, before.uid)


async def test_progress_counts_up_to_the_number_of_files(tmp_path: Path, database_url: str) -> None:
    write(tmp_path, a="x", b="y", c="z")
    (tmp_path / "d.pdf").write_bytes(b"%PDF")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path)
        assert [(seen.done, seen.total, seen.name, seen.outcome) for seen in reader.seen] == [
            (1, 4, "a.md", "added"),
            (2, 4, "b.md", "added"),
            (3, 4, "c.md", "added"),
            (4, 4, "d.pdf", "skipped"),
        ]


async def test_a_file_that_is_gone_stays_until_pruned(tmp_path: Path, database_url: str) -> None:
    write(tmp_path / "docs", stays="stays", goes="goes")
    write(tmp_path / "other", else_where="elsewhere")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path / "docs", tmp_path / "other")
        (tmp_path / "docs" / "goes.md").unlink()
        (tmp_path / "other" / "else_where.md").unlink()
        assert (await reader.add(tmp_path / "docs")).removed == ()
        assert len(await reader.ask("goes")) == 1
        assert (await reader.add(tmp_path / "docs", prune=True)).removed == ("goes.md",)
        assert await reader.ask("goes") == []
        assert len(await reader.ask("elsewhere")) == 1


async def test_a_folder_that_moved_is_not_indexed_as_changed_and_can_still_be_pruned(
    tmp_path: Path, database_url: str
) -> None:
    write(tmp_path / "old", a="alpha", b="beta")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path / "old")
        (tmp_path / "old").rename(tmp_path / "new")
        assert (await reader.add(tmp_path / "new")).unchanged == ("a.md", "b.md")
        (tmp_path / "new" / "b.md").unlink()
        assert (await reader.add(tmp_path / "new", prune=True)).removed == ("b.md",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no text in it; the text it had before stays"),
        (b"\0\1\2", "not text; the text it had before stays"),
        (b"<div>" * 600, "too deeply nested"),
    ],
)
async def test_an_empty_or_broken_file_replaces_nothing(
    tmp_path: Path, database_url: str, content: bytes, reason: str
) -> None:
    (tmp_path / "a.html").write_bytes(b"alpha")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path)
        (tmp_path / "a.html").write_bytes(content)
        for _ in range(2):
            report = await reader.add(tmp_path, prune=True)
            assert (report.replaced, report.removed) == ((), ())
            assert [one.name for one in report.skipped] == ["a.html"]
            assert report.skipped[0].reason.startswith(reason)
        assert len(await reader.ask("alpha")) == 1


async def test_two_ingests_at_once_leave_one_whole_base(tmp_path: Path, database_url: str) -> None:
    text = "\n\n".join(f"## Part {part}\n\n{'word ' * 80}" for part in range(8))
    async with reader_on(database_url) as reader, reader_on(database_url) as other:
        for version in ("old", "new"):
            write(tmp_path, **{f"d{number}": f"# Doc\n\n{version}\n\n{text}" for number in range(12)})
            await asyncio.gather(reader.add(tmp_path), other.add(tmp_path))
        (base,) = await reader.table.list_bases(reader.app)
        documents = await reader.table.list_documents(reader.app, base.id)
        assert len(documents) == base.documents == 12
        assert base.passages == sum(document.passages for document in documents) == 12 * 8
        hits = await reader.ask("word", limit=1000)
        assert len({(hit.document, hit.heading) for hit in hits}) == len(hits) == 12 * 8
        assert await reader.ask("old") == []


async def test_documents_of_one_name_below_two_folders_are_two(tmp_path: Path, database_url: str) -> None:
    write(tmp_path / "one", README="alpha")
    write(tmp_path / "two", README="beta")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path / "one")
        assert (await reader.add(tmp_path / "two")).added == ("README.md",)
        assert (await reader.add(tmp_path / "one", tmp_path / "two", base="both")).added == ("README.md",) * 2
        singly = await reader.add(tmp_path / "one" / "README.md", tmp_path / "two" / "README.md", base="singly")
        assert singly.added == ("README.md",) * 2
        for base in ("base", "both", "singly"):
            for word in ("alpha", "beta"):
                assert [hit.text for hit in await reader.ask(word, base)] == [word]
        write(tmp_path / "two", README="gamma")
        assert (await reader.add(tmp_path / "two", prune=True)).replaced == ("README.md",)
        assert len(await reader.ask("alpha")) == len(await reader.ask("gamma")) == 1
        assert await reader.ask("beta") == []


async def test_another_folder_in_the_place_of_one_that_is_gone_is_not_that_one(
    tmp_path: Path, database_url: str
) -> None:
    write(tmp_path / "one", README="alpha")
    write(tmp_path / "two", README="beta")
    async with reader_on(database_url) as reader:
        await reader.add(tmp_path / "one")
        shutil.rmtree(tmp_path / "one")
        assert (await reader.add(tmp_path / "two", prune=True)).added == ("README.md",)
        assert len(await reader.ask("alpha")) == 1
        report = await ingest(reader.table, reader.app, "base", [tmp_path / "two"], prune=True, lost=True)
        assert report.removed == ("README.md",)
        assert await reader.ask("alpha") == []
        assert len(await reader.ask("beta")) == 1


async def test_a_file_that_was_added_before_its_folder_was_kept_is_not_added_again(
    tmp_path: Path, database_url: str
) -> None:
    write(tmp_path, a="alpha")
    async with reader_on(database_url) as reader:
        report = await reader.add(tmp_path / "a.md")
        await reader.table.change_folder(reader.app, report.base, ["a.md"], str(tmp_path), "")
        write(tmp_path, a="beta")
        assert (await reader.add(tmp_path / "a.md")).replaced == ("a.md",)
        assert await reader.ask("alpha") == []


async def test_a_name_is_needed_and_may_not_be_endless(tmp_path: Path, database_url: str) -> None:
    async with reader_on(database_url) as reader:
        for name in ("", "  \n", "x" * 201):
            with pytest.raises(Invalid):
                await reader.add(tmp_path, base=name)
        assert (await reader.add(tmp_path, base=" 手册 ")).added == ()
        assert [base.name for base in await reader.table.list_bases(reader.app)] == ["手册"]


async def test_an_ingest_that_is_cancelled_leaves_whole_documents(tmp_path: Path, database_url: str) -> None:
    write(tmp_path, **{f"d{number:02}": f"alpha {number}" for number in range(40)})
    async with reader_on(database_url) as reader:
        third = asyncio.Event()

        def count(seen: IngestProgress) -> None:
            if seen.done == 3:
                third.set()

        task = asyncio.create_task(ingest(reader.table, reader.app, "base", [tmp_path], count))
        await third.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (base,) = await reader.table.list_bases(reader.app)
        assert 3 <= base.documents == base.passages < 40
        assert len((await reader.add(tmp_path)).unchanged) == base.documents
