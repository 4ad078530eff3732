"""The documents say what the code does."""

from __future__ import annotations

import ast
import importlib
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.survey import (
    ROOT,
    SOURCE,
    bare,
    blocks,
    dialects,
    documents,
    headings,
    prose,
    python,
    rooms,
    shown,
    table,
    tracked,
    tree,
)

from palaver.cli.conformance import deviations
from palaver.config import OTHER_VARIABLES, setting_docs
from palaver.core.types import AgentSpec
from palaver.http.metrics import Gauges, Metrics
from palaver.models.scripted import ScriptStep
from palaver.wire.contract import Dialect

README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
OPERATIONS = ROOT / "docs" / "operations.md"


# The two READMEs ----------------------------------------------------------------------------------------------------


def test_the_readmes_have_the_same_sections_and_the_same_commands() -> None:
    assert [level for level, _ in headings(README)] == [level for level, _ in headings(CHINESE)]
    assert blocks(README) == blocks(CHINESE)


@pytest.mark.parametrize(("readme", "column"), [(README, "Environment variable"), (CHINESE, "环境变量")])
def test_a_readme_names_every_setting_with_its_default(readme: Path, column: str) -> None:
    rows = table(readme, column)
    wanted = [(f"PALAVER_{name.upper()}", default or "–") for name, default, _ in setting_docs()]
    assert [(bare(row[0]), bare(row[1])) for row in rows] == wanted
    assert [row[0] for row in rows if not row[2]] == []
    assert {name for name in OTHER_VARIABLES if f"`{name}`" not in prose(readme)} == set()


def test_the_readme_says_of_every_setting_what_the_code_says() -> None:
    assert [row[2] for row in table(README, "Environment variable")] == [meaning for _, _, meaning in setting_docs()]


# Rooms and routes ---------------------------------------------------------------------------------------------------


def test_the_architecture_names_every_room() -> None:
    folders = {room.name for room in rooms() if room.parent == SOURCE}
    modules = {path.name for path in python(SOURCE) if path.parent == SOURCE} - {"__init__.py"}
    rows = [bare(row[0]) for row in table(ROOT / "docs" / "architecture.md", "Package") if len(row) == 3]
    assert sorted(rows) == sorted(folders | modules)


@pytest.mark.parametrize("folder", dialects(), ids=lambda folder: folder.name)
def test_a_dialect_s_readme_lists_its_routes(folder: Path) -> None:
    dialect: Dialect = importlib.import_module(f"palaver.dialects.{folder.name}").DIALECT
    rows = [tuple(map(bare, row)) for row in table(folder / "README.md", "Method")]
    wanted = [
        (route.method, route.path, route.summary, "yes" if route.idempotent else "no") for route in dialect.routes
    ]
    assert rows == wanted
    assert "Deviations" in [text for _, text in headings(folder / "README.md")]


@pytest.mark.parametrize("folder", dialects(), ids=lambda folder: folder.name)
def test_a_dialect_s_readme_says_the_deviations_of_its_manifest(folder: Path) -> None:
    dialect: Dialect = importlib.import_module(f"palaver.dialects.{folder.name}").DIALECT
    written = re.findall(r"(?s)<!-- deviations -->\n\n(.*?)\n\n<!-- end of deviations -->", prose(folder / "README.md"))
    assert written == [deviations(dialect)], "'make deviations' writes it"


# Formats ------------------------------------------------------------------------------------------------------------


def test_every_key_of_an_agent_file_is_documented_with_its_default() -> None:
    rows = {bare(row[0]): bare(row[1]) for row in table(ROOT / "docs" / "agents.md", "Key")}
    assert list(rows) == [name for name in AgentSpec.__struct_fields__ if name != "instructions"]
    spec = AgentSpec(name="")
    said = {name: rows[name] for name in ("enabled", "auto_title", "knowledge_mode")}
    assert said == {
        "enabled": str(spec.enabled).lower(),
        "auto_title": spec.auto_title,
        "knowledge_mode": spec.knowledge_mode,
    }


def test_every_step_of_a_script_is_documented_as_it_is_in_the_code() -> None:
    rows = table(ROOT / "docs" / "models.md", "Step")
    steps = [next(iter(yaml.safe_load(bare(row[0]).replace("{…}", "{}"))[0])) for row in rows]
    assert sorted(steps) == sorted(ScriptStep.__struct_fields__)
    docstring = ast.get_docstring(tree(SOURCE / "models" / "scripted.py")) or ""
    assert [row for row in rows if f"| {row[0]} | {row[1]} |" not in docstring] == []


# What an operator sees ----------------------------------------------------------------------------------------------


def _logged() -> dict[str, set[str]]:
    """Every event that palaver logs, with its levels."""
    found: dict[str, set[str]] = {}
    for path in python(SOURCE):
        for node in ast.walk(tree(path)):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(event))]
                ):
                    found.setdefault(event, set()).add("error" if level == "exception" else level)
                case _:
                    pass
    return found


def test_every_log_line_is_documented_with_its_level() -> None:
    said = {
        event: set(row[1].split(", "))
        for row in table(OPERATIONS, "`event`")
        for event in re.findall(r"`([^`]+)`", row[0])
    }
    assert said == _logged()


def test_every_metric_is_documented_with_its_kind() -> None:
    metrics = Metrics(Gauges)
    families = text_string_to_metric_families(metrics.text().decode())
    told = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
    told = {name: kind for name, kind in told.items() if not name.endswith("_created")}
    assert {bare(row[0]): row[1] for row in table(OPERATIONS, "Metric")} == told


# Links and places ---------------------------------------------------------------------------------------------------


def test_every_guarantee_names_tests_that_there_are() -> None:
    named = re.findall(r"^- `([\w/.]+)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text(), re.MULTILINE)
    assert len(named) > 30
    for file, function in named:
        path = ROOT / "tests" / file.removeprefix("tests/")
        assert path.exists(), file
        if function:
            tree = ast.parse(path.read_text())
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            assert function in {node.name for node in tree.body if isinstance(node, functions)}, function


def _anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    texts = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).lower() for _, text in headings(path)]
    anchors = [re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts]
    earlier = [anchors[:place].count(anchor) for place, anchor in enumerate(anchors)]
    return {f"{anchor}-{count}" if count else anchor for anchor, count in zip(anchors, earlier, strict=True)}


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(document))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (document.parent / place).resolve() if place else document
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_begins_with_its_title_and_levels_do_not_jump() -> None:
    for document in documents():
        levels = [level for level, _ in headings(document)]
        if not levels:  # an agent's file
            continue
        assert levels[0] == 1, shown(document)
        assert levels.count(1) == 1, shown(document)
        assert all(after - before <= 1 for before, after in pairwise(levels)), shown(document)


def test_no_file_names_a_place_of_the_machine_it_was_made_on() -> None:
    # Put together here, or this file would be found.
    words = ["/" + "work/", "/opt/" + "pypi", "pypi.org/" + "simple", "files." + "pythonhosted", "registry." + "npmjs"]
    found = [f"{shown(path)}: {word}" for path in tracked() for word in words if word.encode() in path.read_bytes()]
    assert found == []
