"""Runs: their growth and results, stored in batches; what recovery needs.

The conversation's row is the lock and the queue. Every statement that adds or ends a run updates that row, so
PostgreSQL serializes them; each statement decides from the row it has locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec

from palaver.core.ports.store import (
    Growth,
    Pause,
    RunInput,
    RunResult,
    StoredGrowth,
    StoredRun,
)
from palaver.core.problems import Unstorable
from palaver.core.types import (
    AgentSpec,
    AnyPart,
    Conversation,
    Message,
    Ref,
    ToolResult,
    Usage,
    clean,
)
from palaver.store.conversations import (
    C_COLUMNS,
    NAMED,
    PIECE_TEXTS,
    PIECES,
    conversation_from_row,
    decode_parts,
    json_text,
    message_from_row,
    parts_from_row,
    pieces_from_row,
    ref_parameters,
)
from palaver.store.database import Database, Row
from palaver.store.presence import notification, try_notify

MAX_INLINE_JSON = 64 * 1024
"""Bytes of parts above which JSON is encoded in a thread."""

_MESSAGE = (
    f"SELECT m.*, {PIECES}, m.status = 'live' AND c.queue[1] <> m.id AS waiting FROM message m"
    " JOIN conversation c ON c.app = $1 AND c.id = m.conversation"
)

_C_PREFIXED = ", ".join(f"{name} AS {name.replace('.', '_')}" for name in C_COLUMNS.split(", "))
_MESSAGE_WITH_CONVERSATION = (
    f"SELECT m.*, {PIECES}, m.status = 'live' AND c.queue[1] <> m.id AS waiting, {_C_PREFIXED}"
    " FROM message m JOIN conversation c ON c.app = $1 AND c.id = m.conversation"
    " WHERE m.app = $1 AND c.end_user = $2 AND m.uid = $3 AND m.role = 'assistant'"
)

# Growth and results of several applications are one statement for each of them.
_APPEND = """
INSERT INTO message_piece (app, conversation, message, start, continues, parts)
SELECT $1, d.conversation, d.message, d.start, d.continues, d.parts::jsonb
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[], $6::text[])
    AS d (conversation, message, start, continues, parts)
JOIN message m ON m.app = $1 AND m.conversation = d.conversation AND m.id = d.message AND m.status = 'live'
ON CONFLICT DO NOTHING"""
# A retry after a lost connection may repeat an insertion.

_GROWTH = f"""
SELECT m.status = 'live' AS live, (
    SELECT {PIECE_TEXTS} FROM message_piece p
    WHERE p.app = $1 AND p.conversation = m.conversation AND p.message = m.id AND p.start >= $3
) AS pieces FROM message m WHERE m.app = $1 AND m.uid = $2"""

_FIND_UNFOLDED = "SELECT app, conversation, id FROM message WHERE unfolded ORDER BY app, conversation, id LIMIT 1"
_UNFOLDED = (
    f"SELECT m.parts, {PIECES} FROM message m WHERE m.app = $1 AND m.conversation = $2 AND m.id = $3 AND m.unfolded"
)
_FOLD = (
    "UPDATE message SET parts = $4::jsonb, unfolded = false"
    " WHERE app = $1 AND conversation = $2 AND id = $3 AND unfolded"
)
_DELETE_PIECES = "DELETE FROM message_piece WHERE app = $1 AND conversation = $2 AND message = $3"

# Deadlock avoidance: every statement that changes a conversation and its messages locks the conversation first, and
# several conversations in (app, id) order. Deletions and ends of runs, of any process, do so.
_HELD = """
held AS MATERIALIZED (
    SELECT id FROM conversation WHERE app = $1 AND id = ANY ($2::bigint[]) ORDER BY id FOR UPDATE
),"""
_DEQUEUE = """
done AS (
    SELECT conversation, array_agg(id) AS runs, (array_agg(status ORDER BY id DESC))[1] AS last
    FROM ended GROUP BY conversation
),
freed AS (
    UPDATE conversation c SET modified = now(), last_status = d.last,
        queue = ARRAY(SELECT q FROM unnest(c.queue) WITH ORDINALITY AS u (q, n) WHERE q <> ALL (d.runs) ORDER BY n)
    FROM done d WHERE c.app = $1 AND c.id = d.conversation
    RETURNING c.queue[1] AS head
)
SELECT head FROM freed WHERE head IS NOT NULL"""

_FINISH = f"""
WITH d AS (
    SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::float8[], $10::integer[]) AS d (conversation, id, parts, status, reason, usage, problem, at, worker)
),{_HELD}
ended AS (
    UPDATE message m SET parts = coalesce(d.parts::jsonb, m.parts), unfolded = d.parts IS NULL, status = d.status,
        reason = d.reason, usage = coalesce(d.usage::jsonb, m.usage), problem = d.problem::jsonb,
        ended = to_timestamp(d.at), worker = NULL, input = NULL, pause = NULL
    FROM d JOIN held h ON h.id = d.conversation
    WHERE m.app = $1 AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
        AND (m.worker IS NULL OR m.worker = d.worker)
    RETURNING m.conversation, m.id, m.status
),
folded AS (
    DELETE FROM message_piece p USING d
    WHERE d.parts IS NOT NULL AND p.app = $1 AND p.conversation = d.conversation AND p.message = d.id
),{_DEQUEUE}"""

# A paused run belongs to no process.
_PAUSED = "m.app = $1 AND m.uid = $2 AND m.status = 'live' AND m.worker IS NULL AND m.pause @> $3::jsonb"
_APPEND_RESULT = f"""
INSERT INTO message_piece (app, conversation, message, start, continues, parts)
SELECT m.app, m.conversation, m.id, (m.pause ->> 'steps')::bigint, false, $4::jsonb FROM message m
WHERE {_PAUSED} FOR UPDATE"""
_RESOLVE_CALL = f"""
WITH remaining AS (
    SELECT coalesce(jsonb_agg(call ORDER BY position), '[]') AS calls
    FROM message m, jsonb_array_elements(m.pause -> 'calls') WITH ORDINALITY AS c (call, position)
    WHERE {_PAUSED} AND call ->> 'call_id' <> $4
)
UPDATE message m SET
    pause = CASE WHEN r.calls <> '[]'
        THEN jsonb_build_object('steps', (m.pause ->> 'steps')::bigint + 1, 'calls', r.calls) END,
    worker = CASE WHEN r.calls = '[]' THEN $5::integer END
