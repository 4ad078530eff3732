"""Bases by their names."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from support.repositories import reader_on


async def test_a_base_is_found_by_number_uid_and_name(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("An apple keeps well.", encoding="utf-8")

    async with reader_on(database_url) as reader:
        await reader.add(tmp_path)
        base = await reader.table.get(reader.app, "base")
        assert base is not None
        for ref in (base.id, base.uid, str(base.uid), "base"):
            assert await reader.library.find_name(reader.app, ref) == "base"
        for ref in (base.id + 1, 0, -1, 10**30, uuid4(), "nothing"):
            assert await reader.library.find_name(reader.app, ref) is None
        assert await reader.library.find_name(reader.app + 1, base.id) is None
