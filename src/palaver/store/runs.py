"""Runs: a turn is stored whole in one statement, its growth together with other runs', its end likewise.

The conversation's row is the lock and the queue. Every statement that adds or ends a run updates that row, so
PostgreSQL puts them in order; what the statement decides, it decides from the row it then holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import UUID

from palaver.core.ports.store import Checkpoint, IdempotencyKey, NewTurn, ReplayedRun, RunResult, StoredTurn
from palaver.core.problems import Busy, Conflict, NotFound, Problem, Unstorable
from palaver.core.types import AnyPart, File, Message, Ref, Text, as_number, as_uid, clean, new_uid
from palaver.store.conversations import NAMED, conversation, json_text, message, named
from palaver.store.database import Database, Row
from palaver.store.quotas import Quotas

LONG = 64 * 1024
"""Bytes of JSON from which on it is put together in a thread."""
ATTEMPTS = 5
"""How often opening a run begins anew because somebody else changed what it was decided on."""

_C_COLUMNS = (
    "c.app, c.id, c.uid, c.end_user, c.agent, c.alias, c.title, c.opening, c.created, c.modified, c.icon, c.summary,"
    " c.variables, c.last_status, c.queue"
)

# A claim is free when there is none, or an expired one.
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
    INSERT INTO message (app, conversation, id, uid, role, parts, status, worker)
    SELECT c.app, c.id, c.queue[cardinality(c.queue)] - 1, $12::uuid, 'user', $13::jsonb, NULL, NULL FROM c
    UNION ALL
    SELECT c.app, c.id, c.queue[cardinality(c.queue)], $10::uuid, 'assistant', '[]', 'live', $14::integer FROM c
),
attached AS (
    INSERT INTO attachment (app, conversation, file)
    SELECT c.app, c.id, f.id FROM c JOIN file f ON f.app = c.app AND f.end_user = $2
        AND (f.key = ANY ($19::text[]) OR f.uid = ANY ($20::uuid[]) OR f.id = ANY ($21::bigint[]))
    ON CONFLICT DO NOTHING
)"""


def _opening_sql(*, known: bool, claim: bool) -> str:
    """The statement that stores a turn, in a conversation that is ``known`` or new.

    $1 app, $2 end user, $3 … $5 the conversation's names (known) or uid, agent, alias (new), $6 credential,
    $7 … $9 scope, key and digest of the claim, $10 the run's uid, $11 the claim's life in seconds, $12 the
    question's uid, $13 its parts, $14 worker, $15 agent, $16 how many runs may be live, $17 the opening words, $18
    the conversation's variables (new), $19 … $21 the keys, uids and numbers of the files that the message attaches.
    """
    guard = _GRANTED if claim else "true"
    if known:
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
        "WITH given AS (SELECT $3::bigint, $6::bigint, $7::text, $8::text, $9::bytea, $11::float8, $16::integer,"
        " $18::jsonb),"
    )
    granted = _GRANTED if claim else "true"
    return (
        unused
        + (_CLAIM if claim else "")
        + change
        + _MESSAGES
        + f" SELECT {granted} AS granted, now() AS said, c.* FROM (SELECT) one LEFT JOIN c ON true"
    )


_OPEN = {(known, claim): _opening_sql(known=known, claim=claim) for known in (True, False) for claim in (True, False)}

_MESSAGE = (
    "SELECT m.*, m.status = 'live' AND c.queue[1] <> m.id AS waiting FROM message m"
    " JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
)

_SAVE = """
UPDATE message m SET parts = d.parts::jsonb
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS d (app, conversation, id, parts)
WHERE m.app = d.app AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'"""

