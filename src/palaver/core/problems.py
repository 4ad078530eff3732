"""The one error family: kinds with data. Status codes and vendors' words are the dialects' business.

Problem
├─ Unauthenticated(reason, subject)   no key, a wrong one, an expired one, a wrong end user
├─ Forbidden(reason)                  a good key that may not do this
├─ NotFound(noun, ref)                absent, or somebody else's: the caller cannot tell
├─ Invalid(field, rule, detail)       a request that breaks a rule, and which
├─ Conflict(reason)                   Idempotency-Key reused, an agent that is not the conversation's
├─ Busy(reason, retry_after)          rate, day, usage, waiting messages, overload, shutting down, quota of rows
├─ Upstream(reason, status, detail)   the model's endpoint failed
└─ Internal(reason, detail)           ours: interrupted run, database away, anything unforeseen
   └─ Unstorable                      … a value that the database refuses
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Noun = Literal[
    "route",
    "method",
    "agent",
    "conversation",
    "message",
    "run",
    "file",
    "user",
    "knowledge",
    "model",
    "key",
    "document",
    "application",
]
AuthReason = Literal["missing", "unknown", "disabled", "wrong", "expired", "user", "repeated"]
Rule = Literal["required", "type", "range", "json", "size", "choice", "length"]


class Problem(Exception):  # noqa: N818  the product's word; "ProblemError" would say it twice
    """Why something cannot be done. Equal when kind and data are equal."""

    kind: ClassVar[str] = "problem"

    def data(self) -> dict[str, Any]:
        """The kind's own members, for storing and logging."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def record(self) -> dict[str, Any]:
        """A JSON object from which ``recall`` makes an equal problem."""
        return {"kind": self.kind, **self.data()}

    @staticmethod
    def recall(record: dict[str, Any]) -> Problem:
        data = dict(record)
        kind = _KINDS.get(data.pop("kind", ""), Internal)
        try:
            return kind(**data)
        except TypeError:  # written by a newer palaver
            return Internal(reason="unforeseen", detail=str(record))

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.data().items() if value not in {None, ""})
        return f"{self.kind}({shown})"

    def __repr__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.kind == other.kind and self.data() == other.data()

    def __hash__(self) -> int:
        return hash(self.kind)


class Unauthenticated(Problem):
    kind = "unauthenticated"

    def __init__(self, *, reason: AuthReason, subject: str = "") -> None:
        super().__init__()
        self.reason: AuthReason = reason
        self.subject = subject


class Forbidden(Problem):
    kind = "forbidden"

    def __init__(self, *, reason: str) -> None:
        super().__init__()
        self.reason = reason


class NotFound(Problem):
    kind = "not_found"

    def __init__(self, *, noun: Noun, ref: str = "") -> None:
        super().__init__()
        self.noun: Noun = noun
        self.ref = ref


class Invalid(Problem):
    kind = "invalid"

    def __init__(self, *, field: str, rule: Rule, detail: str = "") -> None:
        super().__init__()
        self.field = field
        self.rule: Rule = rule
        self.detail = detail


class Conflict(Problem):
    kind = "conflict"

    def __init__(self, *, reason: Literal["idempotency", "agent", "name"], detail: str = "") -> None:
        super().__init__()
        self.reason = reason
        self.detail = detail


class Busy(Problem):
    kind = "busy"

    def __init__(
        self,
        *,
        reason: Literal["rate", "day", "usage", "waiting", "overload", "closing", "full"],
        retry_after: float | None = None,
    ) -> None:
        super().__init__()
        self.reason = reason
        self.retry_after = retry_after


class Upstream(Problem):
    kind = "upstream"

    def __init__(
        self,
        *,
        reason: Literal["connect", "timeout", "refused", "limit", "cut", "malformed", "rejected", "configuration"],
        status: int | None = None,
        detail: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__()
        self.reason = reason
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class Internal(Problem):
    kind = "internal"

    def __init__(
        self, *, reason: Literal["interrupted", "database", "timeout", "unforeseen"], detail: str = ""
    ) -> None:
        super().__init__()
        self.reason = reason
        self.detail = detail


class Unstorable(Internal):
    """The database is there and refuses what it was given: to try again would not help."""


AnyProblem = Unauthenticated | Forbidden | NotFound | Invalid | Conflict | Busy | Upstream | Internal
"""The kinds, for a ``match`` that ends in ``assert_never``."""

_KINDS: dict[str, type[Any]] = {
    kind.kind: kind for kind in (Unauthenticated, Forbidden, NotFound, Invalid, Conflict, Busy, Upstream, Internal)
}
