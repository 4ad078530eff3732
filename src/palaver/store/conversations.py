"""The tables of conversations and of their messages."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID

import msgspec

from palaver.core.events import Piece, join
from palaver.core.ports.store import ConversationQuery, MessagePage, Pause
from palaver.core.problems import Problem
from palaver.core.types import (
    MAX_ID,
    Agent,
    AnyPart,
    Conversation,
    Message,
    Principal,
    Ref,
    RunEnded,
    Status,
    Usage,
    User,
    clean,
    clean_json,
    new_uid,
    parse_uid,
)
from palaver.store.database import Database, Row
from palaver.store.quotas import Quotas

_COLUMNS = (
    "app, id, uid, end_user, agent, alias, title, opening, created, modified, icon, summary, variables, last_status,"
    " queue"
)
C_COLUMNS = ", ".join(f"c.{name}" for name in _COLUMNS.split(", "))
"""The columns of a conversation ``c``, for ``conversation_from_row``."""
YIELD_ABOVE_BYTES = 262_144
"""Bytes of a message above which reading yields to the event loop before the next one."""

decode_parts = msgspec.json.Decoder(tuple[AnyPart, ...]).decode
_pause = msgspec.json.Decoder(Pause).decode
_usage = msgspec.json.Decoder(Usage).decode


class ConversationTable:
    """Conversations of end users. Live runs keep a conversation's ``queue`` of message ids: see store/runs.py."""

    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

    async def create(
        self,
        principal: Principal,
        user: User,
        agent: Agent,
        *,
        alias: str | None = None,
        title: str | None = None,
        variables: dict[str, Any] | None = None,
    ) -> Conversation:
        await self._quotas.require_room_for_conversation(principal.app, user.id)
        row = await self._db.fetchrow(
            "INSERT INTO conversation (app, uid, end_user, agent, alias, title, variables)"
            f" VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}",
            principal.app,
            new_uid(),
            user.id,
            agent.id,
            alias,
            title,
            None if variables is None else json_text(variables),
        )
        assert row is not None
        self._quotas.record_conversation(principal.app, user.id)
        return conversation_from_row(row)

    async def get(self, app_id: int, user_id: int, ref: Ref) -> Conversation | None:
        row = await self._db.fetchrow(
            f"SELECT {_COLUMNS} FROM conversation c WHERE {NAMED}", *ref_parameters(app_id, user_id, ref)
        )
        return None if row is None else conversation_from_row(row)

    async def list_page(self, app_id: int, user_id: int, query: ConversationQuery) -> list[Conversation]:
        after = query.after or (None, None)
        columns = _COLUMNS.replace("variables", "CASE WHEN with_variables THEN variables END AS variables")
        rows = await self._db.fetch(
            f"SELECT {columns}, with_variables FROM (SELECT *, $11::bigint > 0 AND (row_number() OVER listed = 1"
            " OR coalesce(sum(CASE WHEN $11 > 0 THEN octet_length(variables::text) END) OVER listed, 0) <= $11)"
            f" AS with_variables FROM (SELECT {_COLUMNS} FROM conversation WHERE {_FILTER}"
            " AND ($6::timestamptz IS NULL OR (modified, id) < ($6, $7::bigint))"
            " AND ($8::bigint IS NULL OR id < $8)"
            " ORDER BY modified DESC, id DESC LIMIT $9 OFFSET $10) c"
            " WINDOW listed AS (ORDER BY modified DESC, id DESC)) c ORDER BY modified DESC, id DESC",
            *_filter_values(app_id, user_id, query),
            *after,
            query.below,
            query.limit,
            query.offset,
            query.max_variables_bytes,
        )
        return [conversation_from_row(row, with_variables=row["with_variables"]) for row in rows]

    async def count(self, app_id: int, user_id: int, query: ConversationQuery) -> int:
        sql = f"SELECT count(*) FROM conversation WHERE {_FILTER}"
        return await self._db.fetchval(sql, *_filter_values(app_id, user_id, query))

    async def rename(
        self, app_id: int, user_id: int, ref: Ref, *, title: str, icon: str | None = None
    ) -> Conversation | None:
        row = await self._db.fetchrow(
            "UPDATE conversation c SET title = $6, icon = coalesce($7, icon), modified = now()"
            f" WHERE {NAMED} RETURNING {_COLUMNS}",
            *ref_parameters(app_id, user_id, ref),
            title,
            icon,
        )
        return None if row is None else conversation_from_row(row)

    async def delete(self, app_id: int, user_id: int, ref: Ref) -> list[UUID] | None:
        return await self._delete(NAMED, *ref_parameters(app_id, user_id, ref))

    async def delete_all(self, app_id: int, user_id: int, agent_id: int) -> list[UUID]:
        return await self._delete("c.app = $1 AND c.end_user = $2 AND c.agent = $3", app_id, user_id, agent_id) or []

    async def _delete(self, condition: str, *parameters: Any) -> list[UUID] | None:
        rows = await self._db.transaction(
            deletion_statements(
                condition,
                " deleted AS (DELETE FROM conversation WHERE app = $1 AND id IN (SELECT id FROM held) RETURNING id)"
                " SELECT a.uid FROM deleted d LEFT JOIN answers a ON a.conversation = d.id AND a.status = 'live'"
                " ORDER BY a.id DESC",
                *parameters,
            )
        )
        return [row["uid"] for row in rows if row["uid"] is not None] if rows else None

    async def get_messages(
        self,
        app_id: int,
        conversation_id: int,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int,
        max_bytes: int,
        always_one: bool = True,
    ) -> MessagePage:
        if limit < 1:
            return MessagePage()
        sql = _NEWEST_FIRST if after is None else _OLDEST_FIRST
        lower_id, upper_id = after or 0, MAX_ID if before is None else before
        rows = await self._db.fetch(sql, app_id, conversation_id, lower_id, upper_id, limit, max_bytes, not always_one)
        messages: list[Message] = []
        size_read, next_message = 0, None
        for row in rows:
            if row["over"]:
                next_message = row["reached"]
                continue
            messages.append(message_from_row(row))
            size_read += row["size"]
            if row["size"] > YIELD_ABOVE_BYTES:
                await asyncio.sleep(0)  # yield to other tasks between long messages
        return MessagePage(messages=tuple(messages), size=size_read, next=next_message)

    async def find_message_id_before_newest(
        self, app_id: int, conversation_id: int, *, before: int | None, limit: int
    ) -> int:
        return await self._db.fetchval(
            "SELECT coalesce(min(id), 1) - 1 FROM (SELECT m.id FROM message m"
            " WHERE m.app = $1 AND m.conversation = $2 AND m.id < $3 ORDER BY m.id DESC LIMIT $4) m",
            app_id,
            conversation_id,
            MAX_ID if before is None else before,
            limit,
        )


