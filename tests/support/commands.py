"""The command as scripts and people run it: a process with its own data folder on a database of the test's."""

from __future__ import annotations

import codecs
import itertools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from support.forks import FORKS
from support.kit import run, store_on
from support.stalls import STALLS

from palaver.agentfile import parse
from palaver.core.types import ApiKey

GUARD = 60.0
MASTER_KEY = bytes(32)
PALAVER = str(Path(sys.executable).with_name("palaver"))


class Palaver:
    """The command, with an environment of its own."""

    def __init__(self, folder: Path, database: str | None, **environment: str) -> None:
        self.folder = folder
        settings = {"PALAVER_DATA": str(folder / "data"), "PALAVER_MASTER_KEY": MASTER_KEY.hex(), "NO_COLOR": "1"}
        if database is not None:
            settings["PALAVER_DATABASE_URL"] = database
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PALAVER_", "OPENAI_"))}
        self.environment = {**kept, **settings, **environment}
        self._servers = itertools.count(1)

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return FORKS.run(arguments, stdin, {**self.environment, **environment}, GUARD)

    def says(self, *arguments: str, stdin: str = "") -> str:
        """The answer of a command that is done."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """… which is one line of JSON."""
        (line,) = self.says(*arguments, "--json", stdin=stdin).splitlines()
        return json.loads(line)

    def refused(self, *arguments: str, stdin: str = "", code: int = 1) -> str:
        """The one line by which a command says what is wrong."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (code, "")
        (line,) = done.stderr.splitlines()
        return line

    def agent(self, text: str, app: str = "demo") -> int:
        """Store an agent without the command, which costs time; its number."""

        async def work() -> int:
            async with store_on(self.environment["PALAVER_DATABASE_URL"], MASTER_KEY) as store:
                owner = await store.applications.get_or_create(app)
                return (await store.agents.upsert(owner, parse(text))).id

        return run(work())

    def key(self, app: str = "demo") -> ApiKey:
        """The same for a credential of the snail API."""

        async def work() -> ApiKey:
            async with store_on(self.environment["PALAVER_DATABASE_URL"], MASTER_KEY) as store:
                owner = await store.applications.get_or_create(app)
                return await store.keys.create(owner, "snail", "my-app", "SAI_mine", {})

        return run(work())

    @contextmanager
    def serving(self, *arguments: str, **environment: str) -> Generator[Serving]:
        """A server on a free port. It must end well when it is told to."""
        log = self.folder / f"server-{next(self._servers)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [PALAVER, "serve", "--port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**self.environment, **environment},
            )
        STALLS.follow(log)
        try:
            yield Serving(process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(GUARD) == 0
        finally:
            process.kill()
            process.communicate()
            STALLS.leave(log)


class Serving:
    """A server that runs, and what it printed when it was up."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self.log = log
        self.printed = ""
        for line in process.stdout:
            self.printed += line
            if line.startswith("  stop"):
                break
        found = re.search(r"address +(\S+)", self.printed)
        assert found, self.printed
        self.url = found[1]

    def printed_on(self, end: str) -> str:
        """What it prints besides, up to a line that contains ``end``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if end in line:
                break
        return self.printed

    def chat(self, secret: str, agent: int) -> list[Any]:
        """What the server answers on the snail API."""
        answer = requests.post(
            f"{self.url}/snail-ai/open-api/chat",
            json={"agentId": agent, "openId": "me", "content": "hello"},
            headers={"Snail-Ai-Auth": secret},
            timeout=GUARD,
        )
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def text(self, secret: str, agent: int) -> str:
        """The answer's text; of a refusal its message."""
        return "".join(event.get("content") or event.get("msg") or "" for event in self.chat(secret, agent))


class Terminal:
    """A command at a terminal."""

    def __init__(self, palaver: Palaver, *arguments: str, columns: int = 200) -> None:
        self.side, other = pty.openpty()
        self.process = subprocess.Popen(
            [PALAVER, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env={**palaver.environment, "TERM": "dumb", "COLUMNS": str(columns)},
            preexec_fn=_take_terminal,  # noqa: PLW1509  one thread, and Ctrl-C needs a controlling terminal
        )
        os.close(other)
        self.shown = ""
        self._read = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def type(self, text: str) -> None:
        os.write(self.side, text.encode())

    def until(self, text: str, *, press: str = "") -> str:
        """What is shown from here on, up to and with ``text``.

        ``press`` is typed now, and again when nothing has come of it for a second: a signal that reaches a process
        between showing its prompt and waiting for keys goes unnoticed until the next one.
        """
        ends = time.monotonic() + GUARD
        self.type(press)
        while (at := self.shown.find(text, self._read)) < 0:
            assert time.monotonic() < ends, self.shown
            if not select.select([self.side], [], [], 1)[0]:
                self.type(press)
                continue
            self.shown += self._decode(os.read(self.side, 65536)).replace("\r", "")
        begun, self._read = self._read, at + len(text)
        return self.shown[begun : self._read]

    def ended(self) -> int:
        """The exit code."""
        return self.process.wait(GUARD)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.side)


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the new session."""
    name = os.ttyname(0)
    os.close(os.open(name, os.O_RDWR))
