"""What is installed: pinned with hashes, wherever it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.survey import ROOT, bare, table, tracked

RUN, DEV = ROOT / "requirements" / "run.txt", ROOT / "requirements" / "dev.txt"


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _names(lines: list[str]) -> list[str]:
    return [re.split(r"[^\w.-]", line)[0].lower() for line in lines]


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", path.read_text()))


@pytest.mark.parametrize("path", [RUN, DEV], ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_no_address(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    assert "://" not in text
    assert re.search(r"(?m)^\s*-", text) is None
    bare = [line for line in text.splitlines() if line.strip() and not re.search(r"==\S+.* --hash=sha256:\w{64}", line)]
    assert bare == []


def test_every_dependency_is_pinned_and_both_files_agree() -> None:
    project = _project()
    groups = project["dependency-groups"]
    run, dev = _pins(RUN), _pins(DEV)
    assert set(_names(project["project"]["dependencies"]) + _names(groups["build"])) - run.keys() == set()
    assert set(_names(groups["dev"])) - dev.keys() == set()
    assert {name: dev.get(name) for name in run} == run


def test_no_lock_file_with_addresses_is_kept() -> None:
    assert [path.name for path in tracked() if path.name in {"uv.lock", "package-lock.json", "yarn.lock"}] == []


@pytest.mark.parametrize("kind", ["run-time", "development", "build"])
def test_the_document_on_dependencies_names_each_of_them(kind: str) -> None:
    project = _project()
    lines: dict[str, list[str]] = {
        "run-time": project["project"]["dependencies"],
        "development": project["dependency-groups"]["dev"],
        "build": project["dependency-groups"]["build"],
    }
    rows = table(ROOT / "docs" / "dependencies.md", f"{kind.capitalize()} dependency")
    assert [bare(row[0]) for row in rows] == _names(lines[kind])
    assert [row[0] for row in rows if not all(row)] == []
