"""Runs: one statement stores a whole turn; checkpoints and results of several runs are stored in batches.

The conversation's row is the lock and the queue. Every statement that adds or ends a run updates that row, so
PostgreSQL serializes them; each statement decides from the row it has locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import UUID

import msgspec

from palaver.core.ports.store import (
    Growth,
    IdempotencyKey,
    NewTurn,
    Pause,
    ReplayedRun,
    RunInput,
    RunResult,
    StoredGrowth,
    StoredRun,
    StoredTurn,
)
from palaver.core.problems import Busy, Conflict, NotFound, Unstorable
from palaver.core.types import (
    AgentSpec,
    AnyPart,
    Conversation,
    File,
    Message,
    Ref,
    Text,
    ToolResult,
    Usage,
    clean,
    new_uid,
    parse_id,
    parse_uid,
)
from palaver.store.conversations import (
    NAMED,
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
from palaver.store.quotas import Quotas

MAX_INLINE_JSON = 64 * 1024
"""Bytes of parts above which JSON is encoded in a thread."""
ATTEMPTS = 5
"""Maximum attempts to store a turn when concurrent changes invalidate it."""

_C_COLUMNS = (
    "c.app, c.id, c.uid, c.end_user, c.agent, c.alias, c.title, c.opening, c.created, c.modified, c.icon, c.summary,"
    " c.variables, c.last_status, c.queue"
)

# A key can be claimed if it has no row or an expired one.
_CLAIM = """
claimed AS (
    INSERT INTO claim (app, credential, end_user, scope, key, digest, run, expires)
    VALUES ($1, $6, $2, $7, $8, $9, $10, now() + make_interval(secs => $11))
    ON CONFLICT (app, credential, end_user, scope, key) DO UPDATE
        SET digest = excluded.digest, run = excluded.run, expires = excluded.expires
        WHERE claim.expires <= now()
    RETURNING 1
),"""
_GRANTED = "EXISTS (SELECT FROM claimed)"
_MESSAGES = """
m AS (
    INSERT INTO message (app, conversation, id, uid, role, parts, status, worker, input, step)
    SELECT c.app, c.id, c.queue[cardinality(c.queue)] - 1, $12::uuid, 'user', $13::jsonb, NULL, NULL, NULL, 0 FROM c
    UNION ALL
    SELECT c.app, c.id, c.queue[cardinality(c.queue)], $10::uuid, 'assistant', '[]', 'live', $14::integer, $22::jsonb,
        (cardinality(c.queue) = 1)::integer FROM c
),
attached AS (
    INSERT INTO attachment (app, conversation, file)
    SELECT c.app, c.id, f.id FROM c JOIN file f ON f.app = c.app AND f.end_user = $2
        AND (f.key = ANY ($19::text[]) OR f.uid = ANY ($20::uuid[]) OR f.id = ANY ($21::bigint[]))
    ON CONFLICT DO NOTHING
)"""


def _open_sql(*, existing: bool, idempotency: bool) -> str:
    """The statement that stores a turn in an existing or a new conversation.

    $1 app, $2 end user, $3 … $5 the conversation's names (existing) or NULL, uid, alias (new), $6 credential,
    $7 … $9 scope, key and digest of the idempotency key, $10 the run's uid, $11 the key's TTL in seconds, $12 the
    question's uid, $13 its parts, $14 worker, $15 agent, $16 maximum live runs, $17 the opening text, $18 the
    conversation's variables (new), $19 … $21 the keys, uids and numbers of the files that the message attaches, $22 the
    run's input.
    """
    guard = _GRANTED if idempotency else "true"
    if existing:
        change = f"""
c AS (
    UPDATE conversation c SET queue = c.queue || (nextval('message_id') + 1), modified = now(),
        opening = CASE WHEN c.opening = '' THEN $17 ELSE c.opening END
    WHERE {NAMED} AND c.agent = $15 AND cardinality(c.queue) < $16::integer AND {guard}
    RETURNING {_C_COLUMNS}
),"""
    else:
        change = f"""
