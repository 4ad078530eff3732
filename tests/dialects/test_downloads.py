"""What somebody uploaded is handed out by every route that serves files, and runs in no browser as a page of ours."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote
from uuid import uuid4

import pytest
from dialects.native import client as native
from dialects.xspace import client as xspace
from support.contract import DIALECTS
from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.core.chat import NewMessage
from palaver.core.types import ApiKey, File, StoredFile, Text

USER = "ann"
SHOWN = ("image/png", "image/jpeg", "audio/mpeg", "text/plain", "Text/Plain; charset=utf-8", "video/mp4")
SAVED = (
    "text/html",
    "TEXT/HTML; charset=utf-8",
    "image/svg+xml",
    "application/xhtml+xml",
    "text/xml",
    "application/pdf",
    "application/javascript",
    "text/css",
    "multipart/x-mixed-replace",
    "application/octet-stream",
    "text/plainly",
    "",
)
Download = Callable[[Served, ApiKey, StoredFile], Answer]


def _native(served: Served, key: ApiKey, file: StoredFile) -> Answer:
    caller = native.Caller(served, key, user=USER)
    return caller.get(f"files/{quote(file.key, safe='')}")


def _xspace_stored(served: Served, key: ApiKey, file: StoredFile) -> Answer:
    return xspace.Caller(served, key).get(f"/api/f/{file.key}")


def _xspace_attached(served: Served, key: ApiKey, file: StoredFile) -> Answer:
    who = served.principal(key, USER)
    agent = served.agent("hello")
    message = NewMessage(parts=(Text(text="x"), File(ref=file.key, name=file.name, media_type="")), trace=uuid4().hex)
    sent = served.do(served.core.chat.send(who, agent, message))
    sent.reader.close()
    return xspace.Caller(served, key).get(f"/api/v1/chat/{sent.conversation.id}/file/{quote(file.name)}")


def _sonaops(served: Served, _key: ApiKey, file: StoredFile) -> Answer:
    return served.ask(Ask(method="GET", path=f"/saas/{file.key.replace('voice/', 'voice-broadcast/')}"))


ROUTES: dict[str, tuple[str, Download]] = {
    "/palaver/v1/files/{key}": ("native", _native),
    "/api/f/{storage}/{target}/{day}/{name}": ("xspace", _xspace_stored),
    "/api/v1/chat/{conversationId}/file/{path}": ("xspace", _xspace_attached),
    "/saas/voice-broadcast/{name}": ("sonaops", _sonaops),
}
WRITTEN_HERE = {
    "application/json",
    "application/problem+json",
    "application/x-ndjson",
    "image/svg+xml",  # the tile of an agent's first letter
    "text/html",  # WPS's consent, with a policy of its own
    "",
}


def test_every_route_that_serves_files_is_looked_at() -> None:
    serving = {
        route.path
        for dialect in DIALECTS.values()
        for route in dialect.routes
        for answer in (route.operation.responses if route.operation else ())
        if answer.media_type not in WRITTEN_HERE and not answer.media_type.startswith("text/event-stream")
    }
    assert serving == ROUTES.keys()


@pytest.mark.parametrize("path", ROUTES)
def test_a_type_that_a_browser_might_run_is_saved_and_nothing_runs(served: Served, path: str) -> None:
    dialect, download = ROUTES[path]
    for media_type in (*SHOWN, *SAVED):
        key = served.key(dialect, default_user=USER)
        uid = uuid4().hex
        stored = f"voice/{uid}.mp3" if dialect == "sonaops" else f"local/default/20260413/{uid}.x"
        file = served.do(
            served.core.services.files.add(
                served.principal(key, USER),
                key=stored,
                name=f"{uid} 菜.x",
                media_type=media_type,
                content=b"<script>alert(1)</script>",
            )
        )
        answer = download(served, key, file)
        assert (answer.status, answer.body) == (200, b"<script>alert(1)</script>")
        kind, _, name = (answer.header("Content-Disposition") or "").partition(";")
        assert kind == ("inline" if media_type in SHOWN and dialect != "native" else "attachment"), media_type
        assert name == f" filename*=UTF-8''{uid}%20%E8%8F%9C.x"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert "sandbox" in (answer.header("Content-Security-Policy") or "").split("; ")
