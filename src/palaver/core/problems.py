"""The error hierarchy: kinds with data. The dialects map them to status codes and vendors' messages.

Problem
├─ Unauthenticated(reason, subject)   missing, wrong or expired key, wrong end user
├─ Forbidden(reason)                  a valid key without permission
├─ NotFound(noun, ref)                nonexistent, or not the caller's: indistinguishable for the caller
├─ Invalid(field, rule, detail)       the request breaks a rule
├─ Conflict(reason)                   Idempotency-Key reused, agent does not match the conversation, call has a result
├─ Busy(reason, retry_after)          rate, day, usage, waiting messages, overload, shutting down, row quota
├─ Upstream(reason, status, detail)   the model's endpoint failed
└─ Internal(reason, detail)           server error: interrupted run, database unavailable, anything unforeseen
   └─ Unstorable                      … a value that the database rejects
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
    "call",
]
AuthReason = Literal["missing", "unknown", "disabled", "wrong", "expired", "user", "repeated"]
Rule = Literal["required", "type", "range", "json", "size", "choice", "length"]


class Problem(Exception):  # noqa: N818  the product's term; "ProblemError" would be redundant
    """The base of all errors. Problems are equal if kind and data are equal."""

    kind: ClassVar[str] = "problem"

    def data(self) -> dict[str, Any]:
        """The data of this kind, for storing and logging."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, from which ``from_dict`` restores an equal problem."""
        return {"kind": self.kind, **self.data()}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Problem:
        data = dict(record)
        kind = _KINDS.get(data.pop("kind", ""), Internal)
        try:
            return kind(**data)
        except TypeError:  # written by a newer palaver
            return Internal(reason="unforeseen", detail=str(record))

    def __str__(self) -> str:
        data = ", ".join(f"{name}={value!r}" for name, value in self.data().items() if value not in {None, ""})
        return f"{self.kind}({data})"

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

    def __init__(self, *, reason: Literal["idempotency", "agent", "name", "decided"], detail: str = "") -> None:
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
    """The database is available but rejects the value: retrying would not help."""


AnyProblem = Unauthenticated | Forbidden | NotFound | Invalid | Conflict | Busy | Upstream | Internal
"""The kinds, for a ``match`` that ends in ``assert_never``."""

_KINDS: dict[str, type[Any]] = {
    kind.kind: kind for kind in (Unauthenticated, Forbidden, NotFound, Invalid, Conflict, Busy, Upstream, Internal)
}
