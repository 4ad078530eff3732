"""The files in ``deploy/``, as far as they can be tested without containers and without systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import requests
import yaml
from dialects.wps.client import now, signed
from support.databases import Databases
from support.http_clients import Ask
from support.nginx import PROGRAM, STARTS_WITHIN
from support.server_process import PALAVER, Installation, free_port, heard, lines
from support.tcp_proxies import Neighbours, neighbours

from palaver.config import Settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NGINX, COMPOSE, DOCKERFILE, UNIT = (
    DEPLOY / name for name in ("nginx.conf", "compose.yaml", "Dockerfile", "palaver.service")
)
FOREIGN = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "FORWARDED_ALLOW_IPS"}
"""Variables that are not settings, and are heeded."""
ENDS_WITHIN = Settings().drain_s + Settings().stop_s
"""Seconds after which a server that was told to end has killed its last worker."""


# nginx --------------------------------------------------------------------------------------------------------------


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for pattern, instead in changes:
        text, count = re.subn(pattern, instead, text, flags=re.MULTILINE)
        assert count == 1, f"{pattern} is there {count} times"
    return text


def configuration(folder: Path, port: int, servers: tuple[Installation, ...]) -> str:
    """The file as it is shipped, but for where it listens, writes and finds the servers."""
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return ("user root;\n" if os.getuid() == 0 else "") + replaced(
        NGINX.read_text(),
        (r"^pid .*;", f"pid {folder}/pid;"),
        (r"/dev/stderr", f"{folder}/error.log"),
        (r"^(\s*)access_log off;", rf"\1access_log off; {temporary}"),
        (r"^(\s*)listen 80;", rf"\1listen 127.0.0.1:{port};"),
        *((rf"palaver-{number}:8080", f"127.0.0.1:{one.port}") for number, one in enumerate(servers, 1)),
    )


@contextmanager
def fronted(servers: tuple[Installation, ...], folder: Path) -> Generator[Installation]:
    """Those servers as callers meet them: behind nginx, at one address."""
    assert PROGRAM is not None
    door = Installation(folder)
    settings = folder / "nginx.conf"
    settings.write_text(configuration(folder, door.port, servers))
    words = [PROGRAM, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(settings), "-g", "daemon off;"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as proxy:
        try:
            until = time.monotonic() + STARTS_WITHIN
            while _status(door, "/healthz") != 200:
                assert proxy.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < until
            yield door
        finally:
            proxy.terminate()
            proxy.wait(STARTS_WITHIN)


def _status(door: Installation, path: str) -> int:
    try:
        return requests.get(f"{door.url}{path}", timeout=5).status_code
    except requests.ConnectionError:
        return 0


@pytest.fixture(scope="module")
def pair(cluster: Databases) -> Generator[Neighbours]:
    with neighbours(cluster) as two:
        for server in two.servers:
            server.start()
        yield two
        for server in two.servers:
            server.stop()


@pytest.fixture(scope="module")
def door(pair: Neighbours, tmp_path_factory: pytest.TempPathFactory) -> Generator[Installation]:
    if PROGRAM is None and not os.environ.get("CI"):
        pytest.skip("nginx is not installed")
    with fronted(pair.servers, tmp_path_factory.mktemp("nginx")) as address:
        yield address


def test_a_stream_comes_through_at_once_and_is_taken_up_on_either_server(pair: Neighbours, door: Installation) -> None:
    key, agent = pair.key(), pair.agent("begun", {"wait": 1.5}, " and done")
    repeated = {"Idempotency-Key": "through-nginx"}
    first = lines(door.chat(key.secret, agent.id, headers=repeated))
    assert next(first)["content"] == "begun"
    assert pair.sql("SELECT 1 FROM message WHERE status = 'live'"), "the run is still at work"
    again = [door.chat(key.secret, agent.id, headers=repeated) for _ in range(3)]  # least_conn: to both servers
    for stream in (first, *map(lines, again)):
        events, broken_off = heard(stream)
        assert (events[-1]["fullText"], broken_off) == ("begun and done", False)
    for server in pair.servers:
        assert "/snail-ai/open-api/chat" in server.log.read_text(), "both have served"


def test_a_broken_stream_is_broken_for_the_caller_and_later_calls_go_to_the_other_server(
    pair: Neighbours, door: Installation
) -> None:
    key, agent, quick = pair.key(), pair.agent("begun", {"wait": 60}), pair.agent("hello")
    streams = [lines(door.chat(key.secret, agent.id)) for _ in range(2)]
    assert [next(stream)["content"] for stream in streams] == ["begun"] * 2
    pair.second.stop(signal.SIGKILL)
    try:
        for _ in range(5):
            assert list(lines(door.chat(key.secret, quick.id)))[-1]["fullText"] == "hello"
    finally:
        pair.second.start()
    pair.first.stop()  # with drain_s 0: what it worked on is interrupted
    assert [heard(stream)[1] for stream in streams] == [True, True]
    pair.first.start()


def test_the_path_a_caller_signed_and_a_large_upload_pass_and_figures_do_not(
    pair: Neighbours, door: Installation
) -> None:
    assert _status(door, "/metrics") == 404
    assert _status(pair.first, "/metrics") == 200
    by_wps = pair.key("wps")
    asked = Ask(method="GET", path="/v7/devhub/app/a%2Fb%E4%BD%A0/detail", query="x=%20")
    headers = signed(by_wps.id, by_wps.secret, asked, date=now(), media_type="")
    strange = requests.get(f"{door.url}{asked.path}?{asked.query}", headers=headers, timeout=5)
    assert (strange.status_code, strange.json()["code"]) == (404, 404000002), strange.text
    key = pair.key("xspace")
    answer = requests.post(
        f"{door.url}/api/v1/file/upload",
        files={"file": ("large.txt", b"x" * 3_000_000, "text/plain")},
        headers={"Authorization": f"Bearer {key.secret}"},
        timeout=20,
    )
    assert answer.json()["code"] == "0000", answer.text


def test_nginx_waits_as_long_and_takes_as_much_as_the_servers_do() -> None:
    text = NGINX.read_text()
    settings = Settings()
    assert int(re.findall(r"proxy_read_timeout (\d+)s", text)[0]) > settings.run_timeout_s
    assert int(re.findall(r"client_max_body_size (\d+)m", text)[0]) * 2**20 > settings.max_upload_bytes
    assert "proxy_buffering off;" in text


# Compose ------------------------------------------------------------------------------------------------------------


def composed() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def replicas() -> dict[str, Any]:
    services: dict[str, Any] = composed()["services"]
    return {name: service for name, service in services.items() if service["image"] == "palaver"}


def test_the_compose_file_says_only_what_palaver_knows() -> None:
    assert len(replicas()) == 2
    for service in replicas().values():
        names = set(service["environment"])
        settings = {f"PALAVER_{name.upper()}" for name in Settings.__struct_fields__}
        assert names <= settings | FOREIGN
        assert {"PALAVER_MASTER_KEY", "PALAVER_DATABASE_URL"} <= names
        assert _seconds(service["stop_grace_period"]) > ENDS_WITHIN
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


def test_the_services_of_the_compose_file_find_each_other() -> None:
    services = composed()["services"]
    assert set(re.findall(r"server ([\w-]+):8080", NGINX.read_text())) == set(replicas())
    assert services["nginx"]["volumes"] == ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
    assert services["nginx"]["ports"][0].endswith(":80")
    database = services["postgres"]["environment"]
    for service in replicas().values():
        address = service["environment"]["PALAVER_DATABASE_URL"]
        user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
        assert re.fullmatch(rf"postgresql://{user}:\$\{{POSTGRES_PASSWORD:\?[^}}]*\}}@postgres/{name}", address)
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    for command in re.findall(r"exec palaver-1 (palaver .*)", COMPOSE.read_text()):
        assert (
            subprocess.run([PALAVER, *command.split()[1:3], "--help"], check=False, capture_output=True).returncode == 0
        )


def _seconds(said: str) -> float:
    return float(said.removesuffix("s"))


# The image ----------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, in order."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [(line.split()[0], " ".join(line.split()[1:])) for line in text.splitlines() if line.strip()]


def test_the_image_copies_what_there_is_and_all_that_the_package_is_built_from() -> None:
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        word for what, rest in instructions() if what == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in kept, name
    assert {"README.md", "docs", "src", "pyproject.toml", "LICENSE"} <= set(copied)


def test_the_image_installs_by_hash_runs_as_nobody_special_and_says_whether_it_is_ready() -> None:
    said = dict(instructions())
    installs = [rest for what, rest in instructions() if what == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert "--require-hashes -r requirements/run.txt" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]
    assert said["USER"] == "palaver"
    assert [what for what, _ in instructions()].index("USER") > max(
        place for place, (what, _) in enumerate(instructions()) if what == "RUN"
    )
    assert json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"]) == ["palaver", "serve"]
    assert f"PALAVER_DATA={said['VOLUME']}" in said["ENV"].split()
    assert said["EXPOSE"] == str(Settings().port)
    bases = {rest.split()[0] for what, rest in instructions() if what == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.1\d-slim", bases.pop()), "an official image, built and run on the same"


def test_the_health_check_of_the_image_is_good_for_a_server_that_is_ready(pair: Neighbours) -> None:
    check = cast("list[str]", json.loads(dict(instructions())["HEALTHCHECK"].partition(" CMD ")[2]))
    assert check[:2] == ["python", "-c"]
    for port, good in ((pair.first.port, True), (free_port(), False)):
        words = [str(Path(PALAVER).with_name("python")), "-c", check[2].replace(str(Settings().port), str(port))]
        assert (subprocess.run(words, check=False, capture_output=True, timeout=20).returncode == 0) == good


# systemd ------------------------------------------------------------------------------------------------------------


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)  # a name may be said again: SystemCallFilter
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_gives_a_server_the_time_to_end_in_order() -> None:
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) > ENDS_WITHIN
    assert (service["KillMode"], service["Restart"]) == ("mixed", "on-failure")
    assert service["Environment"] == f"PALAVER_DATA=/var/lib/{service['StateDirectory']} PALAVER_DEMO=false"
    assert service["ExecStart"].endswith("/palaver serve")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_and_finds_little_that_it_exposes(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(replaced(UNIT.read_text(), (r"^ExecStart=\S+", f"ExecStart={PALAVER}")))
    for words in (["verify", str(copy)], ["security", "--offline=true", "--threshold=20", str(copy)]):
        done = subprocess.run(["systemd-analyze", *words], check=False, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_is_deployed_makes_the_demo_by_itself() -> None:
    image = DOCKERFILE.read_text()
    assert re.search(r"^ENV .*\bPALAVER_DEMO=false\b", image, re.MULTILINE)
    assert re.search(r"^Environment=.*\bPALAVER_DEMO=false\b", UNIT.read_text(), re.MULTILINE)
    for service in replicas().values():
        assert service["environment"]["PALAVER_DEMO"] == "${PALAVER_DEMO:-false}"