_HELD_FILES = """
SELECT 1 FROM file WHERE app = $1 AND id IN (
    SELECT a.file FROM attachment a WHERE a.app = $1 AND a.conversation IN (SELECT id FROM held)
) ORDER BY id FOR UPDATE"""
"""A separate statement before one with ``_GOES_WITH``: locks the files attached to the conversations ``held``. Of two
transactions that delete conversations with the same file, the second waits here, then sees the first one's result."""
_GOES_WITH = """
attached AS MATERIALIZED (
    SELECT file FROM attachment WHERE app = $1 AND conversation IN (SELECT id FROM held)
),
shared AS MATERIALIZED (
    SELECT file FROM attachment
    WHERE app = $1 AND file IN (SELECT file FROM attached) AND conversation NOT IN (SELECT id FROM held)
),
answers AS MATERIALIZED (
    SELECT conversation, id, uid, status FROM message
    WHERE app = $1 AND conversation IN (SELECT id FROM held) AND role = 'assistant'
),
orphans AS (
    DELETE FROM file
    WHERE app = $1 AND id IN (SELECT file FROM attached) AND id NOT IN (SELECT file FROM shared)
),
claims AS (DELETE FROM claim WHERE app = $1 AND run IN (SELECT uid FROM answers)),"""
"""CTEs for a statement that deletes the conversations ``held``: they delete the files attached to no other one, and the
idempotency keys that started their runs, which are among the ``answers``. All is read before anything is deleted: if
tables are distributed, a CTE may see what an earlier one did."""

