"""Settings: frozen, from one TOML file, the environment and the command line, in this order of rising weight.

Every setting ``name`` is ``PALAVER_NAME`` in the environment and ``name = …`` in the file. README.md lists them; a
test holds that list to this one.
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

from palaver.store.folders import unusable
from palaver.tools.addresses import allowed

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator may say. The comment behind ``Meta`` is what the README says of it."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8080
    workers: Annotated[Positive, Meta(description="server processes, which share the port")] = 1
    data: Annotated[str, Meta(description="data folder: embedded PostgreSQL, master key, `palaver.toml`")] = ""
    database_url: Annotated[
        str | None, Meta(description="a PostgreSQL server of your own (15 or newer) instead of the embedded one")
    ] = None
    database_direct_url: Annotated[
        str | None,
        Meta(description="PostgreSQL itself, where `PALAVER_DATABASE_URL` is a pooler in transaction mode"),
    ] = None
    database_connections: Annotated[
        Positive, Meta(description="connections to PostgreSQL at most, for each process")
    ] = 10
    master_key: Annotated[
        str | None, Meta(description="64 hex digits that seal the stored secrets; without it a file in the data folder")
    ] = None
    model: Annotated[str, Meta(description="model of agents that name none: `extract`, `openai:NAME`, `scripted`")] = (
        "extract"
    )
    fallback_model: Annotated[
        str | None, Meta(description="model that answers when an agent's own fails before its first word")
    ] = None
    fallback_base_url: Annotated[
        str | None, Meta(description="endpoint of the fallback model, if it is not that of `OPENAI_BASE_URL`")
    ] = None
    fallback_api_key: Annotated[str | None, Meta(description="key for that endpoint")] = None
    image_model: Annotated[
        str | None, Meta(description="model that paints for agents that name none: `openai:NAME`")
    ] = None
    speech_model: Annotated[
        str | None, Meta(description="model that speaks for agents that name none: `openai:NAME`")
    ] = None
    model_first_byte_timeout_s: Annotated[
        Seconds, Meta(description="seconds for the first byte of a model's answer, retries included")
    ] = 120
    model_idle_timeout_s: Annotated[Seconds, Meta(description="seconds between two bytes of a model's answer")] = 60
    demo: Annotated[
        bool | None,
        Meta(
            description="make the application `demo` with the agent `guide` at the first start;"
            " unless you say so only where nobody but this machine reaches `PALAVER_HOST`"
        ),
    ] = None
    max_body_bytes: Annotated[Positive, Meta(description="largest JSON body")] = 1_048_576
    max_upload_bytes: Annotated[Positive, Meta(description="largest multipart upload")] = 104_857_600
    max_unverified_connections: Annotated[
        Positive, Meta(description="connections of one process whose callers have not shown a good credential")
    ] = 256
    head_timeout_s: Annotated[Seconds, Meta(description="seconds for a request's head")] = 10
    body_timeout_s: Annotated[Seconds, Meta(description="seconds for a JSON body")] = 60
    upload_timeout_s: Annotated[Seconds, Meta(description="seconds for an upload")] = 900
    write_timeout_s: Annotated[Seconds, Meta(description="seconds after which a reader that takes nothing is left")] = (
        60
    )
    min_rate: Annotated[Positive, Meta(description="bytes a second that a sender or reader must manage")] = 500
    max_user_files_bytes: Annotated[Positive, Meta(description="files that one end user may keep, in bytes")] = (
        1_073_741_824
    )
    max_application_files_bytes: Annotated[
        Positive, Meta(description="files that all end users of an application may keep, in bytes")
    ] = 21_474_836_480
    max_users: Annotated[Positive, Meta(description="end users of an application")] = 10_000_000
    max_conversations: Annotated[Positive, Meta(description="conversations of an application")] = 20_000_000
    max_user_conversations: Annotated[Positive, Meta(description="conversations of an end user")] = 10_000_000
    max_conversation_messages: Annotated[
        Annotated[int, Meta(ge=2)], Meta(description="messages of a conversation, questions and answers")
    ] = 1_000_000
    max_idempotency_keys: Annotated[
        Positive, Meta(description="values of `Idempotency-Key` that are remembered of a credential")
    ] = 10_000_000
    max_codes: Annotated[Positive, Meta(description="WPS authorization codes of a credential that are good")] = 100_000
    max_tokens: Annotated[
        Positive, Meta(description="WPS tokens of a credential that have not expired, and codes that were used")
    ] = 10_000_000
    max_request_ids: Annotated[Positive, Meta(description="request ids of a credential that it must not repeat")] = (
        10_000_000
    )
    max_buffered_bytes: Annotated[
        Positive, Meta(description="memory of one process for bodies; a credential may have half of it")
    ] = 67_108_864
    max_page_bytes: Annotated[
        Positive, Meta(description="bytes of messages, as they are stored, that a page of a history has at most")
    ] = 4_194_304
    max_spooled_bytes: Annotated[
        Positive, Meta(description="disk of one process for uploads that come; a credential may have half of it")
    ] = 2_147_483_648
    fetch_allow: Annotated[
        str, Meta(description="hosts, addresses and networks that may be fetched from although they are not public")
    ] = ""
    fetch_max_bytes: Annotated[Positive, Meta(description="largest file fetched from an address")] = 20_971_520
    fetch_timeout_s: Annotated[Seconds, Meta(description="seconds in which a file must be fetched")] = 15
    heartbeat_s: Annotated[
        Seconds, Meta(description="seconds without an event after which a stream shows it lives")
    ] = 10
    idempotency_ttl_s: Annotated[Seconds, Meta(description="seconds an `Idempotency-Key` is remembered")] = 86_400
    run_timeout_s: Annotated[Seconds, Meta(description="seconds after which a run that has not ended fails")] = 600
    max_waiting_turns: Annotated[int, Meta(ge=0, description="messages that may wait in one conversation")] = 4
    max_live_runs: Annotated[Positive, Meta(description="runs one process works on; above it new ones are refused")] = (
        2000
    )
    max_application_runs: Annotated[
        Positive | None, Meta(description="… of these of one application; without it seven eighths")
    ] = None
    max_credential_runs: Annotated[
        Positive | None,
        Meta(description="… and of one credential, unless that has a `max_runs`; without it three quarters"),
    ] = None
    max_answer_bytes: Annotated[
        Positive, Meta(description="bytes an answer may have; a model that says more is cut off")
    ] = 16_777_216
    max_live_bytes: Annotated[
        Positive,
        Meta(description="memory one process has for the answers being written; above it the longest of them fail"),
    ] = 268_435_456
    token_ttl_s: Annotated[Seconds, Meta(description="life of a WPS access token")] = 7200
    refresh_token_ttl_s: Annotated[Seconds, Meta(description="life of a WPS refresh token")] = 2_592_000
    code_ttl_s: Annotated[Seconds, Meta(description="life of a WPS authorization code")] = 300
    timezone: Annotated[str, Meta(description="zone of dates that carry none")] = "UTC"
    language: Annotated[str, Meta(description="language of translated messages")] = "en-US"
    site_url: Annotated[str | None, Meta(description="public address of this server; without it the request's own")] = (
        None
    )
    drain_s: Annotated[
        float, Meta(ge=0, description="seconds running turns have to end by themselves when the server stops")
    ] = 5
    stop_s: Annotated[
        float, Meta(ge=1, description="seconds that everything else of a stop may take, whatever does not answer")
    ] = 10
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="what is logged")] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"], Meta(description="`auto`: for people on a terminal, JSON elsewhere")
    ] = "auto"

    @property
    def folder(self) -> Path:
        return Path(self.data)

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine reaches the server directly."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def makes_demo(self) -> bool:
        return self.on_loopback if self.demo is None else self.demo


class SettingsError(ValueError):
    """A setting that cannot be, with its name and what would be right."""


OUTSIDE = {"PALAVER_CONFIG": "path of the TOML file; without it `palaver.toml` in the data folder"}
"""Environment variables that are not settings."""


def default_folder(environment: Mapping[str, str]) -> Path:
    """Where data lives unless said otherwise: ``/var/lib/palaver`` for root, else the user's own data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/palaver")
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "palaver"


