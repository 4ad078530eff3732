"""What derives from a conversation goes with it, whoever deletes it; of a forgotten end user nothing is left.

Every test plants one word wherever a caller can leave words, and looks for it in every table.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from dialects.native.client import Caller, good, problem
from dialects.snail import client_b as snail
from support.adapters import dialect_clients
from support.commands import PALAVER
from support.dialect_clients import USER
from support.http_clients import GUARD
from support.kit import until
from support.live_server import APPLICATION, HOLD, MASTER_KEY, Served

from palaver.core.types import Agent, Token, new_uid
from palaver.store.driver import connect

WORD = "xyzzymarker"
TEXT = {"Content-Type": "text/plain"}


def tables_with(served: Served, word: str) -> dict[str, int]:
    """How many rows of which table have ``word`` in them, in plain letters or in bytes."""
    names = [row["name"] for row in served.sql("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")]
    assert {"message", "conversation", "file", "file_piece", "claim", "end_user", "token"} <= set(names)
    counts = {
        name: served.sql(
            f'SELECT count(*) AS n FROM "{name}" r WHERE r::text ILIKE $1 OR r::text LIKE $2',
            f"%{word}%",
            f"%{word.encode().hex()}%",
        )[0]["n"]
        for name in names
    }
    return {name: count for name, count in counts.items() if count}


def planted(served: Served, agent: Agent, word: str) -> tuple[Caller, str]:
    """A conversation with ``word`` in everything that belongs to it; its UUID."""
    caller = Caller(served, user=USER)
    made = {"Idempotency-Key": f"make-{word}"}
    body = {"agent": agent.id, "title": word, "variables": {"x": word}}
    conversation = good(caller.ask("POST", "conversations", body, headers=made), 201)
    assert good(caller.ask("POST", "conversations", body, headers=made), 201) == conversation
    query = {"query": f"name={word}.txt", "headers": {**TEXT, "Idempotency-Key": f"up-{word}"}}
    key = good(caller.ask("POST", "files", word.encode(), **query), 201)["key"]
    path = f"conversations/{conversation['uid']}/messages"
    answer = caller.ask("POST", path, {"content": word, "files": [key]}, headers={"Idempotency-Key": f"say-{word}"})
    assert good(answer)["answer"]["status"] == "complete"
    return caller, conversation["uid"]


WAYS = ("native", "wps", "xspace", "snail", "snail clear", "agent", "application")


@pytest.mark.parametrize("way", WAYS)
def test_what_derives_from_a_conversation_goes_with_it(served: Served, way: str) -> None:
    word = sha256(way.encode()).hexdigest()[:12]
    agent = served.agent("so be it")
    _, conversation = planted(served, agent, word)
    there = tables_with(served, word)
    assert {"conversation", "message", "file", "file_piece", "claim"} <= set(there)
    store = served.core.store
    match way:
        case "agent":
            served.do(store.agents.delete(agent))
        case "application":
            served.do(store.applications.delete(APPLICATION))
        case "snail clear":
            caller = snail.Caller(served)
            snail.good(caller.delete(f"{snail.CONVERSATIONS}", agentId=agent.id, openId=USER))
        case name:
            delete = dialect_clients(served, agent)[name].delete
            assert delete is not None
            delete(conversation)
    assert tables_with(served, word) == {}


def test_every_way_to_delete_a_conversation_is_tried(served: Served) -> None:
    agent = served.agent("x")
    assert {name for name, client in dialect_clients(served, agent).items() if client.delete is not None} < set(WAYS)


GATE = (
    "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7007); RETURN OLD; END'",
    "CREATE TRIGGER gate BEFORE DELETE ON conversation FOR EACH ROW EXECUTE FUNCTION gate()",
)


@pytest.mark.parametrize("other", ["a conversation", "an agent"])
def test_a_file_goes_with_the_last_of_two_conversations_deleted_at_the_same_moment(served: Served, other: str) -> None:
    """Nobody's deletion is done before both have begun."""
    word = sha256(f"race {other}".encode()).hexdigest()[:12]
    first, second = served.agent("so be it"), served.agent("so be it")
    caller, conversation = planted(served, first, word)
    (file,) = served.sql("SELECT key FROM file WHERE name = $1", f"{word}.txt")
    more = good(caller.ask("POST", "conversations", {"agent": second.id}), 201)["uid"]
    good(caller.ask("POST", f"conversations/{more}/messages", {"content": word, "files": [file["key"]]}))

    who, store, chat = served.principal(caller.key, USER), served.core.store, served.core.chat

    async def race() -> None:
        gate = await connect(str(served.settings.database_url), timeout=10)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"

        async def both_wait() -> bool:
            return await gate.fetchval(waiting) >= 2

        try:
            await gate.execute("SELECT pg_advisory_lock(7007)")
            last = store.agents.delete(second) if other == "an agent" else chat.delete_conversation(who, UUID(more))
            deletions = [
                asyncio.ensure_future(one) for one in (chat.delete_conversation(who, UUID(conversation)), last)
            ]
            await until(both_wait, True)
            await gate.execute("SELECT pg_advisory_unlock(7007)")
            await asyncio.gather(*deletions)
        finally:
            await gate.close()

    for statement in GATE:
        served.sql(statement)
    try:
        served.do(race())
    finally:
        served.sql("DROP TRIGGER gate ON conversation")
        served.sql("DROP FUNCTION gate")
    assert tables_with(served, word) == {}