c AS (
    INSERT INTO conversation AS c (app, uid, end_user, agent, alias, opening, variables, queue)
    SELECT $1::bigint, $4::uuid, $2::bigint, $15::bigint, $5::text, $17::text, $18::jsonb,
        ARRAY[nextval('message_id') + 1] WHERE {guard}
    ON CONFLICT (app, end_user, alias) DO NOTHING
    RETURNING {_C_COLUMNS}
),"""
    unused = (
        "WITH parameters AS (SELECT $3::bigint, $6::bigint, $7::text, $8::text, $9::bytea, $11::float8, $16::integer,"
        " $18::jsonb),"
    )
    granted = _GRANTED if idempotency else "true"
    return (
        unused
        + (_CLAIM if idempotency else "")
        + change
        + _MESSAGES
        + f" SELECT {granted} AS granted, now() AS stored_at, c.* FROM (SELECT) one LEFT JOIN c ON true"
    )


_OPEN_TURN = {
    (existing, idempotency): _open_sql(existing=existing, idempotency=idempotency)
    for existing in (True, False)
    for idempotency in (True, False)
}

_MESSAGE = (
    f"SELECT m.*, {PIECES}, m.status = 'live' AND c.queue[1] <> m.id AS waiting FROM message m"
    " JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
)

_C_PREFIXED = ", ".join(f"{name} AS {name.replace('.', '_')}" for name in _C_COLUMNS.split(", "))
_MESSAGE_WITH_CONVERSATION = (
    f"SELECT m.*, {PIECES}, m.status = 'live' AND c.queue[1] <> m.id AS waiting, {_C_PREFIXED}"
    " FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
    " WHERE m.app = $1 AND c.end_user = $2 AND m.uid = $3 AND m.role = 'assistant'"
)

_APPEND = """
INSERT INTO message_piece (app, conversation, message, start, continues, parts)
SELECT d.app, d.conversation, d.message, d.start, d.continues, d.parts::jsonb
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[], $6::text[])
    AS d (app, conversation, message, start, continues, parts)
