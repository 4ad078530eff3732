"""Files: kept for their user, attached to messages by their key. Source: ``docs/native.md``, section 8."""

from __future__ import annotations

from hashlib import sha256

from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.native import openapi
from palaver.dialects.native.access import route
from palaver.dialects.native.errors import ROOT
from palaver.dialects.native.requests import media_type_of, upload_query
from palaver.dialects.native.responses import file_response
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Services
from palaver.wire.downloads import download_headers
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import Subject, answer_once


async def upload(call: Request, who: Principal, room: Services) -> Response:
    """Keep the body as a file."""
    name = upload_query(call).name
    if call.upload is None or not call.upload.size:
        raise Invalid(field="file", rule="required")

    content = call.upload

    async def work() -> tuple[Response, Subject]:
        kept = await room.files.add(
            who,
            key=sha256(call.trace.encode() + content.digest).hexdigest()[:32],
            name=name,
            media_type=media_type_of(call),
            content=content,
        )
        place = ("Location", f"{ROOT}/files/{kept.key}")
        return Response(status=201, body=compact_json(file_response(kept)), headers=(place,)), kept

    return await answer_once(room, who, idempotency_key(call, f"POST {ROOT}/files"), work)


async def download(call: Request, who: Principal, room: Services) -> Response:
    """A file's bytes. A browser is told to save them: what somebody uploaded is not to run as a page of this server."""
    file = await room.files.get(who, call.params["key"])
    headers = download_headers(file, inline=False)
    return Response(pieces=room.files.pieces(file), length=file.size, media_type=file.media_type, headers=headers)


async def delete(call: Request, who: Principal, room: Services) -> Response:
    await room.files.delete(who, call.params["key"])
    return Response(status=204)


ROUTES = (
    route("POST", "files", upload, "upload a file to attach", openapi.UPLOAD, creating=True, upload=True),
    route("GET", "files/{key}", download, "an uploaded file's bytes", openapi.DOWNLOAD),
    route("DELETE", "files/{key}", delete, "remove an uploaded file", openapi.DELETE_FILE),
)
