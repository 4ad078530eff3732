"""Settings from the command line, the environment or one TOML file; the first one found wins.

A setting ``name`` is ``PALAVER_NAME`` in the environment and ``name = …`` in the file. README.md lists them all, as a
test checks.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from palaver.store.data_folder import find_problem
from palaver.tools.addresses import parse_allowed

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a server, immutable. README.md lists them with their descriptions."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 picks a free one")] = 8080
    workers: Annotated[Positive, Meta(description="number of server processes; they share the port")] = 1
    data: Annotated[str, Meta(description="data folder: embedded PostgreSQL, master key, `palaver.toml`")] = ""
    database_url: Annotated[
        str | None, Meta(description="URL of your own PostgreSQL server (15 or newer), instead of the embedded one")
    ] = None
    database_direct_url: Annotated[
        str | None,
        Meta(description="direct URL of PostgreSQL, if `PALAVER_DATABASE_URL` is a pooler in transaction mode"),
    ] = None
    database_connections: Annotated[Positive, Meta(description="maximum PostgreSQL connections per process")] = 10
    master_key: Annotated[
        str | None,
        Meta(description="64 hex digits; encrypts the stored secrets; default: `master.key` in the data folder"),
    ] = None
    model: Annotated[str, Meta(description="default model: `extract`, `openai:NAME` or `scripted`")] = "extract"
    fallback_model: Annotated[
        str | None, Meta(description="model to use when an agent's own model fails before its first word")
    ] = None
    fallback_base_url: Annotated[
        str | None, Meta(description="endpoint of the fallback model; default: `OPENAI_BASE_URL`")
    ] = None
    fallback_api_key: Annotated[str | None, Meta(description="API key for that endpoint")] = None
    image_model: Annotated[str | None, Meta(description="default image model: `openai:NAME`")] = None
    speech_model: Annotated[str | None, Meta(description="default text-to-speech model: `openai:NAME`")] = None
    model_first_byte_timeout_s: Annotated[
        Seconds, Meta(description="maximum wait for the first byte of a model's answer, in seconds, including retries")
    ] = 120
    model_idle_timeout_s: Annotated[
        Seconds, Meta(description="maximum gap between two bytes of a model's answer, in seconds")
    ] = 60
    demo: Annotated[
        bool | None,
        Meta(
            description="create the application `demo` with the agent `guide` on first start;"
            " default: only if `PALAVER_HOST` is a loopback address"
        ),
    ] = None
    max_body_bytes: Annotated[Positive, Meta(description="maximum size of a JSON body, in bytes")] = 1_048_576
    max_upload_bytes: Annotated[Positive, Meta(description="maximum size of a multipart upload, in bytes")] = (
        104_857_600
    )
    max_unverified_connections: Annotated[
        Positive, Meta(description="maximum connections per process that have not presented a valid credential")
    ] = 256
    head_timeout_s: Annotated[Seconds, Meta(description="timeout for receiving the request headers, in seconds")] = 10
    body_timeout_s: Annotated[Seconds, Meta(description="timeout for receiving a JSON body, in seconds")] = 60
    upload_timeout_s: Annotated[Seconds, Meta(description="timeout for receiving an upload, in seconds")] = 900
    write_timeout_s: Annotated[
        Seconds,
        Meta(
            description="seconds without progress after which a client that does not read its response is disconnected"
        ),
    ] = 60
    min_rate: Annotated[Positive, Meta(description="minimum transfer rate of a client, in bytes per second")] = 500
    max_user_files_bytes: Annotated[Positive, Meta(description="storage quota for one end user's files, in bytes")] = (
        1_073_741_824
    )
    max_application_files_bytes: Annotated[
        Positive, Meta(description="storage quota for the files of all end users of an application, in bytes")
    ] = 21_474_836_480
    max_users: Annotated[Positive, Meta(description="maximum number of end users per application")] = 10_000_000
    max_conversations: Annotated[Positive, Meta(description="maximum number of conversations per application")] = (
        20_000_000
    )
    max_user_conversations: Annotated[Positive, Meta(description="maximum number of conversations per end user")] = (
        10_000_000
    )
    max_conversation_messages: Annotated[
        Annotated[int, Meta(ge=2)],
        Meta(description="maximum number of messages per conversation, questions and answers"),
    ] = 1_000_000
    max_idempotency_keys: Annotated[
        Positive, Meta(description="maximum number of stored `Idempotency-Key` values per credential")
    ] = 10_000_000
    max_codes: Annotated[
        Positive, Meta(description="maximum number of valid WPS authorization codes per credential")
    ] = 100_000
    max_tokens: Annotated[
        Positive, Meta(description="maximum number of unexpired WPS tokens and used codes per credential")
    ] = 10_000_000
    max_request_ids: Annotated[
        Positive, Meta(description="maximum number of remembered request ids per credential")
    ] = 10_000_000
    max_buffered_bytes: Annotated[
        Positive, Meta(description="memory per process for request bodies, in bytes; one credential may use half of it")
    ] = 67_108_864
    max_page_bytes: Annotated[
        Positive, Meta(description="maximum stored size of the messages in one page of history, in bytes")
    ] = 4_194_304
    max_spooled_bytes: Annotated[
        Positive,
        Meta(description="disk space per process for uploads in progress, in bytes; one credential may use half of it"),
    ] = 2_147_483_648
    fetch_allow: Annotated[
        str,
        Meta(description="non-public hosts, addresses and networks from which files may be fetched, comma-separated"),
    ] = ""
    fetch_max_bytes: Annotated[Positive, Meta(description="maximum size of a file fetched from a URL, in bytes")] = (
        20_971_520
    )
    fetch_timeout_s: Annotated[Seconds, Meta(description="timeout for fetching a file, in seconds")] = 15
    heartbeat_s: Annotated[Seconds, Meta(description="seconds of silence before a stream sends a keep-alive")] = 10
    idempotency_ttl_s: Annotated[Seconds, Meta(description="retention of an `Idempotency-Key`, in seconds")] = 86_400
    run_timeout_s: Annotated[Seconds, Meta(description="maximum duration of a run, in seconds; a longer one fails")] = (
        600
    )
    max_waiting_turns: Annotated[int, Meta(ge=0, description="maximum queued messages per conversation")] = 4
    max_live_runs: Annotated[
        Positive, Meta(description="maximum concurrent runs per process; further requests are rejected")
    ] = 2000
    max_application_runs: Annotated[
        Positive | None,
        Meta(description="maximum concurrent runs per application; default: seven eighths of `PALAVER_MAX_LIVE_RUNS`"),
    ] = None
    max_credential_runs: Annotated[
        Positive | None,
        Meta(
            description="maximum concurrent runs per credential without its own `max_runs`;"
            " default: three quarters of `PALAVER_MAX_LIVE_RUNS`"
        ),
    ] = None
    max_answer_bytes: Annotated[
        Positive, Meta(description="maximum size of an answer, in bytes; a longer one is cut off")
    ] = 16_777_216
    max_live_bytes: Annotated[
        Positive,
        Meta(description="memory per process for answers in progress, in bytes; above it, the longest ones fail"),
    ] = 268_435_456
    timezone: Annotated[str, Meta(description="time zone assumed for dates that have none")] = "UTC"
    language: Annotated[
        str, Meta(description="default language of translated messages (XSpace only): `zh-CN` or `en-US`")
    ] = "en-US"
    site_url: Annotated[
        str | None, Meta(description="public base URL of this server; default: taken from the request")
    ] = None
    drain_s: Annotated[float, Meta(ge=0, description="grace period for running turns at shutdown, in seconds")] = 5
    stop_s: Annotated[
        float, Meta(ge=1, description="time limit for the rest of the shutdown, in seconds, even if nothing responds")
    ] = 10
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="log level")] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"], Meta(description="`auto`: human-readable on a terminal, JSON elsewhere")
    ] = "auto"

    @property
    def data_folder(self) -> Path:
        return Path(self.data)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether the server listens only on a loopback address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def creates_demo(self) -> bool:
        return self.listens_on_loopback if self.demo is None else self.demo


class SettingsError(ValueError):
    """An invalid setting. The message has its name and what is expected."""


OTHER_VARIABLES = {"PALAVER_CONFIG": "path of the TOML file; default: `palaver.toml` in the data folder"}
"""Environment variables that are not settings."""


def default_data_folder(environment: Mapping[str, str]) -> Path:
    """The default data folder: ``/var/lib/palaver`` for root, otherwise ``palaver`` in the user's XDG data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/palaver")
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "palaver"


