"""The benchmarks and the soak test, as small as possible: they measure, and leave nothing behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
GOALS = {
    "CPU per chunk": "≤ 1.5 × relay",
    "time to first event, p50": "≤ relay + 5 ms",
    "time to first event, p99": "≤ relay + 25 ms",
    "memory for 1,000 open streams": "≤ 60 MB",
    "escaping": "≤ 4 × json.dumps",
    "create-conversation calls": "≥ pgbench, 8 clients",
    "whole turns a second": "≥ 300 /s",
    "SQL statements for a turn": "≤ 5",
    "a send into": "≤ 1.5 × empty",
    "listing among": "≤ 1.5 × few",
}
MEASURES = ("chunks", "first-event", "memory", "escaping", "create", "turns", "statements", "long", "many")
"""All but the second start, which takes as long as all others together."""

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where a run has its temporary files, to see what it leaves. The path is short, as a socket's must be."""
    made = Path(tempfile.mkdtemp(prefix="pb"))
    monkeypatch.setenv("TMPDIR", str(made))
    yield made
    shutil.rmtree(made)


def bench(*arguments: str, module: str = "bench") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, "--unpinned", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, once it is done."""
    out, complaint = process.communicate(timeout=100)
    assert process.returncode == 0, complaint + out
    return out


def left(folder: Path) -> list[Any]:
    """Files and processes of a run that is over."""
    mark = str(folder)
    commands = {one: one.info["cmdline"] or () for one in psutil.process_iter(["cmdline"])}
    processes = [one for one, command in commands.items() if any(mark in word for word in command)]
    return [*folder.iterdir(), *processes]


def test_every_benchmark_runs_and_has_a_target(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    chosen = [word for name in MEASURES for word in ("--only", name)]
    printed = ended(bench("--quick", "--dialect", "xspace", "--json", str(file), *chosen))
    rows = json.loads(file.read_text())["rows"]
    for measure, goal in GOALS.items():
        found = [row for row in rows if row["measure"].startswith(measure) and row["goal"]]
        assert {row["goal"] for row in found} == {goal}, measure
        assert all(row["value"] > 0 and row["met"] is not None for row in found), found
    assert all(row["measure"] in printed for row in rows)
    assert left(folder) == []


def test_the_soak_test_counts_leftovers(folder: Path) -> None:
    printed = ended(bench("--turns", "60", "--workers", "4", module="bench.soak"))
    for measure in ("memory at the end", "open files and sockets", "runs in the database", "turns stored"):
        assert measure in printed
    assert left(folder) == []


def test_an_interrupted_benchmark_leaves_nothing_behind(folder: Path) -> None:
    process = bench("--quick", "--only", "chunks", "--repeat", "1000")
    assert process.stderr is not None
    until = time.monotonic() + 60
    while "CPU per chunk" not in (line := process.stderr.readline()) and "chunks" not in line:
        assert line, "it ended by itself"
        assert time.monotonic() < until
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert left(folder) == []