def test_of_a_forgotten_end_user_no_table_knows_anything(served: Served, tmp_path: Path) -> None:
    agent = served.agent("so be it")
    caller, conversation = planted(served, agent, WORD)
    live = caller.stream(served.agent(HOLD), WORD)
    assert live.head().status == 200
    assert b"run.created" in (live.write() or b"")
    registered = snail.Caller(served)
    snail.good(registered.post("/snail-ai/openapi/v1/user/register", externalId=USER, nickname=WORD, avatarUrl=WORD))
    store, key = served.core.store, served.key("wps")
    (owner,) = served.sql("SELECT id FROM application WHERE name = $1", APPLICATION)
    token = Token(
        app=owner["id"], credential=key.number, generation=1, family=new_uid(), kind="refresh", user=USER, scopes=(),
        redirect=WORD, expires=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    served.do(store.tokens.issue(token, "secret"))
    assert {"end_user", "token"} <= set(tables_with(served, WORD))

    lines = palaver(served, tmp_path, "user", "export", USER, "--app", APPLICATION, "--files", str(tmp_path / "files"))
    kinds = [json.loads(line)["type"] for line in lines.splitlines()]
    assert (kinds[0], set(kinds)) == ("user", {"user", "conversation", "message", "file"})
    assert WORD in lines
    assert [path.read_bytes() for path in (tmp_path / "files").iterdir()] == [WORD.encode()]

    receipt = json.loads(palaver(served, tmp_path, "user", "forget", USER, "--app", APPLICATION, "--json"))
    removed = receipt["removed"]
    assert (receipt["user"], removed["users"], removed["files"], removed["tokens"]) == (USER, 1, 1, 1)
    assert (removed["conversations"], removed["messages"], removed["runs"]) == (2, 4, 2)
    assert b"stopped" in b"".join(live.rest())
    assert tables_with(served, WORD) == {}
    assert [row for row in served.sql("SELECT * FROM audit") if USER in str(row["arguments"])] == []

    again = json.loads(palaver(served, tmp_path, "user", "forget", USER, "--app", APPLICATION, "--json"))
    assert set(again["removed"].values()) == {0}
    problem(caller.get(f"conversations/{conversation}"), 404, "not_found")
    assert caller.begin(agent)["answer"]["status"] == "complete"


def palaver(served: Served, folder: Path, *arguments: str) -> str:
    """What a command on the server's database prints."""
    settings = {
        "PALAVER_DATABASE_URL": str(served.settings.database_url),
        "PALAVER_MASTER_KEY": MASTER_KEY,
        "PALAVER_DATA": str(folder / "data"),
    }
    done = subprocess.run(
        [PALAVER, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=GUARD,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
