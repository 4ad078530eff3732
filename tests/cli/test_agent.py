"""``palaver agent``, ``palaver app`` and ``palaver knowledge``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import Palaver

from palaver.cli.agent import read
from palaver.core.problems import Invalid

FILE = """---
name: front desk
model: scripted
alias:
  - desk
---
Be brief.
"""


def test_an_agent_is_applied_shown_changed_and_deleted(palaver: Palaver, tmp_path: Path) -> None:
    file = tmp_path / "desk.md"
    file.write_text(FILE)
    made = palaver.json("agent", "apply", str(file), "--app", "hotel")
    assert made == {"id": made["id"], "uid": made["uid"], "name": "front desk"}
    assert (type(made["id"]), len(made["uid"])) == (int, 32)
    file.write_text(FILE.replace("brief", "kind"))
    assert palaver.json("agent", "apply", str(file), "--app", "hotel") == made
    assert palaver.says("agent", "show", "desk", "--app", "hotel") == FILE.replace("brief", "kind")
    (listed,) = palaver.json("agent", "list")
    assert listed == {"app": "hotel", **made, "alias": ["desk"], "model": "scripted", "enabled": True}
    assert palaver.json("agent", "delete", str(made["id"]), "--app", "hotel") == {**made, "deleted": True}


def test_a_mistake_in_a_file_names_file_line_and_the_right_key(palaver: Palaver, tmp_path: Path) -> None:
    file = tmp_path / "desk.md"
    file.write_text("---\nname: desk\nmodle: x\n---\n")
    wanted = f"palaver: {file}, line 3: there is no key 'modle'; did you mean 'model'?"
    assert palaver.refused("agent", "apply", str(file)) == wanted


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "desk.md"
    file.write_bytes(b"---\nname: \xff\n---\n")
    with pytest.raises(Invalid, match="line 2 is not UTF-8"):
        read(str(file))


def test_what_an_agent_still_lacks_is_said_when_it_is_applied(palaver: Palaver) -> None:
    lacking = "---\nname: a\nmodel: gpt-5\nknowledge: house\n---\n"
    done = palaver.run("agent", "apply", "-", "--json", stdin=lacking)
    assert done.returncode == 0
    assert "palaver knowledge add house PATH" in done.stderr
    assert "'openai:gpt-5'" in done.stderr


def test_documents_are_added_found_and_removed(palaver: Palaver, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "hours.md").write_text("# Hours\n\nBreakfast is served from seven.\n")
    (folder / "zh.md").write_text("# 早餐\n\n早餐七点开始。\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    added = palaver.json("knowledge", "add", "house", str(folder))
    assert added["added"] == ["hours.md", "zh.md"]
    assert added["skipped"] == [{"name": "photo.jpg", "reason": "not Markdown, text or HTML"}]
    assert (
        palaver.says("knowledge", "add", "house", str(folder)) == "house: 2 unchanged, 1 skipped; 0 passages written\n"
    )
    (found,) = palaver.json("knowledge", "search", "house", "早餐")
    assert list(found) == ["document", "heading", "page", "score", "content"]
    assert (found["document"], found["page"], found["content"]) == ("zh.md", None, "早餐七点开始。")
    assert palaver.says("knowledge", "documents", "house") == "hours.md\tHours\t1\nzh.md\t早餐\t1\n"
    assert palaver.json("knowledge", "remove", "house", "zh.md")["removed"] == ["zh.md"]
    assert palaver.says("knowledge", "list") == f"demo\t{added['id']}\thouse\t1\t1\n"
    assert "there is no document 'zh.md'" in palaver.refused("knowledge", "remove", "house", "zh.md")


def test_documents_of_one_name_are_told_apart_by_their_folders(palaver: Palaver, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "README.md" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"# {path.parent.name}\n\ntext\n")
    palaver.json("knowledge", "add", "twice", *(str(path.parent) for path in paths))
    assert palaver.says("knowledge", "documents", "twice") == "".join(
        f"README.md\t{path.parent.name}\t1\t{path.parent}\n" for path in paths
    )
    refused = palaver.refused("knowledge", "remove", "twice", "README.md")
    assert all(str(path) in refused.replace("\n", "") for path in paths)
    assert palaver.json("knowledge", "remove", "twice", str(paths[0]))["removed"] == ["README.md"]
    (left,) = palaver.json("knowledge", "documents", "twice")
    assert left["title"] == "two"


def test_files_and_folders_are_applied_together_or_not_at_all(palaver: Palaver, tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "README.md").write_text("not an agent")
    (folder / "b.md").write_text("---\nname: b\nmodel: scripted\n---\n")
    (folder / "c.md").write_text("---\nnaem: c\n---\n")
    single = tmp_path / "a.md"
    single.write_text("---\nname: a\nmodel: scripted\n---\n")
    assert "c.md, line 2" in palaver.refused("agent", "apply", str(single), str(folder))
    assert palaver.json("agent", "list") == []
    (folder / "c.md").write_text("---\nname: a\nmodel: scripted\n---\n")
    assert "2 files describe an agent 'a'" in palaver.refused("agent", "apply", str(single), str(folder))
    (folder / "c.md").write_text("---\nname: c\nmodel: scripted\n---\n")
    assert [one["name"] for one in palaver.json("agent", "apply", str(single), str(folder))] == ["a", "b", "c"]
    (empty := tmp_path / "empty").mkdir()
    assert "no agent file" in palaver.refused("agent", "apply", str(empty))


def test_check_stores_nothing_and_fails_for_an_agent_that_cannot_answer(palaver: Palaver, tmp_path: Path) -> None:
    good, lacking = tmp_path / "good.md", tmp_path / "lacking.md"
    good.write_text("---\nname: good\nmodel: scripted\n---\n")
    lacking.write_text("---\nname: lacking\nmodel: gpt-5\nknowledge: house\n---\n")
    assert palaver.says("agent", "apply", "--check", str(good)) == "good: ok\n"
    done = palaver.run("agent", "apply", "--check", "--json", str(good), str(lacking))
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert first == {"name": "good", "ok": True, "lacking": []}
    assert (second["ok"], len(second["lacking"])) == (False, 2)
    assert palaver.json("agent", "list") == []
    assert palaver.json("app", "list") == []
