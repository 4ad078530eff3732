"""The SQL of the store, as a PostgreSQL whose tables are distributed by application can execute it: docs/scaling.md.

Every string of src/palaver/store that is a statement is read, together with the constants that it contains.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.survey import SOURCE, shown, tree

STORE = SOURCE / "store"
ABOUT_DATABASES = {"dump.py", "embedded.py", "migrate.py"}
"""Modules that work on whole databases."""

UNDISTRIBUTED = {"application", "meta", "migration", "credential", "audit"}
"""Every machine has them, or none but the first."""
_SCHEMA = "\n".join(path.read_text(encoding="utf-8") for path in sorted((STORE / "schema").glob("*.sql")))
TABLES = {*re.findall(r"(?m)^CREATE TABLE (\w+)", _SCHEMA), "migration"}
DISTRIBUTED = TABLES - UNDISTRIBUTED

OF_EVERYBODY = {
    "SELECT DISTINCT worker FROM message WHERE status = 'live'": "housekeeping: who has live runs, and is dead",
    "FROM message WHERE status = 'live' AND worker = ANY ($1::integer[])": "housekeeping: the runs of the dead",
    "SELECT app, conversation, id FROM message WHERE status = 'live' AND worker = $1": "housekeeping: its own runs",
    "FROM message WHERE unfolded ORDER BY": "housekeeping: long answers that have ended",
    "DELETE FROM agent_revision WHERE replaced": "housekeeping: expiry",
    "SELECT m.id FROM message m JOIN conversation c ON c.app = m.app": "housekeeping: what it should work on",
    "DELETE FROM claim WHERE expires <= now()": "housekeeping: expiry",
    "DELETE FROM token WHERE expires <= now()": "housekeeping: expiry",
    "DELETE FROM seen_request WHERE expires <= now()": "housekeeping: expiry",
    "SELECT t.* FROM token t, credential c WHERE t.hash = $1": "a token is known before its application",
    "SELECT app FROM token WHERE hash = $1": "a token is known before its application",
    "SELECT * FROM file WHERE key = $1 LIMIT 1": "a URL that has only the key",
    "SELECT g.*, a.name AS app_name FROM agent g JOIN": "an operator's list of all applications",
}
"""How the statements about more than one application begin, or what only they contain, and why there are any."""

_UNKNOWN = "…"
_STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s")
_TABLE = re.compile(r"\b(?:FROM|JOIN|UPDATE|USING|INTO)\s+(\w+)\b(?!\s*\()")
_CTE = re.compile(r"(?:\bWITH|,)\s*(\w+)\s+AS\s+(?:MATERIALIZED\s+)?\(")
_CHANGE = re.compile(r"\b(?:INSERT INTO|(?<!FOR )(?<!KEY )UPDATE|DELETE FROM) (?!SET\b)\w")
_INSERT = re.compile(r"\bINSERT INTO (\w+)(?: AS \w+)? \((\w+)\b.*?\b(?:VALUES \(|SELECT )([\w.$]+)")
_NAMED = re.compile(rf"(?<!OR )(?<![\w.])(?:\w+\.)?app = \$1(?!\d)|\bWHERE {_UNKNOWN}")
_VOLATILE = re.compile(r"\b(nextval|pg_notify|clock_timestamp|random|gen_random_uuid)\s*\(")
_TIME = re.compile(r"\bnow\s*\(|\bcurrent_timestamp\b", re.IGNORECASE)
_LOCKED_JOIN = re.compile(r"(?:\bJOIN\b|\bFROM \w+(?: \w+)?,).*\bFOR (?:NO KEY )?(?:UPDATE|SHARE)\b")


# Rules --------------------------------------------------------------------------------------------------------------


def problems(sql: str, *, of_one_application: bool = True) -> list[str]:
    """What a distributed PostgreSQL would refuse, or do wrong, in a statement on one line."""
    tables = [table for table in _TABLE.findall(sql) if table in TABLES]
    found: list[str] = []
    if tables and "pg_notify" in sql:
        found.append("a notice beside a table: a machine to which nobody listens may send it")
    elif _CHANGE.search(sql) and _VOLATILE.search(sql):
        found.append("a volatile function in a change")
    if any(_TIME.search(clause) for clause in re.findall(r"\bON CONFLICT\b(.*?)(?=\bRETURNING\b|$)", sql)):
        found.append("the time after ON CONFLICT")
    if any(_TIME.search(_enclosed(sql, match.end())) for match in re.finditer(r"\bRETURNING\b", sql)):
        found.append("the time in RETURNING")
    if DISTRIBUTED.intersection(tables) and re.search(r"\bINSERT INTO\b.*\(\s*SELECT\b", sql) and "CONFLICT" in sql:
        found.append("a query in INSERT … ON CONFLICT")
    found += _problems_of_ctes(sql)
    return [*found, *_unnamed_applications(sql, tables)] if of_one_application else found


def _problems_of_ctes(sql: str) -> Iterator[str]:
    parts = {match[1]: _enclosed(sql, match.end()) for match in _CTE.finditer(sql)}
    if not parts:
        return
    changed = None
    for name, body in [*parts.items(), ("the end", _after_ctes(sql))]:
        if changed and not TABLES.isdisjoint(re.findall(r"(?<!DELETE )\b(?:FROM|JOIN) (\w+)", body)):
            yield f"{name} reads a table after {changed} has changed one"
        if _CHANGE.search(body):
            changed = name
        elif _LOCKED_JOIN.search(body) and _CHANGE.search(sql):
            yield f"{name} locks a join, beside a change"
    for match in re.finditer(r"\bEXISTS\s*\(", sql):
        inner = _enclosed(sql, match.end())
        if any(re.search(rf"\b(?:FROM|JOIN) {name}\b", inner) for name in parts):
            yield "EXISTS over a CTE"


def _unnamed_applications(sql: str, tables: list[str]) -> Iterator[str]:
    """Each table needs its own ``app = $1``, and each row that is inserted begins with it."""
    needed = sum(table in DISTRIBUTED for table in tables)
    for table, first, value in _INSERT.findall(sql):
        if table in DISTRIBUTED:
            needed -= 1
            if first != "app" or not re.fullmatch(r"\$1|(?:\w+\.)?app", value):
                yield f"a row of {table} without its application"
    if (named := len(_NAMED.findall(sql))) < needed:
        yield f"{needed} tables, and {named} times their application"


def _enclosed(sql: str, start: int) -> str:
    """The text from ``start`` to the parenthesis that closes, or to the end."""
    depth = 1
    for place in range(start, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[place], 0)
        if not depth:
            return sql[start:place]
    return sql[start:]


def _after_ctes(sql: str) -> str:
    last = [match.end() for match in _CTE.finditer(sql)][-1]
    return sql[last + len(_enclosed(sql, last)) :]


# Statements ---------------------------------------------------------------------------------------------------------


def _text(node: ast.expr, names: Mapping[str, Any], module: Mapping[str, Any]) -> str | None:
    """The string that an expression is; ``…`` stands for what only a call knows. ``names``: the strings of names that
    are local to a function, too."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value, names, module) or _UNKNOWN for value in values)
        case ast.FormattedValue(value=ast.Name() as name):
            return _text(name, names, module)
        case ast.FormattedValue(value=value):
            try:
                return str(eval(compile(ast.Expression(value), "", "eval"), dict(module)))
            except NameError:
                return _UNKNOWN
        case ast.Name(id=name):
            return str(names.get(name, _UNKNOWN))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_text(left, names, module) or _UNKNOWN) + (_text(right, names, module) or _UNKNOWN)
        case _:
            return None


