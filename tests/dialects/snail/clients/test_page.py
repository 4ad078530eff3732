"""The vendor's chat page, rebuilt, against a server on a socket: in Node, and in a browser from another origin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, cast
from urllib.parse import quote

import pytest
from dialects.snail.client_b import B, Caller, good
from dialects.snail.client_c import C
from support.http_clients import GUARD
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.dialects.snail import requirements, requirements_c

HERE = Path(__file__).parent
NODE = shutil.which("node")
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
HOST = """<!doctype html>
<meta charset="utf-8">
<title>A shop</title>
<script type="module">
import * as page from './page.mjs'
const [act, gateway, given] = JSON.parse(decodeURIComponent(location.hash.slice(1)))
let seen
try { seen = await page[act](gateway, location.origin, given) } catch (error) { seen = { broken: String(error) } }
await fetch('/seen', { method: 'POST', body: JSON.stringify(seen) })
</script>
<body>
"""

See = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Does an act of the page, and says what it saw."""


def in_node(served: Served, act: str, page_data: dict[str, Any]) -> dict[str, Any]:
    if NODE is None:
        pytest.skip("there is no Node here")
    command = [NODE, str(HERE / "page.mjs"), act, f"{served.base_url}{C}", json.dumps(page_data)]
    seen: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, timeout=6 * GUARD).stdout
    )
    return seen


class Website(ThreadingHTTPServer):
    """A shop's own website with the page on it; what the page has seen is posted back to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        self.seen: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Visit(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        module = self.path == "/page.mjs"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if module else "text/html")
        self.end_headers()
        self.wfile.write((HERE / "page.mjs").read_bytes() if module else HOST.encode())

    def do_POST(self) -> None:
        seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        cast("Website", self.server).seen.put(seen)

    def log_message(self, format: str, *args: Any) -> None: ...


def in_browser(served: Served, profile: Path, act: str, page_data: dict[str, Any]) -> dict[str, Any]:
    """The page on another origin than the gateway."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with Website() as site:
        place = quote(json.dumps([act, f"{served.base_url}{C}", page_data]))
        address = f"http://127.0.0.1:{site.server_address[1]}/#{place}"
        browser = subprocess.Popen(
            [*command, "--remote-debugging-port=0", f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return site.seen.get(timeout=60)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


def embedded(served: Served, agent: int, **settings: Any) -> tuple[Caller, dict[str, Any]]:
    """A shop's program, and what it puts into the page's address for a user of its own."""
    shop = Caller(served, **settings)
    user = shop.register(served.new_name("ann"), nickname="Ann")
    token = good(shop.post(f"{B}/embed-token", openId=user))["token"]
    return shop, {"openId": user, "trustedCredential": token, "agentId": agent}


def check_visit(served: Served, see: See) -> dict[str, Any]:
    agent = served.agent({"think": "用户…"}, {"wait": 0.25}, "Turn ${turn}: ${content}\n\n🙂")
    _, page_data = embedded(served, agent.id)
    seen = see("visit", page_data)
    assert "broken" not in seen, seen
    assert (seen["session"]["nickname"], seen["chosen"]["id"]) == ("Ann", agent.id)
    assert (seen["mine"], seen["mineAfter"]) == ([agent.id], [])
    assert [one["text"] for one in seen["answers"]] == ["Turn 1: 你好\n\n🙂", "Turn 2: 再见\n\n🙂"]
    assert [one["thinking"] for one in seen["answers"]] == ["用户…", "用户…"]
    assert [one["done"]["fullText"] for one in seen["answers"]] == [one["text"] for one in seen["answers"]]
    assert (seen["before"], [one["title"] for one in seen["listed"]], seen["after"]) == ([], ["你好"], [])
    assert [(one["role"], one["content"]) for one in seen["messages"]] == [
        ("user", "你好"),
        ("assistant", "Turn 1: 你好\n\n🙂"),
        ("user", "再见"),
        ("assistant", "Turn 2: 再见\n\n🙂"),
    ]
    assert seen["failure"] == "缺少认证信息，请提供 Snail-Ai-Auth"
    return seen


@shows(requirements_c.c_page, requirements_c.c_session, requirements_c.c_event_names)
def test_a_visit(served: Served) -> None:
    seen = check_visit(served, partial(in_node, served))
    assert seen["config"]["gatewayPath"] == C


@pytest.mark.e2e
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@shows(requirements_c.c_page_browser, requirements_c.c_config_elsewhere)
def test_a_visit_in_a_browser(served: Served, tmp_path: Path) -> None:
    seen = check_visit(served, partial(in_browser, served, tmp_path))
    assert seen["config"]["gatewayPath"] == f"{served.base_url}{C}"


@shows(requirements_c.c_page_stop, requirements.abandoned_runs_are_stopped)
def test_after_its_stop_the_next_message_is_answered_at_once(served: Served) -> None:
    agent = served.agent("turn ${turn}", HOLD)
    _, page_data = embedded(served, agent.id)
    seen = in_node(served, "stopAndGoOn", page_data)
    one, two = seen["turns"]
    assert (one["begun"], one["ended"]) == ("turn 1", "AbortError")
    assert (two["begun"], two["ended"]) == ("turn 2", "AbortError")
    assert two["milliseconds"] < 1000 * GUARD, "it waited for the run that nobody reads"
    assert [(each["role"], each["content"], each["status"]) for each in seen["messages"]] == [
        ("user", "one", 1),
        ("assistant", "turn 1", 1),
        ("user", "two", 1),
    ]
