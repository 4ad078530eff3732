"""The built wheel is complete: it serves in an environment without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import support.server_process
from support.server_process import installed, lines

CHECKOUT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def said(*command: str | Path, folder: Path) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_alone_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
    said(sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, CHECKOUT, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    empty = tmp_path / "empty"
    said(sys.executable, "-m", "venv", "--without-pip", empty, folder=tmp_path)
    python = empty / "bin" / "python"
    said(sys.executable, "-m", "pip", "--python", python, *pip[2:], "install", "--no-deps", wheel, folder=tmp_path)
    # Its dependencies are those that `make install` has put beside these tests. Their folder brings no palaver along:
    # the .pth files of a folder that a .pth file names are not read.
    (own,) = empty.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    said(python, "-c", "import palaver, sys; assert palaver.__file__.startswith(sys.prefix)", folder=tmp_path)
    monkeypatch.setattr(support.server_process, "PALAVER", str(empty / "bin" / "palaver"))
    monkeypatch.chdir(tmp_path)
    with installed() as place:
        place.start()
        demo = place.json("demo")
        answer = place.chat(demo["credentials"]["snail"]["secret"], demo["agent"]["id"], "How do I configure a model?")
        assert "PALAVER_MODEL" in list(lines(answer))[-1]["fullText"]
        place.stop()
        assert place.left() == []