def load(environment: Mapping[str, str], said: Mapping[str, Any]) -> Settings:
    """The settings; ``said`` is what the command line says. Raises ``SettingsError``."""
    from_environment = _from_environment(environment)
    chosen = {name: value for name, value in said.items() if value is not None}
    folder = Path(chosen.get("data") or from_environment.get("data") or default_folder(environment)).expanduser()
    from_file = _from_file(environment.get("PALAVER_CONFIG"), folder)
    values = {**from_file, **from_environment, **chosen, "data": str(folder.absolute())}
    converted = {name: _converted(name, value) for name, value in values.items()}
    settings = Settings(**converted)
    if (reason := unusable(settings.folder)) is not None:
        raise SettingsError(f"data: {reason}")
    if settings.database_direct_url is not None and settings.database_url is None:
        raise SettingsError("database_direct_url: it belongs to a database_url, and there is none")
    try:
        ZoneInfo(settings.timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SettingsError(f"timezone: {settings.timezone!r} is not the name of a zone, like 'UTC'") from error
    try:
        allowed(settings.fetch_allow)
    except ValueError as error:
        raise SettingsError(f"fetch_allow: {error}") from error
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith("PALAVER_") or name in OUTSIDE or value == "":
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
            raise SettingsError(f"PALAVER_CONFIG: there is no file {path!r}") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{file}: {error}") from error
    for name in values:
        if name not in Settings.__struct_fields__:
            near = difflib.get_close_matches(name, Settings.__struct_fields__, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"{file}: there is no setting {name!r}{hint}")
    return values


def _converted(name: str, value: Any) -> Any:
    field = next(field for field in msgspec.structs.fields(Settings) if field.name == name)
    try:
        return msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {value!r} cannot be: {str(error)[0].lower()}{str(error)[1:]}") from error


def described() -> list[tuple[str, str, str]]:
    """(name, default, meaning) of every setting, in order."""
    rows: list[tuple[str, str, str]] = []
    for field in msgspec.structs.fields(Settings):
        default = "" if field.default in (None, "") else str(field.default)
        rows.append((field.name, default.lower() if isinstance(field.default, bool) else default, _meaning(field.type)))
    return rows


def _meaning(annotation: Any) -> str:
    metas = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in reversed(metas) if meta.description), "")
