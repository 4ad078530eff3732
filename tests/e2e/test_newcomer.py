"""The README from top to bottom: every command is run as printed, and its output is compared."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest
from support.model_endpoint import speech, stream
from support.server_process import endpoint, free_port
from support.survey import ROOT, blocks, tracked

from palaver.app import all_dialects

pytestmark = pytest.mark.e2e

README = ROOT / "README.md"
GUARD = 60.0
ELSEWHERE = {"make test", "make check"}
"""What this test is a part of."""
TOOLS = [tool for tool in ("make", "curl", "openssl") if shutil.which(tool) is None]


class Newcomer:
    """A shell in a checkout of their own, and what stands in the README's agent files."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "palaver"
        self.port = str(free_port())
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PALAVER_", "OPENAI_"))},
            "DATA": str(folder / "data"),
            "PALAVER_DATA": str(folder / "data"),
            "PORT": self.port,
            "PATH": f"{self.checkout / '.venv' / 'bin'}:{os.environ['PATH']}",
            "TERM": "dumb",
            "COLUMNS": "300",
        }
        for path in tracked():
            place = self.checkout / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
            os.utime(place, (0, 0))  # older than the environment that is there: nothing is installed again
        (self.checkout / ".venv").symlink_to(Path(sys.prefix))

    def paste(self, command: str, *, typed: str = "") -> str:
        """What a command prints. It must end well, and so must every curl in it."""
        script = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\nset -euo pipefail\n' + command
        done = subprocess.run(
            ["bash", "-c", script.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")],
            check=False,
            cwd=self.checkout,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=GUARD,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def serving(self, command: str, **environment: str) -> Generator[str]:
        """``make serve`` at a terminal, until Ctrl-C; what it printed when it was up."""
        side, other = pty.openpty()
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.checkout,
            env={**self.environment, **environment},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509  Ctrl-C needs a terminal
        )
        os.close(other)
        try:
            yield _until_up(side)
            os.write(side, b"\x03")
            assert server.wait(GUARD) in {0, 130, -signal.SIGINT}  # make ends by the signal itself
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)
            os.close(side)


def _until_up(side: int) -> str:
    """What is printed until nothing more comes, once the address was."""
    printed, ends = "", time.monotonic() + GUARD
    while time.monotonic() < ends:
        if select.select([side], [], [], 0.5)[0]:
            try:
                printed += os.read(side, 65_536).decode(errors="replace").replace("\r", "")
            except OSError:  # its other side is closed
                break
        elif "address" in printed and "stop" in printed:
            return printed
    pytest.fail(f"the server did not come up: {printed}")


def _commands(printed: str) -> list[str]:
    """What is there to paste: from a line that is a command to the next empty one."""
    paragraphs = re.split(r"\n[ \t]*\n", printed)
    return [
        "\n".join(lines[start:])
        for lines in (paragraph.splitlines() for paragraph in paragraphs)
        for start in [next((n for n, line in enumerate(lines) if re.match(r"curl |\w+=|\w+\(\)", line)), None)]
        if start is not None and "curl " in "\n".join(lines[start:])
    ]


@pytest.fixture
def newcomer() -> Generator[Newcomer]:
    if TOOLS:
        pytest.skip(f"not installed: {', '.join(TOOLS)}")
    if not (Path(sys.prefix) / ".installed").exists():
        pytest.skip("palaver was not installed by make")
    folder = Path(mkdtemp(prefix="palaver-newcomer-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's user has to pass
    one = Newcomer(folder)
    (one.checkout / "handbook.md").write_text("# Breakfast\n\nBreakfast is from seven to ten in the garden room.\n")
    (one.checkout / "notes").mkdir()
    (one.checkout / "notes" / "pool.txt").write_text("The pool opens at nine.\n")
    yield one
    shutil.rmtree(folder)


def test_every_command_of_the_readme_works_and_ends_in_an_answer(newcomer: Newcomer) -> None:
    todo = blocks(README)
    assert next(text for language, text in todo if language == "sh") == "make serve\n"
    with newcomer.serving("make serve") as printed:
        (first,) = _commands(printed)
        assert _is_an_answer(newcomer.paste(first))
        secret = re.search(r"SAI_\w+", newcomer.paste("palaver demo --dialect snail"))
        assert secret is not None
        newcomer.environment["SNAIL_SECRET"] = secret[0]
        for dialect in all_dialects():
            (command,) = _commands(newcomer.paste(f"palaver demo --dialect {dialect.name}"))
            assert _is_an_answer(newcomer.paste(command)), dialect.name
        with_model = _walk(newcomer, todo)
    with (
        endpoint(stream(speech("Set PALAVER_MODEL, says the model."))) as upstream,
        newcomer.serving("make serve", **with_model, OPENAI_BASE_URL=upstream.url) as printed,
    ):
        (first,) = _commands(printed)
        assert "says the model" in newcomer.paste(first)
        assert upstream.headers[0]["Authorization"] == f"Bearer {with_model['OPENAI_API_KEY']}"


def _walk(newcomer: Newcomer, todo: list[tuple[str, str]]) -> dict[str, str]:
    """Save what is to be saved and paste what is to be pasted; the variables of the model."""
    exported: dict[str, str] = {}
    for language, text in todo:
        if language == "markdown":
            name = re.search(r"^name: (\S+)$", text, re.MULTILINE)
            assert name is not None
            (newcomer.checkout / f"{name[1]}.md").write_text(text)
        elif language == "sh" and "export " in text:
            exported = dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))
        elif language == "sh" and "curl" in text:
            assert _is_an_answer(newcomer.paste(text))
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                if line != "make serve" and line not in ELSEWHERE:
                    assert newcomer.paste(line, typed="When is breakfast?\n").strip(), line
    assert set(exported) == {"PALAVER_MODEL", "OPENAI_API_KEY"}
    assert "garden room" in newcomer.paste('palaver chat front-desk -m "When is breakfast?"')
    return exported


def _is_an_answer(printed: str) -> bool:
    """Whether the guide has answered: it quotes the page on models, whatever form the dialect gives that."""
    return "PALAVER_MODEL" in printed or "OPENAI_BASE_URL" in printed
