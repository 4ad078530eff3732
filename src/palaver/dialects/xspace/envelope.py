"""The envelope of JSON responses. Source: the vendor's page, and the wire specification ``xspace.md``, section 3."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec
from msgspec import Meta

from palaver.wire.contract import Request, ResponseType
from palaver.wire.responses import JSONValue, json_response

OK = "0000"
T = TypeVar("T")


class XSpaceEnvelope(msgspec.Struct, Generic[T], kw_only=True, rename="camel"):
    """The envelope of every response except streams and files, errors included; its HTTP status is 200."""

    code: Annotated[str, Meta(description='"0000" for success.')]
    display_code: Annotated[str, Meta(description="The same as `code`.")]
    message: str
    data: T
    tid: Annotated[str, Meta(pattern="^[0-9]+$", description="Unique per response.")]
    success: bool


class XSpaceError(XSpaceEnvelope[None], kw_only=True, rename="camel"):
    """An error response."""


def ok_response(shape: type[T]) -> ResponseType[JSONValue[T]]:
    """A ``shape`` in the envelope."""
    return json_response(cast("Any", XSpaceEnvelope)[shape], ok_envelope)


def ok_envelope(request: Request, data: T, message: str = "success") -> XSpaceEnvelope[T]:
    return XSpaceEnvelope(code=OK, display_code=OK, message=message, data=data, tid=trace_id(request), success=True)


def done_envelope(request: Request, data: None = None) -> XSpaceEnvelope[None]:
    """The envelope of successful calls that return no data."""
    return ok_envelope(request, data, "成功")


DONE: ResponseType[JSONValue[None]] = json_response(XSpaceEnvelope[None], done_envelope)
"""Success without data."""


def error(request: Request, code: str, message: str) -> XSpaceError:
    return XSpaceError(code=code, display_code=code, message=message, data=None, tid=trace_id(request), success=False)


def trace_id(request: Request) -> str:
    """``tid``: a number from 100 to 999998, then the time of the request in epoch milliseconds."""
    return f"{int(request.trace, 16) % 999_899 + 100}{int(request.now * 1000):013d}"


def prefers_chinese(request: Request) -> bool:
    """Whether messages are in Chinese: by the cookie ``lang``, else the first language of ``Accept-Language``, else the
    server's language."""
    cookies = (pair.partition("=") for pair in request.headers.get("cookie", "").split(";"))
    chosen = [value.strip().strip('"') for name, _, value in cookies if name.strip() == "lang"]
    accepted = request.headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
    language = next((language for language in (*chosen, accepted) if language), request.language)
    return language.lower().replace("_", "-") == "zh-cn"