FROM remaining r WHERE {_PAUSED}
RETURNING m.worker IS NOT NULL AS complete"""

_FIND_LOST_RUNS = """
SELECT app, conversation, id FROM message WHERE status = 'live' AND worker = ANY ($1::integer[])
ORDER BY app, conversation, id LIMIT $2"""
_TAKE_OVER = """
UPDATE message m SET worker = $4 FROM unnest($2::bigint[], $3::bigint[]) AS d (conversation, id)
WHERE m.app = $1 AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
    AND m.worker = ANY ($5::integer[])
RETURNING m.app, m.conversation, m.id, m.uid"""

_RUN = f"""
SELECT m.*, {PIECES}, c.queue[1] <> m.id AS waiting, {_C_PREFIXED}, q.uid AS q_uid, q.parts AS q_parts,
    q.created AS q_created, coalesce(r.spec, g.spec) AS spec
FROM message m
JOIN conversation c ON c.app = $1 AND c.id = m.conversation
JOIN message q ON q.app = $1 AND q.conversation = m.conversation AND q.id = m.id - 1
JOIN agent g ON g.app = $1 AND g.id = c.agent
LEFT JOIN agent_revision r ON r.app = $1 AND r.agent = g.id
    AND r.revision = coalesce((m.input ->> 'agent_revision')::integer, 1) AND r.revision <> g.revision