class _Reader(ast.NodeVisitor):
    """Collects the statements of a module. What is only a part of others is read there."""

    def __init__(self, path: Path, module: Mapping[str, Any]) -> None:
        self.found: list[tuple[int, str]] = []
        self._module = module
        self._names = dict(module)
        outer = [node for node in ast.walk(tree(path)) if isinstance(node, ast.JoinedStr | ast.BinOp)]
        self._parts = {name.id for node in outer for name in ast.walk(node) if isinstance(name, ast.Name)}
        for node in ast.walk(tree(path)):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name not in module:
                    self._names[name] = _text(value, self._names, module) or _UNKNOWN
                case _:
                    pass
        self.visit(tree(path))

    def visit_Assign(self, node: ast.Assign) -> None:
        match node.targets:
            case [ast.Name(id=name)] if name in self._parts:
                pass
            case _:
                self.visit(node.value)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            sql = _text(node, self._names, self._module)
            if sql is not None and _STATEMENT.match(sql):
                self.found.append((node.lineno, _on_one_line(sql)))
                return
        super().visit(node)


def _on_one_line(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()


def _statements() -> Iterator[tuple[str, str]]:
    """(place, SQL) of every statement: of strings, of constants made by functions, of functions of the database."""
    for path in sorted(STORE.glob("[a-z]*.py")):
        if path.name in ABOUT_DATABASES:
            continue
        module = vars(importlib.import_module(f"palaver.store.{path.stem}"))
        found = _Reader(path, module)
        yield from ((f"{shown(path)}:{line}", sql) for line, sql in found.found)
    conversations, quotas = (importlib.import_module(f"palaver.store.{name}") for name in ("conversations", "quotas"))
    for name in ("_OLDEST_FIRST", "_NEWEST_FIRST"):
        yield f"conversations.{name}", _on_one_line(vars(conversations)[name])
    for kind, rows in vars(quotas)["_FROM_WHERE"].items():
        yield f"quotas of {kind}", f"SELECT FROM {rows}"
    for name, body in re.findall(r"(?s)CREATE FUNCTION (\w+).*?\$\$(.*?)\$\$", _SCHEMA):
        for command in _on_one_line(body).split("; "):
            if match := re.search(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|PERFORM) .*", command):
                yield f"function {name}", match[0].replace("_app", "$1")


STATEMENTS = list(_statements())


def _reason(sql: str) -> str | None:
    return next((reason for text, reason in OF_EVERYBODY.items() if text in sql), None)


def test_every_statement_can_be_executed_where_its_application_is() -> None:
    wrong = {
        f"{place} {sql}": found
        for place, sql in STATEMENTS
        if (found := problems(sql, of_one_application=_reason(sql) is None))
    }
    assert wrong == {}


def test_every_statement_is_read() -> None:
    assert len(STATEMENTS) > 130
    assert {table for _, sql in STATEMENTS for table in _TABLE.findall(sql)} >= TABLES - {"migration"}
    assert sum(place == "function open_turn" for place, _ in STATEMENTS) == 9


def test_every_exception_is_needed() -> None:
    unused = [text for text in OF_EVERYBODY if not any(text in sql and problems(sql) for _, sql in STATEMENTS)]
    assert unused == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE agent SET name = $2 WHERE app = $1 RETURNING pg_notify('palaver', 'agents')", "a notice beside"),
        ("WITH d AS (DELETE FROM agent WHERE app = $1) SELECT pg_notify('p', 'a')", "a notice beside"),
        ("UPDATE conversation SET queue = queue || nextval('message_id') WHERE app = $1", "a volatile function"),
        ("INSERT INTO agent (app) VALUES ($1) ON CONFLICT (app) DO UPDATE SET modified = now()", "the time after"),
        (
            "INSERT INTO claim AS k (app) VALUES ($1) ON CONFLICT DO UPDATE SET run = excluded.run"
            " WHERE k.expires <= now() RETURNING 1",
            "the time after",
        ),
        ("UPDATE token SET used = true WHERE app = $1 RETURNING *, expires > now()", "the time in RETURNING"),
        (
            "INSERT INTO claim AS k (app) VALUES ($1) ON CONFLICT DO UPDATE SET run = NULL"
            " WHERE NOT EXISTS (SELECT FROM pg_locks l WHERE l.objid = k.worker)",
            "a query in INSERT",
        ),
        (
            "WITH gone AS (DELETE FROM conversation WHERE app = $1 RETURNING id)"
            " SELECT uid FROM gone JOIN message m ON m.app = $1",
            "the end reads a table after gone",
        ),
        (
            "WITH held AS (SELECT c.id FROM conversation c JOIN d ON c.id = d.id WHERE c.app = $1 FOR UPDATE OF c),"
            " ended AS (UPDATE message SET status = 'x' WHERE app = $1) SELECT 1",
            "held locks a join",
        ),
        ("WITH h AS (SELECT 1) DELETE FROM file f WHERE app = $1 AND NOT EXISTS (SELECT FROM h)", "EXISTS over a CTE"),
        ("SELECT m.uid FROM message m JOIN conversation c ON c.app = m.app WHERE m.app = $1", "2 tables, and 1 times"),
        ("UPDATE message m SET parts = d.parts FROM unnest($1) AS d WHERE m.app = d.app", "1 tables, and 0 times"),
        ("INSERT INTO file_piece (file, app) VALUES ($1, $2)", "a row of file_piece without"),
    ],
)
def test_what_a_distributed_database_refuses_is_found(sql: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems(sql)), problems(sql)
