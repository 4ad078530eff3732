"""Runs: one call stores a whole turn; checkpoints and results of several runs are stored in batches.

The conversation's row is the lock and the queue. Every statement that adds or ends a run updates that row, so
PostgreSQL serializes them; each statement decides from the row it has locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import UUID

from palaver.core.ports.store import Checkpoint, IdempotencyKey, NewTurn, ReplayedRun, RunResult, StoredTurn
from palaver.core.problems import Busy, Conflict, NotFound, Problem, Unstorable
from palaver.core.types import AnyPart, Conversation, File, Message, Ref, Text, clean, new_uid, parse_id, parse_uid
from palaver.store.conversations import NAMED, conversation_from_row, json_text, message_from_row, ref_parameters
from palaver.store.database import Database, Row
from palaver.store.presence import notification, try_notify
from palaver.store.quotas import Quotas

MAX_INLINE_JSON = 64 * 1024
"""Bytes of parts above which JSON is encoded in a thread."""
ATTEMPTS = 5
"""Maximum attempts to store a turn when concurrent changes invalidate it."""

_C_COLUMNS = (
    "c.app, c.id, c.uid, c.end_user, c.agent, c.alias, c.title, c.opening, c.created, c.modified, c.icon, c.summary,"
    " c.variables, c.last_status, c.queue"
)

# The function is in store/schema/0011_open_turn.sql. It is called with values alone: beside a table, it might be
# executed on a machine that does not have the sequence of message ids.
_OPEN_TURN = (
    f"SELECT outcome, stored_at, {_C_COLUMNS.replace('c.', '(c).')} FROM open_turn($1, $2, $3, $4, $5, $6, $7, $8, $9,"
    " $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
)

_MESSAGE = (
    "SELECT m.*, m.status = 'live' AND c.queue[1] <> m.id AS waiting FROM message m"
    " JOIN conversation c ON c.app = $1 AND c.id = m.conversation"
)

_C_PREFIXED = ", ".join(f"{name} AS {name.replace('.', '_')}" for name in _C_COLUMNS.split(", "))
_MESSAGE_WITH_CONVERSATION = (
    f"SELECT m.*, m.status = 'live' AND c.queue[1] <> m.id AS waiting, {_C_PREFIXED}"
    " FROM message m JOIN conversation c ON c.app = $1 AND c.id = m.conversation"
    " WHERE m.app = $1 AND c.end_user = $2 AND m.uid = $3 AND m.role = 'assistant'"
)

# Saves and ends of several applications are one statement for each of them.
_SAVE = """
UPDATE message m SET parts = d.parts::jsonb
FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS d (conversation, id, parts)
WHERE m.app = $1 AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'"""

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
        $9::float8[]) AS d (conversation, id, parts, status, reason, usage, problem, at)
),{_HELD}
ended AS (
    UPDATE message m SET parts = d.parts::jsonb, status = d.status, reason = d.reason, usage = d.usage::jsonb,
        problem = d.problem::jsonb, ended = to_timestamp(d.at), worker = NULL
    FROM d JOIN held h ON h.id = d.conversation
    WHERE m.app = $1 AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
    RETURNING m.conversation, m.id, m.status
),{_DEQUEUE}"""

_FIND_LIVE = """
SELECT app, array_agg(DISTINCT conversation) AS conversations, array_agg(id) AS runs FROM message
WHERE status = 'live' AND worker = ANY ($1::integer[]) AND ($2::bigint[] IS NULL OR id = ANY ($2))
GROUP BY app ORDER BY app"""
_INTERRUPT = f"""
WITH{_HELD}
ended AS (
    UPDATE message m SET status = 'interrupted', reason = 'error', problem = $4::jsonb, ended = now(), worker = NULL
    FROM held h WHERE m.app = $1 AND m.conversation = h.id AND m.id = ANY ($3::bigint[]) AND m.status = 'live'
    RETURNING m.conversation, m.id, m.status
),{_DEQUEUE}"""


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
        row = await self._db.call(_OPEN_TURN, *_arguments(turn, existing=existing))
        assert row is not None
        match row["outcome"]:
            case "stored":
                self._count_rows(turn, existing=existing)
                return _accepted(turn, row)
            case "claimed":
                return await self.find_replayed(turn)
            case "agent":
                raise Conflict(reason="agent")
            case "waiting":
                raise Busy(reason="waiting", retry_after=1)
            case "unknown" if turn.create_as is None:
                raise NotFound(noun="conversation", ref=str(turn.conversation))
            case _:  # created or deleted between two statements
                return None

    async def _exists(self, turn: NewTurn) -> bool:
        assert turn.conversation is not None
        sql = f"SELECT FROM conversation c WHERE {NAMED}"
        parameters = ref_parameters(turn.principal.app, turn.user.id, turn.conversation)
        return await self._db.fetchrow(sql, *parameters) is not None

    async def find_replayed(self, turn: NewTurn) -> ReplayedRun | None:
        """The run of the request that claimed the idempotency key. Raises ``Conflict`` if that request differs."""
        idempotency = turn.idempotency_key
        if idempotency is None:
            return None
        row = await self._db.fetchrow(
            "SELECT k.digest, k.run, m.uid FROM claim k LEFT JOIN message m ON m.app = $1 AND m.uid = k.run"
            " WHERE k.app = $1 AND k.credential = $2 AND k.end_user = $3 AND k.scope = $4 AND k.key = $5"
            " AND k.expires > now()",
            *_claim_key(turn, idempotency),
        )
        if row is None:
            return None
        if row["uid"] is None:  # the first request failed, or its conversation was deleted: release the key
            await self._delete_claim(turn, idempotency, row["run"])
            return None
        if row["digest"] != idempotency.digest:
            raise Conflict(reason="idempotency")
        return ReplayedRun(run=row["run"])

    async def _delete_claim(self, turn: NewTurn, idempotency: IdempotencyKey, run: UUID | None) -> None:
        await self._db.execute(
            "DELETE FROM claim WHERE app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"
            " AND run = $6",
            *_claim_key(turn, idempotency),
            run,
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

    async def get_row_version(self, app_id: int, run_uid: UUID) -> str | None:
        return await self._db.fetchval("SELECT xmin::text FROM message WHERE app = $1 AND uid = $2", app_id, run_uid)

    async def get_queue(self, app_id: int, user_id: int, conversation: Ref) -> tuple[int, ...]:
        sql = f"SELECT c.queue FROM conversation c WHERE {NAMED}"
        queue: list[int] | None = await self._db.fetchval(sql, *ref_parameters(app_id, user_id, conversation))
        return tuple(queue or ())

    async def notify_stop_abandoned(self, runs: Sequence[int]) -> None:
        await self._db.execute(*notification(*(f"abandoned {run}" for run in runs)))

    async def notify_has_reader(self, run_id: int) -> None:
        await self._db.execute(*notification(f"read {run_id}"))

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        await self._store(_SAVE, checkpoints, await self._texts(checkpoints))

    async def finish(self, results: Sequence[RunResult]) -> set[int]:
        heads = await self._store(
            _FINISH,
            results,
            await self._texts(results),
            [result.ended.status.value for result in results],
            [clean(result.ended.reason) for result in results],
            [json_text(result.ended.usage) for result in results],
            [None if result.ended.problem is None else json_text(result.ended.problem.to_dict()) for result in results],
            [result.ended.at / 1000 for result in results],
        )
        await try_notify(self._db, [f"start {run}" for run in heads])
        return heads

    async def _store(self, sql: str, rows: Sequence[Checkpoint | RunResult], *columns: Sequence[Any]) -> set[int]:
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

    async def _texts(self, rows: Sequence[Checkpoint | RunResult]) -> list[str]:
        """The parts of each row as JSON; large ones are encoded in a thread. Raises ``Unstorable``."""
        parts = [row.parts for row in rows]
        try:
            if sum(row.size for row in rows) <= MAX_INLINE_JSON:
                return _encoded(parts)
            return await asyncio.get_running_loop().run_in_executor(self._threads, _encoded, parts)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unstorable(reason="database", detail=f"{type(error).__name__}: {error}") from error

    async def interrupt(self, workers: Sequence[int], problem: Problem, *, only: Sequence[int] | None = None) -> int:
        found = await self._db.fetch(_FIND_LIVE, list(workers), None if only is None else list(only))
        for row in found:
            rows = await self._db.fetch(
                _INTERRUPT, row["app"], row["conversations"], row["runs"], json_text(problem.to_dict())
            )
            await try_notify(self._db, [f"start {row['head']}" for row in rows])
        return sum(len(row["runs"]) for row in found)

    async def list_live_ids(self, worker: int) -> set[int]:
        """Ids of the live runs that the database assigns to ``worker``."""
        rows = await self._db.fetch("SELECT id FROM message WHERE status = 'live' AND worker = $1", worker)
        return {row["id"] for row in rows}

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


def _encoded(parts: Sequence[tuple[AnyPart, ...]]) -> list[str]:
    return [json_text(one) for one in parts]


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
    """The parameters of the function ``open_turn``."""
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
        not existing,
        turn.agent.id,
        text[:255],
        None if turn.variables is None else json_text(turn.variables),
        turn.max_waiting + 1,
        turn.worker,
        turn.run,
        turn.question,
        json_text(turn.parts),
        refs,
        [uid for ref in refs if (uid := parse_uid(ref)) is not None],
        [number for ref in refs if (number := parse_id(ref)) is not None],
        turn.principal.key.number,
        None if idempotency is None else idempotency.scope,
        None if idempotency is None else idempotency.key,
        None if idempotency is None else idempotency.digest,
        turn.idempotency_ttl_s,
    )


def _claim_key(turn: NewTurn, idempotency: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return turn.principal.app, turn.principal.key.number, turn.user.id, idempotency.scope, idempotency.key