def load(environment: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Load the settings. ``overrides`` are the values from the command line, ``None`` where there is none. Raises
    ``SettingsError``."""
    from_environment = _from_environment(environment)
    from_command_line = {name: value for name, value in overrides.items() if value is not None}
    folder = from_command_line.get("data") or from_environment.get("data") or default_data_folder(environment)
    folder = Path(folder).expanduser()
    from_file = _from_file(environment.get("PALAVER_CONFIG"), folder)
    values = {**from_file, **from_environment, **from_command_line, "data": str(folder.absolute())}
    converted = {name: _convert(name, value) for name, value in values.items()}
    settings = Settings(**converted)
    if (reason := find_problem(settings.data_folder)) is not None:
        raise SettingsError(f"data: {reason}")
    if settings.database_direct_url is not None and settings.database_url is None:
        raise SettingsError("database_direct_url: it requires database_url, which is not set")
    try:
        ZoneInfo(settings.timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SettingsError(f"timezone: {settings.timezone!r} is not the name of a time zone, such as 'UTC'") from error
    try:
        parse_allowed(settings.fetch_allow)
    except ValueError as error:
        raise SettingsError(f"fetch_allow: {error}") from error
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith("PALAVER_") or name in OTHER_VARIABLES or value == "":
            continue
        setting = name.removeprefix("PALAVER_").lower()
        if setting in Settings.__struct_fields__:
            values[setting] = value
    return values


def _from_file(path: str | None, folder: Path) -> dict[str, Any]:
    file = Path(path) if path else folder / "palaver.toml"
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path:
            raise SettingsError(f"PALAVER_CONFIG: the file {path!r} does not exist") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{file}: {error}") from error
    for name in values:
        if name not in Settings.__struct_fields__:
            near = difflib.get_close_matches(name, Settings.__struct_fields__, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"{file}: there is no setting {name!r}{hint}")
    return values


def _convert(name: str, value: Any) -> Any:
    field = next(field for field in msgspec.structs.fields(Settings) if field.name == name)
    try:
        return msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {value!r} is not valid: {str(error)[0].lower()}{str(error)[1:]}") from error


def setting_docs() -> list[tuple[str, str, str]]:
    """(name, default, description) of every setting, in the order of declaration."""
    rows: list[tuple[str, str, str]] = []
    for field in msgspec.structs.fields(Settings):
        default = "" if field.default in (None, "") else str(field.default)
        rows.append(
            (field.name, default.lower() if isinstance(field.default, bool) else default, _description(field.type))
        )
    return rows


def _description(annotation: Any) -> str:
    metas = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in reversed(metas) if meta.description), "")