WHERE m.app = $1 AND m.uid = $2 AND m.status = 'live'"""


_run_input = msgspec.json.Decoder(RunInput).decode


class RunTable:
    """Runs, by the message that each of them writes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="palaver-json")

    async def get_answer(self, app_id: int, run_uid: UUID) -> Message | None:
        row = await self._db.fetchrow(
            f"{_MESSAGE} WHERE m.app = $1 AND m.uid = $2 AND m.role = 'assistant'", app_id, run_uid
        )
        return None if row is None else message_from_row(row)

    async def get_answer_with_conversation(
        self, app_id: int, user_id: int, run_uid: UUID
    ) -> tuple[Message, Conversation] | None:
        row = await self._db.fetchrow(_MESSAGE_WITH_CONVERSATION, app_id, user_id, run_uid)
        if row is None:
            return None
        return message_from_row(row), conversation_from_row(row, prefix="c_")

    async def get_question_and_answer(self, app_id: int, run_uid: UUID) -> tuple[Message, Message] | None:
        rows = await self._db.fetch(
            f"{_MESSAGE} JOIN message a ON a.app = $1 AND a.conversation = m.conversation"
            " AND m.id IN (a.id - 1, a.id)"
            " WHERE m.app = $1 AND a.uid = $2 AND a.role = 'assistant' ORDER BY m.id",
            app_id,
            run_uid,
        )
        return (message_from_row(rows[0]), message_from_row(rows[1])) if len(rows) == 2 else None

    async def list_live(self, app_id: int, conversation_id: int) -> list[UUID]:
        rows = await self._db.fetch(
            "SELECT uid FROM message WHERE app = $1 AND conversation = $2 AND status = 'live' ORDER BY id DESC",
            app_id,
            conversation_id,
        )
        return [row["uid"] for row in rows]

    async def notify_stop(self, runs: Sequence[UUID]) -> None:
        await self._db.execute(*notification(*(f"stop {run.hex}" for run in runs)))

    async def any_live(self, app_id: int, runs: Sequence[UUID]) -> bool:
        sql = "SELECT EXISTS (SELECT FROM message WHERE app = $1 AND uid = ANY ($2) AND status = 'live')"
        return await self._db.fetchval(sql, app_id, list(runs))

    async def get_growth(self, app_id: int, run_uid: UUID, start: int) -> StoredGrowth:
        row = await self._db.fetchrow(_GROWTH, app_id, run_uid, start)
        if row is None or not row["live"]:
            return StoredGrowth(live=False)
        return StoredGrowth(live=True, pieces=pieces_from_row(row))

    async def get_queue(self, app_id: int, user_id: int, conversation: Ref) -> tuple[int, ...]:
        sql = f"SELECT c.queue FROM conversation c WHERE {NAMED}"
        queue: list[int] | None = await self._db.fetchval(sql, *ref_parameters(app_id, user_id, conversation))
        return tuple(queue or ())

    async def notify_stop_abandoned(self, runs: Sequence[int]) -> None:
        await self._db.execute(*notification(*(f"abandoned {run}" for run in runs)))

    async def notify_has_reader(self, run_id: int) -> None:
        await self._db.execute(*notification(f"read {run_id}"))

    async def notify_growth(self, runs: Sequence[int]) -> None:
        await self._db.execute(*notification(*(f"growth {run}" for run in runs)))

    async def append(self, growths: Sequence[Growth]) -> None:
        pieces = [growth.piece for growth in growths]
        await self._store(
            _APPEND,
            growths,
            [piece.start for piece in pieces],
            [piece.continues for piece in pieces],
            await self._encode([piece.parts for piece in pieces], sum(growth.size for growth in growths)),
        )

    async def fold(self) -> bool:
        found = await self._db.fetchrow(_FIND_UNFOLDED)
        if found is None:
            return False
        key = (found["app"], found["conversation"], found["id"])
        row = await self._db.fetchrow(_UNFOLDED, *key)
        if row is not None:
            parts = await asyncio.get_running_loop().run_in_executor(self._threads, _folded, row)
            await self._db.transaction([(_FOLD, (*key, parts)), (_DELETE_PIECES, key)])
        return True

    async def finish(self, results: Sequence[RunResult], worker: int | None) -> set[int]:
        heads = await self._store(
            _FINISH,
            results,
            await self._encode([result.parts for result in results], sum(result.size for result in results)),
            [result.ended.status.value for result in results],
            [clean(result.ended.reason) for result in results],
            [None if result.ended.usage == Usage() else json_text(result.ended.usage) for result in results],
            [None if result.ended.problem is None else json_text(result.ended.problem.to_dict()) for result in results],
            [result.ended.at / 1000 for result in results],
            [worker] * len(results),
        )
        await try_notify(self._db, [f"start {run}" for run in heads])
        return heads

    async def _store(self, sql: str, rows: Sequence[Growth | RunResult], *columns: Sequence[Any]) -> set[int]:
        """Execute the statement for each application, in order, with the ids and the other columns of its rows: all or
        none. Returns the ids of runs that may start."""
        by_app: dict[int, list[tuple[Any, ...]]] = {}
        for row, *values in zip(rows, *columns, strict=True):
            by_app.setdefault(row.app, []).append((row.conversation, row.run, *values))
        statements = [(sql, (app, *map(list, zip(*values, strict=True)))) for app, values in sorted(by_app.items())]
        if len(statements) == 1:
            stored = [await self._db.fetch(sql, *statements[0][1])]
        else:
            stored = await self._db.transaction_rows(statements)
        return {row["head"] for one in stored for row in one}

    async def _encode(self, parts: Sequence[tuple[AnyPart, ...] | None], size: int) -> list[str | None]:
        """The parts as JSON, of approximately ``size`` bytes; much is encoded in a thread. Raises ``Unstorable``."""
        try:
            if size <= MAX_INLINE_JSON:
                return _encoded(parts)
            return await asyncio.get_running_loop().run_in_executor(self._threads, _encoded, parts)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unstorable(reason="database", detail=f"{type(error).__name__}: {error}") from error

    async def begin_step(
        self, app_id: int, conversation_id: int, run_id: int, *, worker: int, step: int, usage: Usage
    ) -> bool:
        row = await self._db.fetchrow(
            "UPDATE message SET step = $5, usage = $6 WHERE app = $1 AND conversation = $2 AND id = $3"
            " AND status = 'live' AND worker = $4 RETURNING id",
            *(app_id, conversation_id, run_id, worker, step, json_text(usage)),
        )
        return row is not None

    async def pause(
        self, app_id: int, conversation_id: int, run_id: int, *, worker: int, pause: Pause, usage: Usage
    ) -> bool:
        row = await self._db.fetchrow(
            "UPDATE message SET worker = NULL, pause = $5, usage = $6 WHERE app = $1 AND conversation = $2 AND id = $3"
            " AND status = 'live' AND worker = $4 RETURNING id",
            *(app_id, conversation_id, run_id, worker, json_text(pause), json_text(usage)),
        )
        return row is not None

    async def provide(self, app_id: int, run_uid: UUID, result: ToolResult, *, worker: int) -> bool | None:
        paused = (app_id, run_uid, json_text({"calls": [{"call_id": result.call_id}]}))
        rows = await self._db.transaction(
            [
                (_APPEND_RESULT, (*paused, json_text([result]))),
                (_RESOLVE_CALL, (*paused, result.call_id, worker)),
            ]
        )
        return rows[0]["complete"] if rows else None

    async def take_over(self, workers: Sequence[int], *, worker: int, limit: int) -> list[tuple[int, UUID]]:
        lost = await self._db.fetch(_FIND_LOST_RUNS, list(workers), limit)
        taken: list[tuple[int, UUID]] = []
        for app_id in sorted({row["app"] for row in lost}):
            ids = [(row["conversation"], row["id"]) for row in lost if row["app"] == app_id]
            conversations, runs = map(list, zip(*ids, strict=True))
            rows = await self._db.fetch(_TAKE_OVER, app_id, conversations, runs, worker, list(workers))
            rows.sort(key=lambda row: (row["conversation"], row["id"]))
            taken += [(row["app"], row["uid"]) for row in rows]
        return taken

    async def list_paused(self, app_id: int, runs: Sequence[UUID]) -> list[Message]:
        rows = await self._db.fetch(
            f"{_MESSAGE} WHERE m.app = $1 AND m.uid = ANY ($2) AND m.status = 'live' AND m.worker IS NULL",
            app_id,
            list(runs),
        )
        return [message_from_row(row) for row in rows]

    async def get_run(self, app_id: int, run_uid: UUID) -> StoredRun | None:
        row = await self._db.fetchrow(_RUN, app_id, run_uid)
        if row is None:
            return None
        answer = message_from_row(row)
        question = Message(
            app=app_id,
            id=answer.id - 1,
            uid=row["q_uid"],
            conversation=answer.conversation,
            role="user",
            parts=decode_parts(row["q_parts"]),
            created=row["q_created"],
        )
        return StoredRun(
            conversation=conversation_from_row(row, prefix="c_"),
            question=question,
            answer=answer,
            input=RunInput(credential=0) if row["input"] is None else _run_input(row["input"]),
            spec=msgspec.json.decode(row["spec"], type=AgentSpec),
            step=row["step"],
            first=not row["waiting"],
            usage=Usage() if row["usage"] is None else msgspec.json.decode(row["usage"], type=Usage),
        )

    async def list_assigned(self, worker: int) -> dict[int, tuple[int, int, int]]:
        """The live runs that the database assigns to ``worker``: by id, application, conversation and id of each."""
        rows = await self._db.fetch(
            "SELECT app, conversation, id FROM message WHERE status = 'live' AND worker = $1", worker
        )
        return {row["id"]: (row["app"], row["conversation"], row["id"]) for row in rows}

    async def list_head_ids(self, worker: int) -> set[int]:
        """Ids of the worker's live runs that are first in their conversation's queue: those that should be running."""
        rows = await self._db.fetch(
            "SELECT m.id FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
            " WHERE m.status = 'live' AND m.worker = $1 AND c.queue[1] = m.id",
            worker,
        )
        return {row["id"] for row in rows}

    async def delete_expired_keys(self) -> None:
        """Delete expired claims."""
        await self._db.execute("DELETE FROM claim WHERE expires <= now()")


def _encoded(parts: Sequence[tuple[AnyPart, ...] | None]) -> list[str | None]:
    return [None if some is None else json_text(some) for some in parts]


def _folded(row: Row) -> str:
    return json_text(parts_from_row(row))
