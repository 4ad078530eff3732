"""Files that a caller names with a message: uploaded ones and addresses, through the vendors' own calls."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.live_server import Served

from palaver.core.types import Agent

SETTINGS = {"fetch_allow": "127.0.0.1"}
USER = "ann"


class Shelf(ThreadingHTTPServer):
    """A web server with two pages and a redirect; ``asked`` are the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.asked: list[str] = []

    def at(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Shelf)
        self.server.asked.append(self.path)
        status, kind, body = {
            "/price.txt": (200, "text/plain; charset=utf-8", "茶 5 元".encode()),
            "/page": (200, "text/html", b"<title>Menu</title><p>Soup <b>4</b></p>"),
            "/inside": (302, self.server.at("/price.txt", "127.0.0.2"), b""),
        }.get(self.path, (404, "text/plain", b"no"))
        self.send_response(status)
        self.send_header("Location" if status == 302 else "Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its failure."""


@contextmanager
def serving_pages() -> Generator[Shelf]:
    with Shelf() as shelf:
        thread = threading.Thread(target=shelf.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield shelf
        finally:
            shelf.shutdown()
            thread.join()


@pytest.fixture
def shelf() -> Generator[Shelf]:
    with serving_pages() as serving:
        yield serving


@pytest.fixture
def reader(served: Served) -> Agent:
    """An agent that says what stands in the files."""
    return served.agent("${files}", name="reader")


@pytest.fixture
def office(served: Served) -> wps.Caller:
    return wps.Caller(served, served.key("wps", default_user=USER))


@pytest.fixture
def space(served: Served) -> xspace.Caller:
    return xspace.Caller(served, default_user=USER)


def test_an_address_is_fetched_and_read(office: wps.Caller, reader: Agent, shelf: Shelf) -> None:
    run_events = office.hear(reader, "?", files=[shelf.at("/price.txt"), shelf.at("/page")])
    assert wps.chunks(run_events) == "茶 5 元\nSoup 4"


def test_what_was_not_read_is_no_file_of_the_answer(office: wps.Caller, space: xspace.Caller, reader: Agent) -> None:
    answer = office.begin(reader, "?", files=["no such file"]).answer()
    session = answer.header("X-Session-Id")
    assert session is not None
    assert [item["files"] for item in office.items(reader, session)] == [["no such file"], []]
    made = space.add(reader)
    body = {"message": "?", "attachments": [{"fileKey": "no such file", "fileName": "a.txt", "mimeType": "text/plain"}]}
    assert "there is no such file" in xspace.joined(xspace.events(space.post(xspace.chat_path(made), body)))
    assert [[file["fileKey"] for file in one["attachments"]] for one in space.messages(made)] == [["no such file"], []]


def test_both_vendors_attach_addresses(space: xspace.Caller, reader: Agent, shelf: Shelf) -> None:
    made = space.add(reader)
    answer = space.post(
        xspace.chat_path(made),
        {"message": "?", "attachments": [{"fileUrl": shelf.at("/page"), "fileName": "menu", "mimeType": "text/html"}]},
    )
    assert xspace.joined(xspace.events(answer)) == "Soup 4"


def test_a_file_uploaded_through_one_dialect_is_read_in_another(
    space: xspace.Caller, office: wps.Caller, reader: Agent
) -> None:
    head = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=b0"}
    kept = xspace.data(space.post("/api/v1/file/upload", head + b"uploaded\r\n--b0--\r\n", headers=form))
    assert wps.chunks(office.hear(reader, "?", files=[kept["key"]])) == "uploaded"
    assert wps.chunks(office.hear(reader, "?", files=[str(kept["id"])])) == "uploaded"


def test_what_was_fetched_is_kept_for_later_turns_and_goes_with_the_conversation(
    served: Served, office: wps.Caller, shelf: Shelf
) -> None:
    quoter = served.agent(model="extract", instructions="")
    first = office.hear(quoter, "What does soup cost?", files=[shelf.at("/page")])
    session = next(event["data"]["session_id"] for event in first if event["event"] == "add_message")
    again = office.hear(quoter, "And the soup?", session_id=session)
    assert "Soup 4" in wps.chunks(first)
    assert "Soup 4" in wps.chunks(again)
    assert shelf.asked == ["/page"]
    fetched = "SELECT count(*) FROM file WHERE key LIKE 'fetched/%' AND conversation = $1"
    (row,) = served.sql("SELECT id FROM conversation ORDER BY id DESC LIMIT 1")
    assert served.sql(fetched, row[0])[0][0] == 1
    wps.data(office.post(f"/v7/devhub/session/{session}/delete"))
    assert served.sql(fetched, row[0])[0][0] == 0


@pytest.mark.parametrize("way", ["named", "redirected"])
def test_an_address_that_is_not_public_is_not_reached(
    office: wps.Caller, reader: Agent, shelf: Shelf, way: str
) -> None:
    url = shelf.at("/price.txt", "127.0.0.2") if way == "named" else shelf.at("/inside")
    text = wps.chunks(office.hear(reader, "?", files=[url]))
    assert text.startswith(f"[{url}: ")
    assert "not public" in text
    assert "/price.txt" not in shelf.asked


def test_a_page_that_is_not_there_does_not_end_the_turn(office: wps.Caller, reader: Agent, shelf: Shelf) -> None:
    text = wps.chunks(office.hear(reader, "?", files=[shelf.at("/none"), "no such key"]))
    assert "404" in text
    assert "[no such key: there is no such file]" in text
