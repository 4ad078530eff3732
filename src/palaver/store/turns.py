"""Opening a turn: one call of a function of the database stores a message, the run that answers it and, if new, their
conversation.

The conversation's row is the lock and the queue: see store/runs.py.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from palaver.core.ports.store import IdempotencyKey, NewTurn, ReplayedRun, StoredTurn
from palaver.core.problems import Busy, Conflict, NotFound
from palaver.core.types import AnyPart, File, Message, Text, clean, new_uid, parse_id, parse_uid
from palaver.store.conversations import C_COLUMNS, NAMED, conversation_from_row, json_text, ref_parameters
from palaver.store.database import Database, Row
from palaver.store.quotas import Quotas

ATTEMPTS = 5
"""Maximum attempts to store a turn when concurrent changes invalidate it."""

# The function is in store/schema/0013_open_turn.sql. It is called with values alone: beside a table, it might be
# executed on a machine that does not have the sequence of message ids.
_OPEN_TURN = (
    f"SELECT outcome, stored_at, {C_COLUMNS.replace('c.', '(c).')} FROM open_turn($1, $2, $3, $4, $5, $6, $7, $8, $9,"
    " $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
)


class TurnTable:
    """The opening of turns."""

    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

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
        json_text(turn.input),
    )


def _claim_key(turn: NewTurn, idempotency: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return turn.principal.app, turn.principal.key.number, turn.user.id, idempotency.scope, idempotency.key
