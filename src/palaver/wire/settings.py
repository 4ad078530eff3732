"""The credential settings common to all dialects, and parsers for their values.

Source: the wire specification, section "Settings named by these files".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from palaver.core.problems import Invalid
from palaver.wire.contract import CredentialSetting


def parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004  the text is shown to the operator
    return value


def parse_limit(value: Any) -> int | None:
    """A limit: a whole number of at least 1, or null for none."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**53:
        raise ValueError("a whole number of at least 1, or null for no limit")
    return value


def parse_text(value: Any) -> str:
    """A non-blank string of at most 255 characters. Integers are converted: the command line parses ``7`` as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > 255:
        raise ValueError("a text of 1 to 255 characters")
    return value


def parse_texts(value: Any) -> list[str] | None:
    """A list of strings (or integers), or null for no restriction."""
    if value is None:
        return None
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    try:
        return [parse_text(entry) for entry in entries]
    except ValueError as error:
        raise ValueError("a list of texts or numbers, or null for all") from error


def one_of(*values: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in values:
            raise ValueError(" or ".join(values))
        return cast("str", value)

    return read


COMMON_SETTINGS: tuple[CredentialSetting, ...] = (
    CredentialSetting(name="enabled", read=parse_bool, meaning="false rejects every call"),
    CredentialSetting(name="rpm", read=parse_limit, meaning="calls per minute; null: no limit"),
    CredentialSetting(name="total", read=parse_limit, meaning="calls over the credential's lifetime; null: no limit"),
    CredentialSetting(name="default_user", read=parse_text, meaning="the end user for calls that name none"),
    CredentialSetting(
        name="abandoned",
        read=one_of("wait", "stop"),
        meaning="what a new message does while a turn runs that no client reads: wait, or stop the turn",
    ),
    CredentialSetting(
        name="max_runs", read=parse_limit, meaning="maximum concurrent runs in one process; null: the server's default"
    ),
    CredentialSetting(
        name="agents", read=parse_texts, meaning="the allowed agents, by uid, id, alias or name; null: all"
    ),
)


def read_settings(given: Mapping[str, Any], known: Sequence[CredentialSetting]) -> dict[str, Any]:
    """``given`` in stored form. Raises ``Invalid`` for an unknown setting or a value out of range, listing what is
    allowed."""
    by_name = {setting.name: setting for setting in known}
    stored: dict[str, Any] = {}
    for name, value in given.items():
        setting = by_name.get(name)
        if setting is None:
            raise Invalid(field=name, rule="choice", detail=f"unknown setting; available: {', '.join(sorted(by_name))}")
        try:
            stored[name] = setting.read(value)
        except ValueError as error:
            raise Invalid(field=name, rule="range", detail=f"{value!r} is not allowed; it takes {error}") from error
    return stored