JOIN message m ON m.app = d.app AND m.conversation = d.conversation AND m.id = d.message AND m.status = 'live'
ON CONFLICT DO NOTHING"""
# A retry after a lost connection may repeat an insertion.

_GROWTH = """
SELECT m.status = 'live' AS live, (
    SELECT array_agg(p.start || ' ' || p.continues || p.parts::text ORDER BY p.start) FROM message_piece p
    WHERE p.app = $1 AND p.conversation = m.conversation AND p.message = m.id AND p.start >= $3
) AS pieces FROM message m WHERE m.app = $1 AND m.uid = $2"""

_NEXT_UNFOLDED = f"""
SELECT m.app, m.conversation, m.id, m.parts, {PIECES} FROM message m WHERE m.unfolded
ORDER BY m.app, m.conversation, m.id LIMIT 1"""
_FOLD = (
    "UPDATE message SET parts = $4::jsonb, unfolded = false"
    " WHERE app = $1 AND conversation = $2 AND id = $3 AND unfolded"
)
_DELETE_PIECES = "DELETE FROM message_piece WHERE app = $1 AND conversation = $2 AND message = $3"

# Deadlock avoidance: every statement that changes a conversation and its messages locks the conversation first, and
# several conversations in (app, id) order. Deletions and ends of runs, of any process, do so.
_HELD = """
held AS (
    SELECT c.app, c.id FROM conversation c WHERE (c.app, c.id) IN (SELECT d.app, d.conversation FROM d)
    ORDER BY c.app, c.id FOR UPDATE
),"""
_DEQUEUE = """
locked AS (
    SELECT c.app, c.id, d.runs, d.last FROM conversation c
    JOIN (
        SELECT app, conversation, array_agg(id) AS runs, (array_agg(status ORDER BY id DESC))[1] AS last
        FROM ended GROUP BY app, conversation
    ) d
        ON c.app = d.app AND c.id = d.conversation
    ORDER BY c.app, c.id FOR UPDATE OF c
),
freed AS (
    UPDATE conversation c
    SET modified = now(), last_status = l.last, queue = ARRAY(SELECT q FROM unnest(c.queue) WITH ORDINALITY AS u (q, n)
                                        WHERE q <> ALL (l.runs) ORDER BY n)
    FROM locked l WHERE c.app = l.app AND c.id = l.id
    RETURNING c.queue[1] AS head
)
SELECT head, pg_notify('palaver', 'start ' || head) FROM freed WHERE head IS NOT NULL"""

_FINISH = f"""
WITH d AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::float8[]) AS d (app, conversation, id, parts, status, reason, usage, problem, at)
),{_HELD}
ended AS (
    UPDATE message m SET parts = coalesce(d.parts::jsonb, m.parts), unfolded = d.parts IS NULL, status = d.status,
        reason = d.reason, usage = coalesce(d.usage::jsonb, m.usage), problem = d.problem::jsonb,
        ended = to_timestamp(d.at), worker = NULL, input = NULL, pause = NULL
    FROM d JOIN held h ON h.app = d.app AND h.id = d.conversation
    WHERE m.app = d.app AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
        AND (m.worker IS NULL OR m.worker = $10)
    RETURNING m.app, m.conversation, m.id, m.status
),
folded AS (
    DELETE FROM message_piece p USING d
    WHERE d.parts IS NOT NULL AND p.app = d.app AND p.conversation = d.conversation AND p.message = d.id
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

_TAKE_OVER = """
WITH taken AS (
    SELECT app, conversation, id FROM message WHERE status = 'live' AND worker = ANY ($1::integer[])
    ORDER BY app, conversation, id LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE message m SET worker = $2 FROM taken t
WHERE m.app = t.app AND m.conversation = t.conversation AND m.id = t.id
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
    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="palaver-json")

    async def open(self, turn: NewTurn) -> StoredTurn | ReplayedRun:
        try:
            for _ in range(ATTEMPTS):
                stored = await self._open_once(turn)
                if stored is not None:
                    return stored
        except Busy as error:
            replay = await self.find_replayed(turn) if error.reason == "full" else None
            if replay is None:
                raise
            return replay  # a replay needs no quota
        raise Busy(reason="waiting", retry_after=1)

    async def _require_capacity(self, turn: NewTurn, *, existing: bool) -> None:
        """Raises ``Busy(reason="full")`` if a quota is used up."""
        app, user = turn.principal.app, turn.user.id
        if existing:
            assert turn.conversation is not None
            await self._quotas.require_room(
                "conversation_messages", *ref_parameters(app, user, turn.conversation), rows=2
            )
        else:
            await self._quotas.require_room_for_conversation(app, user)
        if turn.idempotency_key is not None:
            await self._quotas.require_room("idempotency_keys", app, turn.principal.key.number)

    def _count_rows(self, turn: NewTurn, *, existing: bool) -> None:
        """Count the stored rows against the quotas."""
        app, user = turn.principal.app, turn.user.id
        if turn.conversation is not None:
            self._quotas.record_rows("conversation_messages", *ref_parameters(app, user, turn.conversation), rows=2)
        if not existing:
            self._quotas.record_conversation(app, user)
        if turn.idempotency_key is not None:
            self._quotas.record_rows("idempotency_keys", app, turn.principal.key.number)

    async def _open_once(self, turn: NewTurn) -> StoredTurn | ReplayedRun | None:
        """One attempt; ``None`` if a concurrent change invalidated it."""
        existing = turn.conversation is not None
        if existing and turn.create_as is not None and not await self._exists(turn):
            existing = False
        await self._require_capacity(turn, existing=existing)
        arguments = _arguments(turn, existing=existing)
        row = await self._db.fetchrow(_OPEN_TURN[existing, turn.idempotency_key is not None], *arguments)
        assert row is not None
        if row["id"] is not None:
            self._count_rows(turn, existing=existing)
            return _accepted(turn, row)
        try:
            return await self._explain_refusal(turn, existing=existing, granted=row["granted"])
        except (NotFound, Conflict, Busy):
            if turn.idempotency_key is not None and row["granted"]:
                await self._delete_claim(turn, turn.idempotency_key)
            raise

    async def _exists(self, turn: NewTurn) -> bool:
        assert turn.conversation is not None
        sql = f"SELECT FROM conversation c WHERE {NAMED}"
        parameters = ref_parameters(turn.principal.app, turn.user.id, turn.conversation)
        return await self._db.fetchrow(sql, *parameters) is not None

    async def _explain_refusal(self, turn: NewTurn, *, existing: bool, granted: bool) -> ReplayedRun | None:
        """Why the statement stored nothing. Returns the run of an identical request, or ``None`` to try again; raises
        ``NotFound``, ``Conflict`` or ``Busy``."""
        row: Row | None = None
        if existing:
            assert turn.conversation is not None
            sql = f"SELECT c.agent, cardinality(c.queue) AS live FROM conversation c WHERE {NAMED}"
            row = await self._db.fetchrow(sql, *ref_parameters(turn.principal.app, turn.user.id, turn.conversation))
            if row is None:
                if turn.create_as is not None:  # deleted between two statements
                    return None
                raise NotFound(noun="conversation", ref=str(turn.conversation))
            if row["agent"] != turn.agent.id:
                raise Conflict(reason="agent")
        if turn.idempotency_key is not None and not granted:
            return await self.find_replayed(turn)
        if row is not None and row["live"] > turn.max_waiting:
            raise Busy(reason="waiting", retry_after=1)
        if turn.idempotency_key is not None:
            await self._delete_claim(turn, turn.idempotency_key)
        return None

    async def find_replayed(self, turn: NewTurn) -> ReplayedRun | None:
        """The run of the request that claimed the idempotency key. Raises ``Conflict`` if that request differs."""
        idempotency = turn.idempotency_key
        if idempotency is None:
            return None
        row = await self._db.fetchrow(
            "SELECT k.digest, k.run, m.uid FROM claim k LEFT JOIN message m ON m.app = k.app AND m.uid = k.run"
            " WHERE k.app = $1 AND k.credential = $2 AND k.end_user = $3 AND k.scope = $4 AND k.key = $5"
            " AND k.expires > now()",
            *_claim_key(turn, idempotency),
        )
        if row is None:
            return None
        if row["uid"] is None:  # the first request failed, or its conversation was deleted: release the key
            await self._delete_claim(turn, idempotency, run=row["run"])
            return None
        if row["digest"] != idempotency.digest:
            raise Conflict(reason="idempotency")
        return ReplayedRun(run=row["run"])

    async def _delete_claim(self, turn: NewTurn, idempotency: IdempotencyKey, *, run: UUID | None = None) -> None:
        await self._db.execute(
            "DELETE FROM claim WHERE app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"
            " AND run = $6",
            *_claim_key(turn, idempotency),
            run or turn.run,
        )

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
            f"{_MESSAGE} JOIN message a ON a.app = m.app AND a.conversation = m.conversation"
            " AND m.id IN (a.id - 1, a.id)"
            " WHERE a.app = $1 AND a.uid = $2 AND a.role = 'assistant' ORDER BY m.id",
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
        await self._db.execute(
            "SELECT pg_notify('palaver', 'stop ' || run) FROM unnest($1::text[]) AS run", [run.hex for run in runs]
        )

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
        await self._db.execute(
            "SELECT pg_notify('palaver', 'abandoned ' || run) FROM unnest($1::bigint[]) AS run", runs
        )

    async def notify_has_reader(self, run_id: int) -> None:
        await self._db.execute("SELECT pg_notify('palaver', 'read ' || $1::bigint)", run_id)

    async def notify_growth(self, runs: Sequence[int]) -> None:
        await self._db.execute("SELECT pg_notify('palaver', 'growth ' || run) FROM unnest($1::bigint[]) AS run", runs)

    async def append(self, growths: Sequence[Growth]) -> None:
        await self._db.execute(
            _APPEND,
            [growth.app for growth in growths],
            [growth.conversation for growth in growths],
            [growth.run for growth in growths],
            [growth.piece.start for growth in growths],
            [growth.piece.continues for growth in growths],
            await self._encode([growth.piece.parts for growth in growths], sum(growth.size for growth in growths)),
        )

    async def fold(self) -> bool:
        row = await self._db.fetchrow(_NEXT_UNFOLDED)
        if row is None:
            return False
        parts = await asyncio.get_running_loop().run_in_executor(self._threads, _folded, row)
        key = (row["app"], row["conversation"], row["id"])
        await self._db.transaction([(_FOLD, (*key, parts)), (_DELETE_PIECES, key)])
        return True

    async def finish(self, results: Sequence[RunResult], worker: int | None) -> set[int]:
        rows = await self._db.fetch(
            _FINISH,
            [result.app for result in results],
            [result.conversation for result in results],
            [result.run for result in results],
            await self._encode([result.parts for result in results], sum(result.size for result in results)),
            [result.ended.status.value for result in results],
            [clean(result.ended.reason) for result in results],
            [None if result.ended.usage == Usage() else json_text(result.ended.usage) for result in results],
            [None if result.ended.problem is None else json_text(result.ended.problem.to_dict()) for result in results],
            [result.ended.at / 1000 for result in results],
            worker,
        )
        return {row["head"] for row in rows}

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
        rows = await self._db.fetch(_TAKE_OVER, list(workers), worker, limit)
        rows.sort(key=lambda row: (row["app"], row["conversation"], row["id"]))
        return [(row["app"], row["uid"]) for row in rows]

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


def _accepted(turn: NewTurn, row: Row) -> StoredTurn:
    queue: list[int] = row["queue"]
    stored_conversation, run = conversation_from_row(row), queue[-1]

    def message_of(number: int, uid: UUID, role: Literal["user", "assistant"], parts: tuple[AnyPart, ...]) -> Message:
        return Message(
            app=stored_conversation.app,
            id=number,
            uid=uid,
            conversation=stored_conversation.id,
            role=role,
            parts=parts,
            created=row["stored_at"],
            waiting=role == "assistant" and len(queue) > 1,
        )

    return StoredTurn(
        conversation=stored_conversation,
        question=message_of(run - 1, turn.question, "user", turn.parts),
        answer=message_of(run, turn.run, "assistant", ()),
        first=len(queue) == 1,
        ahead=tuple(queue[:-1]),
    )


def _arguments(turn: NewTurn, *, existing: bool) -> tuple[Any, ...]:
    idempotency = turn.idempotency_key
    if existing:
        assert turn.conversation is not None
        app, user, *names = ref_parameters(turn.principal.app, turn.user.id, turn.conversation)
    else:
        app, user = turn.principal.app, turn.user.id
        names = [None, new_uid(), None if turn.create_as is None else clean(turn.create_as)]
    text = "".join(part.text for part in turn.parts if isinstance(part, Text))
    refs = [clean(part.ref) for part in turn.parts if isinstance(part, File)]
    return (
        app,
        user,
        *names,
        turn.principal.key.number,
        None if idempotency is None else idempotency.scope,
        None if idempotency is None else idempotency.key,
        None if idempotency is None else idempotency.digest,
        turn.run,
        turn.idempotency_ttl_s,
        turn.question,
        json_text(turn.parts),
        turn.worker,
        turn.agent.id,
        turn.max_waiting + 1,
        text[:255],
        None if turn.variables is None else json_text(turn.variables),
        refs,
        [uid for ref in refs if (uid := parse_uid(ref)) is not None],
        [number for ref in refs if (number := parse_id(ref)) is not None],
        json_text(turn.input),
    )


def _claim_key(turn: NewTurn, idempotency: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return turn.principal.app, turn.principal.key.number, turn.user.id, idempotency.scope, idempotency.key