# Whoever changes a conversation and its messages locks the conversation first, and several in one order, so that nobody
# waits for somebody who waits for him: a deletion, the ends of runs, another process's ends.
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
    UPDATE message m SET parts = d.parts::jsonb, status = d.status, reason = d.reason, usage = d.usage::jsonb,
        problem = d.problem::jsonb, ended = to_timestamp(d.at), worker = NULL
    FROM d JOIN held h ON h.app = d.app AND h.id = d.conversation
    WHERE m.app = d.app AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
    RETURNING m.app, m.conversation, m.id, m.status
),{_DEQUEUE}"""

_INTERRUPT = f"""
WITH d AS (
    SELECT app, conversation, id FROM message
    WHERE status = 'live' AND worker = ANY ($1::integer[]) AND ($3::bigint[] IS NULL OR id = ANY ($3))
),{_HELD}
ended AS (
    UPDATE message m SET status = 'interrupted', reason = 'error', problem = $2::jsonb, ended = now(), worker = NULL
    FROM d JOIN held h ON h.app = d.app AND h.id = d.conversation
    WHERE m.app = d.app AND m.conversation = d.conversation AND m.id = d.id AND m.status = 'live'
    RETURNING m.app, m.conversation, m.id, m.status
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
        except Busy as busy:
            replay = await self.find_replayed(turn) if busy.reason == "full" else None
            if replay is None:
                raise
            return replay  # what was answered before needs no room
        raise Busy(reason="waiting", retry_after=1)

    async def _want_room(self, opening: NewTurn, *, known: bool) -> None:
        """Raises ``Busy(reason="full")``."""
        app, user = opening.who.app, opening.user.id
        if known:
            assert opening.conversation is not None
            await self._quotas.want_room("conversation_messages", *named(app, user, opening.conversation), rows=2)
        else:
            await self._quotas.want_conversation(app, user)
        if opening.idempotency_key is not None:
            await self._quotas.want_room("idempotency_keys", app, opening.who.key.number)

    def _note(self, opening: NewTurn, *, known: bool) -> None:
        """What was stored."""
        app, user = opening.who.app, opening.user.id
        if opening.conversation is not None:
            self._quotas.note("conversation_messages", *named(app, user, opening.conversation), rows=2)
        if not known:
            self._quotas.note_conversation(app, user)
        if opening.idempotency_key is not None:
            self._quotas.note("idempotency_keys", app, opening.who.key.number)

    async def _open_once(self, opening: NewTurn) -> StoredTurn | ReplayedRun | None:
        """One attempt; ``None`` when what it went by changed meanwhile."""
        known = opening.conversation is not None
        if known and opening.create_as is not None and not await self._exists(opening):
            known = False
        await self._want_room(opening, known=known)
        arguments = _arguments(opening, known=known)
        row = await self._db.fetchrow(_OPEN[known, opening.idempotency_key is not None], *arguments)
        assert row is not None
        if row["id"] is not None:
            self._note(opening, known=known)
            return _accepted(opening, row)
        try:
            return await self._why_not(opening, known=known, granted=row["granted"])
        except (NotFound, Conflict, Busy):
            if opening.idempotency_key is not None and row["granted"]:
                await self._give_back(opening, opening.idempotency_key)
            raise

    async def _exists(self, opening: NewTurn) -> bool:
        assert opening.conversation is not None
        sql = f"SELECT FROM conversation c WHERE {NAMED}"
        parameters = named(opening.who.app, opening.user.id, opening.conversation)
        return await self._db.fetchrow(sql, *parameters) is not None

    async def _why_not(self, opening: NewTurn, *, known: bool, granted: bool) -> ReplayedRun | None:
        """Why the statement stored nothing: raises it, or finds the run of an equal call."""
        found: Row | None = None
        if known:
            assert opening.conversation is not None
            sql = f"SELECT c.agent, cardinality(c.queue) AS live FROM conversation c WHERE {NAMED}"
            found = await self._db.fetchrow(sql, *named(opening.who.app, opening.user.id, opening.conversation))
            if found is None:
                if opening.create_as is not None:  # deleted between two statements
                    return None
                raise NotFound(noun="conversation", ref=str(opening.conversation))
            if found["agent"] != opening.agent.id:
                raise Conflict(reason="agent")
        if opening.idempotency_key is not None and not granted:
            return await self.find_replayed(opening)
        if found is not None and found["live"] > opening.max_waiting:
            raise Busy(reason="waiting", retry_after=1)
        if opening.idempotency_key is not None:
            await self._give_back(opening, opening.idempotency_key)
        return None

    async def find_replayed(self, turn: NewTurn) -> ReplayedRun | None:
        """The run of the call that made the claim. Raises ``Conflict`` when it was another call."""
        claim = turn.idempotency_key
        if claim is None:
            return None
        row = await self._db.fetchrow(
            "SELECT k.digest, k.run, m.uid FROM claim k LEFT JOIN message m ON m.app = k.app AND m.uid = k.run"
            " WHERE k.app = $1 AND k.credential = $2 AND k.end_user = $3 AND k.scope = $4 AND k.key = $5"
            " AND k.expires > now()",
            *_claim_key(turn, claim),
        )
        if row is None:
            return None
        if row["uid"] is None:  # the first call came to nothing, or its conversation is deleted: the key is free
            await self._give_back(turn, claim, run=row["run"])
            return None
        if row["digest"] != claim.digest:
            raise Conflict(reason="idempotency")
        return ReplayedRun(run=row["run"])

    async def _give_back(self, opening: NewTurn, claim: IdempotencyKey, *, run: UUID | None = None) -> None:
        await self._db.execute(
            "DELETE FROM claim WHERE app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"
            " AND run = $6",
            *_claim_key(opening, claim),
            run or opening.run,
        )

    async def get(self, app: int, run: UUID) -> Message | None:
        row = await self._db.fetchrow(f"{_MESSAGE} WHERE m.app = $1 AND m.uid = $2 AND m.role = 'assistant'", app, run)
        return None if row is None else message(row)

    async def turn(self, app: int, run: UUID) -> tuple[Message, Message] | None:
        rows = await self._db.fetch(
            f"{_MESSAGE} JOIN message a ON a.app = m.app AND a.conversation = m.conversation"
            " AND m.id IN (a.id - 1, a.id)"
            " WHERE a.app = $1 AND a.uid = $2 AND a.role = 'assistant' ORDER BY m.id",
            app,
            run,
        )
        return (message(rows[0]), message(rows[1])) if len(rows) == 2 else None

    async def live(self, app: int, conversation: int) -> list[UUID]:
        rows = await self._db.fetch(
            "SELECT uid FROM message WHERE app = $1 AND conversation = $2 AND status = 'live' ORDER BY id DESC",
            app,
            conversation,
        )
        return [row["uid"] for row in rows]

    async def tell_to_stop(self, runs: Sequence[UUID]) -> None:
        await self._db.execute(
            "SELECT pg_notify('palaver', 'stop ' || run) FROM unnest($1::text[]) AS run", [run.hex for run in runs]
        )

    async def any_live(self, app: int, runs: Sequence[UUID]) -> bool:
        sql = "SELECT EXISTS (SELECT FROM message WHERE app = $1 AND uid = ANY ($2) AND status = 'live')"
        return await self._db.fetchval(sql, app, list(runs))

    async def row_version(self, app: int, run: UUID) -> str | None:
        return await self._db.fetchval("SELECT xmin::text FROM message WHERE app = $1 AND uid = $2", app, run)

    async def queue(self, app: int, user: int, conversation: Ref) -> tuple[int, ...]:
        sql = f"SELECT c.queue FROM conversation c WHERE {NAMED}"
        queue: list[int] | None = await self._db.fetchval(sql, *named(app, user, conversation))
        return tuple(queue or ())

    async def tell_to_stop_abandoned(self, runs: Sequence[int]) -> None:
        await self._db.execute(
            "SELECT pg_notify('palaver', 'abandoned ' || run) FROM unnest($1::bigint[]) AS run", runs
        )

    async def tell_of_reader(self, run: int) -> None:
        await self._db.execute("SELECT pg_notify('palaver', 'read ' || $1::bigint)", run)

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        await self._db.execute(
            _SAVE,
            [growth.app for growth in checkpoints],
            [growth.conversation for growth in checkpoints],
            [growth.run for growth in checkpoints],
            await self._texts(checkpoints),
        )

    async def finish(self, results: Sequence[RunResult]) -> set[int]:
        rows = await self._db.fetch(
            _FINISH,
            [outcome.app for outcome in results],
            [outcome.conversation for outcome in results],
            [outcome.run for outcome in results],
            await self._texts(results),
            [outcome.ended.status.value for outcome in results],
            [clean(outcome.ended.reason) for outcome in results],
            [json_text(outcome.ended.usage) for outcome in results],
            [
                None if outcome.ended.problem is None else json_text(outcome.ended.problem.record())
                for outcome in results
            ],
            [outcome.ended.at / 1000 for outcome in results],
        )
        return {row["head"] for row in rows}

    async def _texts(self, rows: Sequence[Checkpoint | RunResult]) -> list[str]:
        """The parts of each as JSON, put together in a thread where they are long. Raises ``Unstorable``."""
        parts = [row.parts for row in rows]
        try:
            if sum(row.size for row in rows) <= LONG:
                return _encoded(parts)
            return await asyncio.get_running_loop().run_in_executor(self._threads, _encoded, parts)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unstorable(reason="database", detail=f"{type(error).__name__}: {error}") from error

    async def interrupt(self, dead: Sequence[int], problem: Problem, *, only: Sequence[int] | None = None) -> int:
        runs = None if only is None else list(only)
        sql = (
            "SELECT count(*) FROM message WHERE status = 'live' AND worker = ANY ($1::integer[])"
            " AND ($2::bigint[] IS NULL OR id = ANY ($2))"
        )
        count: int = await self._db.fetchval(sql, list(dead), runs)
        await self._db.execute(_INTERRUPT, list(dead), json_text(problem.record()), runs)
        return count

    async def held(self, worker: int) -> set[int]:
        """Ids of the live runs that are this process's by what is stored."""
        rows = await self._db.fetch("SELECT id FROM message WHERE status = 'live' AND worker = $1", worker)
        return {row["id"] for row in rows}

    async def heads(self, worker: int) -> set[int]:
        """Live runs of this process that are first in their conversation: what it should be working on."""
        rows = await self._db.fetch(
            "SELECT m.id FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
            " WHERE m.status = 'live' AND m.worker = $1 AND c.queue[1] = m.id",
            worker,
        )
        return {row["id"] for row in rows}

    async def forget_claims(self) -> None:
        """Remove claims that have run out."""
        await self._db.execute("DELETE FROM claim WHERE expires <= now()")


def _encoded(parts: Sequence[tuple[AnyPart, ...]]) -> list[str]:
    return [json_text(one) for one in parts]


def _accepted(opening: NewTurn, row: Row) -> StoredTurn:
    queue: list[int] = row["queue"]
    here, run = conversation(row), queue[-1]

    def message_of(number: int, uid: UUID, role: Literal["user", "assistant"], parts: tuple[AnyPart, ...]) -> Message:
        return Message(
            app=here.app,
            id=number,
            uid=uid,
            conversation=here.id,
            role=role,
            parts=parts,
            created=row["said"],
            waiting=role == "assistant" and len(queue) > 1,
        )

    return StoredTurn(
        conversation=here,
        question=message_of(run - 1, opening.question, "user", opening.parts),
        answer=message_of(run, opening.run, "assistant", ()),
        first=len(queue) == 1,
        ahead=tuple(queue[:-1]),
    )


def _arguments(opening: NewTurn, *, known: bool) -> tuple[Any, ...]:
    claim = opening.idempotency_key
    if known:
        assert opening.conversation is not None
        app, user, *names = named(opening.who.app, opening.user.id, opening.conversation)
    else:
        app, user = opening.who.app, opening.user.id
        names = [None, new_uid(), None if opening.create_as is None else clean(opening.create_as)]
    words = "".join(part.text for part in opening.parts if isinstance(part, Text))
    refs = [clean(part.ref) for part in opening.parts if isinstance(part, File)]
    return (
        app,
        user,
        *names,
        opening.who.key.number,
        None if claim is None else claim.scope,
        None if claim is None else claim.key,
        None if claim is None else claim.digest,
        opening.run,
        opening.idempotency_ttl_s,
        opening.question,
        json_text(opening.parts),
        opening.worker,
        opening.agent.id,
        opening.max_waiting + 1,
        words[:255],
        None if opening.variables is None else json_text(opening.variables),
        refs,
        [uid for ref in refs if (uid := as_uid(ref)) is not None],
        [number for ref in refs if (number := as_number(ref)) is not None],
    )


def _claim_key(opening: NewTurn, claim: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return opening.who.app, opening.who.key.number, opening.user.id, claim.scope, claim.key