_FILTER = (
    "app = $1 AND end_user = $2 AND ($3::bigint IS NULL OR agent = $3) AND (NOT $4::boolean OR title IS NOT NULL)"
    " AND ($5::text IS NULL OR position(lower($5) IN lower(title)) > 0)"
)


def deletion_statements(condition: str, then: str, *parameters: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """Statements, for one transaction, that delete what belongs to the conversations ``c`` matching ``condition``, all
    of application $1, and run ``then``, which finds them as ``held`` and their ``answers``. Locked in the same order
    as in store/runs.py."""
    held = f"WITH held AS MATERIALIZED (SELECT c.id FROM conversation c WHERE {condition} ORDER BY c.id FOR UPDATE)"
    return [(held + _HELD_FILES, parameters), (f"{held},{_GOES_WITH}{then}", parameters)]


def _filter_values(app_id: int, user_id: int, listing: ConversationQuery) -> tuple[Any, ...]:
    return app_id, user_id, listing.agent, listing.titled, listing.containing


PIECE_TEXTS = "array_agg(p.start || ' ' || p.continues || p.parts::text ORDER BY p.start)"
"""The pieces ``p`` of a message, for ``pieces_from_row``."""
PIECES = (
    f"CASE WHEN m.status = 'live' OR m.unfolded THEN (SELECT {PIECE_TEXTS} FROM message_piece p"
    " WHERE p.app = $1 AND p.conversation = m.conversation AND p.message = m.id) END AS pieces"
)
"""The column ``pieces`` of a message ``m``, for ``message_from_row``."""
# A continuation is framed by '[{"text": "", "type": "text"}]'.
_PIECES_SIZE = (
    "coalesce((SELECT sum(octet_length(p.parts::text) - 30 * p.continues::integer) FROM message_piece p"
    " WHERE p.app = $1 AND p.conversation = n.conversation AND p.message = n.id), 0)::bigint"
)


def _history_sql(*, ascending: bool) -> str:
    """The statement for the messages between two ids, from one end, up to a number and a size limit. A recursive CTE
    steps from each message to the next, so it reads only one message beyond the limit: ``reached``."""
    comparison, order = ("n.id > w.id", "") if ascending else ("n.id < w.id", " DESC")
    first = (
        "SELECT n.id, n.uid, octet_length(n.parts::text)::bigint + CASE WHEN n.status = 'live' OR n.unfolded"
        f" THEN {_PIECES_SIZE} ELSE 0 END AS size FROM message n"
    )
    where = "WHERE n.app = $1 AND n.conversation = $2 AND n.id > $3 AND n.id < $4"
    return f"""
SELECT m.*, {PIECES}, w.size, w.over, w.uid AS reached, m.status = 'live' AND c.queue[1] <> m.id AS waiting
FROM (
    WITH RECURSIVE w AS (
        (SELECT f.*, f.size AS sum, 1 AS number, $7::boolean AND f.size > $6::bigint AS over
        FROM ({first} {where} ORDER BY n.id{order} LIMIT 1) f)
        UNION ALL
        SELECT n.*, w.sum + n.size, w.number + 1, w.number >= $5::bigint OR w.sum + n.size > $6
        FROM w CROSS JOIN LATERAL ({first} {where} AND {comparison} ORDER BY n.id{order} LIMIT 1) n WHERE NOT w.over
    )
    SELECT * FROM w
) w
LEFT JOIN message m ON m.app = $1 AND m.conversation = $2 AND m.id = w.id AND NOT w.over
LEFT JOIN conversation c ON c.app = $1 AND c.id = $2
ORDER BY w.id"""


_OLDEST_FIRST, _NEWEST_FIRST = _history_sql(ascending=True), _history_sql(ascending=False)

NAMED = "c.app = $1 AND c.end_user = $2 AND (c.id = $3 OR c.uid = $4 OR c.alias = $5)"
"""WHERE condition that matches one conversation by id, uid or alias; ``ref_parameters`` returns its five parameters."""


def ref_parameters(app_id: int, user_id: int, ref: Ref) -> tuple[int, int, int | None, UUID | None, str | None]:
    if isinstance(ref, int):
        return app_id, user_id, ref if 0 < ref <= MAX_ID else None, None, None
    if isinstance(ref, UUID):
        return app_id, user_id, None, ref, None
    return app_id, user_id, None, parse_uid(ref), clean(ref)


def conversation_from_row(row: Row, *, with_variables: bool = True, prefix: str = "") -> Conversation:
    """The conversation in the columns whose names begin with ``prefix``."""
    return Conversation(
        app=row[prefix + "app"],
        id=row[prefix + "id"],
        uid=row[prefix + "uid"],
        user=row[prefix + "end_user"],
        agent=row[prefix + "agent"],
        alias=row[prefix + "alias"],
        title=row[prefix + "title"],
        opening=row[prefix + "opening"],
        created=row[prefix + "created"],
        modified=row[prefix + "modified"],
        icon=row[prefix + "icon"],
        summary=row[prefix + "summary"],
        variables=None if row[prefix + "variables"] is None else msgspec.json.decode(row[prefix + "variables"]),
        with_variables=with_variables,
        working=bool(row[prefix + "queue"]),
        last_status=None if row[prefix + "last_status"] is None else Status(row[prefix + "last_status"]),
    )


def parts_from_row(row: Row) -> tuple[AnyPart, ...]:
    """The parts of a message, with its pieces."""
    return join(decode_parts(row["parts"]), pieces_from_row(row))


def pieces_from_row(row: Row) -> tuple[Piece, ...]:
    return tuple(map(_piece, row["pieces"] or ()))


def _piece(text: str) -> Piece:
    head, bracket, parts = text.partition("[")
    start, _, continues = head.partition(" ")
    return Piece(start=int(start), parts=decode_parts(bracket + parts), continues=continues == "true")


def message_from_row(row: Row, *, waiting: bool | None = None) -> Message:
    status: str | None = row["status"]
    return Message(
        app=row["app"],
        id=row["id"],
        uid=row["uid"],
        conversation=row["conversation"],
        role=row["role"],
        parts=parts_from_row(row),
        created=row["created"],
        ended=None if status is None or status == "live" else _run_ended(row, Status(status)),
        waiting=bool(row["waiting"]) if waiting is None else waiting,
        waiting_for=() if row["pause"] is None else _pause(row["pause"]).calls,
    )


def _run_ended(row: Row, status: Status) -> RunEnded:
    problem: Any = None if row["problem"] is None else msgspec.json.decode(row["problem"])
    return RunEnded(
        status=status,
        reason=row["reason"] or "stop",
        usage=Usage() if row["usage"] is None else _usage(row["usage"]),
        problem=None if problem is None else Problem.from_dict(problem),
        at=0 if row["ended"] is None else round(row["ended"].timestamp() * 1000),
    )


def json_text(value: Any) -> str:
    """JSON that PostgreSQL accepts: U+0000 and lone surrogates are replaced."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(clean_json(msgspec.to_builtins(value))).decode()
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""An escaped U+0000, but not the six literal characters (their backslash is escaped)."""
