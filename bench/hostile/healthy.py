"""The healthy caller, in its own process: runs turns and reads, one after the other, until standard input ends.

It receives its configuration as one line of JSON on standard input, prints a line when it has started, and at the end
its observations as one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bench.machine import Slowness

PAUSE_S = 0.02
PATIENCE_S = 60.0
"""Timeout for an answer, in seconds."""
TURNS = 20
"""Turns in one conversation."""


class Caller:
    def __init__(self, orders: Mapping[str, Any]) -> None:
        self._port: int = orders["port"]
        self._agent: int = orders["agent"]
        self._words: str = orders["words"]
        self._headers = {
            "Authorization": f"Bearer {orders['secret']}",
            "X-User-ID": "healthy",
            "Content-Type": "application/json",
        }
        self._connection: http.client.HTTPConnection | None = None
        self._conversation = ""
        self._turns = 0
        self.machine = Slowness()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def go_round(self) -> None:
        """Run one turn and read it."""
        body = {"agent": self._agent, "content": "hi", "stream": True}
        if self._turns % TURNS == 0:
            self._conversation = ""
        path = f"conversations/{self._conversation}/messages" if self._conversation else "messages"
        answer = self._ask("turn", "POST", f"/palaver/v1/{path}", json.dumps(body).encode())
        if self._words not in answer:
            self.failures.append(f"turn: no whole answer: {answer[:300]!r}")
        self._turns += 1
        listed = self._ask("list", "GET", "/palaver/v1/conversations?limit=20")
        if not self._conversation and listed.startswith('{"conversations":[{'):
            self._conversation = json.loads(listed)["conversations"][0]["uid"]
        if self._conversation:
            self._ask("history", "GET", f"/palaver/v1/conversations/{self._conversation}/messages")
        self._hang_up()  # the next call uses a new connection, like a probe
        self._ask("healthz", "GET", "/healthz")
        self.machine.look()

    def _ask(self, name: str, method: str, path: str, body: bytes | None = None) -> str:
        begun = time.perf_counter()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            answer = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            self._hang_up()
            time.sleep(PAUSE_S)
            return ""
        finally:
            self.seconds[name].append(time.perf_counter() - begun)
        if response.status != 200:
            self.failures.append(f"{name}: status {response.status}: {answer[:300]}")
        return answer

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main() -> None:
    caller = Caller(json.loads(sys.stdin.readline()))
    caller.go_round()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        caller.go_round()
    saw = {
        "seconds": caller.seconds,
        "failures": caller.failures[:20],
        "failed": len(caller.failures),
        "slowness": caller.machine.times,
    }
    print(json.dumps(saw))


if __name__ == "__main__":
    main()
