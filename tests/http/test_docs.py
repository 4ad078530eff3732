"""``/openapi.json`` and ``/docs``, as served to programs and to a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import requests
from support.databases import Databases
from support.http_clients import Answer, Ask
from support.kit import run
from support.live_server import Served, serving

import palaver
from palaver.app import all_dialects
from palaver.http.docs import Docs
from palaver.wire.contract import Headers, Response

RENDERER = Path(palaver.__file__).parent / "http" / "renderer"
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
ORIGIN = "https://agents.example.com"


@pytest.fixture(scope="module")
def served(cluster: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data")) as server:
        yield server
    run(cluster.release(name))


@pytest.fixture(scope="module")
def handbook() -> Docs:
    return Docs(all_dialects(), None)


async def reply(handbook: Docs, path: str, query: str = "", **headers: str) -> Response:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return await handbook.reply(path, query, Headers(raw), ORIGIN)


def get(served: Served, path: str, query: str = "", method: str = "GET") -> Answer:
    return served.ask(Ask(method=method, path=path, query=query))


def test_every_link_of_the_home_page_works(served: Served) -> None:
    page = requests.get(f"{served.base_url}/", headers={"Accept": "text/html"}, timeout=20)
    assert page.status_code == 200
    for link in re.findall(r'href="([^"]+)"', page.text):
        assert requests.get(f"{served.base_url}/{link}", timeout=20).status_code == 200, link
    body = requests.get(f"{served.base_url}/", headers={"Accept": "application/json"}, timeout=20).json()
    for place in body["places"].values():
        assert requests.get(f"{served.base_url}{place}", timeout=20).status_code == 200, place
    assert requests.head(f"{served.base_url}/", timeout=20).headers["Content-Type"] == page.headers["Content-Type"]
    assert requests.post(f"{served.base_url}/", timeout=20).status_code == 404


# The document -------------------------------------------------------------------------------------------------------


def test_the_document_is_public_and_names_the_requested_server(served: Served) -> None:
    answer = requests.get(f"{served.base_url}/openapi.json", timeout=20)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    content = answer.json()
    assert content["servers"] == [{"url": served.base_url}]
    assert content["info"]["version"] == palaver.__version__
    assert set(content["paths"]) == {route.path for dialect in all_dialects() for route in dialect.routes}


async def test_the_document_can_be_limited_to_one_dialect(handbook: Docs) -> None:
    for dialect in all_dialects():
        content = json.loads((await reply(handbook, "/openapi.json", f"dialect={dialect.name}")).body)
        assert set(content["paths"]) == {route.path for route in dialect.routes}
        assert all(name.startswith(f"{dialect.name}.") for name in content["components"]["schemas"])
    refused = await reply(handbook, "/openapi.json", "dialect=klingon")
    assert refused.status == 404
    assert json.loads(refused.body)["dialects"] == [dialect.name for dialect in all_dialects()]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/swagger-ui.css"])
async def test_a_cached_document_is_not_sent_again(handbook: Docs, path: str) -> None:
    first = await reply(handbook, path)
    tag = dict(first.headers)["ETag"]
    again = await reply(handbook, path, if_none_match=f'"x", W/{tag}')
    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert dict(again.headers)["ETag"] == tag
    assert (await reply(handbook, path, if_none_match='"x"')).status == 200


async def test_the_document_is_generated_once(handbook: Docs) -> None:
    await reply(handbook, "/openapi.json")
    made = dict(handbook._rendered)  # pyright: ignore[reportPrivateUsage]
    assert (await reply(handbook, "/openapi.json")).body == (await reply(handbook, "/openapi.json")).body
    assert handbook._rendered[""] is made[""]  # pyright: ignore[reportPrivateUsage]


# The page -----------------------------------------------------------------------------------------------------------


def test_the_files_that_the_page_references_exist(served: Served) -> None:
    page = get(served, "/docs")
    assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
    assert set(named) > {"docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "openapi.json"}
    for name in named:
        assert "//" not in name
        answer = get(served, f"/{name}")
        assert (answer.status, answer.header("X-Content-Type-Options")) == (200, "nosniff")
        kind = {"js": "text/javascript", "css": "text/css", "png": "image/png", "json": "application/json"}
        assert (answer.header("Content-Type") or "").startswith(kind[name.rpartition(".")[2]])


async def test_the_page_may_connect_only_to_this_server() -> None:
    async def policy(site_url: str | None) -> dict[str, str]:
        headers = dict((await reply(Docs(all_dialects(), site_url), "/docs")).headers)
        rules = (rule.strip().partition(" ") for rule in headers["Content-Security-Policy"].split(";"))
        return {name: value for name, _, value in rules}

    allowed = await policy(None)
    assert allowed.pop("img-src") == "'self' data:"
    assert set(allowed.values()) == {"'none'", "'self'"}
    assert allowed["default-src"] == "'none'"
    assert (await policy(ORIGIN))["connect-src"] == f"'self' {ORIGIN}"
    assert "validatorUrl: null" in (RENDERER / "start.js").read_text()


def test_the_page_s_path_with_a_trailing_slash_redirects_to_the_one_without(served: Served) -> None:
    answer = get(served, "/docs/")
    assert (answer.status, answer.header("Location"), answer.body) == (308, "../docs", b"")


@pytest.mark.parametrize("path", ["/docs/nothing.js", "/docs/../app.py", "/docs/%2e%2e/app.py", "/docs/index.html"])
def test_other_paths_are_not_found(served: Served, path: str) -> None:
    assert get(served, path).status == 404


def test_only_get_and_head_are_served(served: Served) -> None:
    assert get(served, "/docs", method="POST").status == 404
    assert get(served, "/openapi.json", method="HEAD").status == 200


def test_no_dialect_claims_a_path_of_the_documentation() -> None:
    taken = [prefix for dialect in all_dialects() for prefix in dialect.prefixes]
    assert [prefix for prefix in taken if Docs.covers(prefix) or "/docs/".startswith(prefix)] == []


def test_the_renderer_is_shipped_with_its_licences() -> None:
    assert "Apache License" in (RENDERER / "LICENSE").read_text()
    assert "SmartBear" in (RENDERER / "NOTICE").read_text()
    assert "MIT License" in (RENDERER / "swagger-ui-bundle.js.LICENSE.txt").read_text()


@pytest.mark.e2e
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_every_operation(served: Served, tmp_path: Path) -> None:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    completed = subprocess.run(
        [*command, f"{served.base_url}/docs"], check=True, capture_output=True, text=True, timeout=60
    )
    paths = re.findall(r'data-path="([^"]+)"', completed.stdout)
    assert sorted(paths) == sorted(route.path for dialect in all_dialects() for route in dialect.routes)
    assert "Content Security Policy" not in completed.stderr
