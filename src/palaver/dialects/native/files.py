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


async def upload(request: Request, who: Principal, services: Services) -> Response:
    """Keep the body as a file."""
    name = upload_query(request).name
    if request.upload is None or not request.upload.size:
        raise Invalid(field="file", rule="required")

    content = request.upload

    async def work() -> tuple[Response, Subject]:
        file = await services.files.add(
            who,
            key=sha256(request.trace.encode() + content.digest).hexdigest()[:32],
            name=name,
            media_type=media_type_of(request),
            content=content,
        )
        location = ("Location", f"{ROOT}/files/{file.key}")
        return Response(status=201, body=compact_json(file_response(file)), headers=(location,)), file

    return await answer_once(services, who, idempotency_key(request, f"POST {ROOT}/files"), work)


async def download(request: Request, who: Principal, services: Services) -> Response:
    """A file's bytes. A browser is told to save them: what somebody uploaded is not to run as a page of this server."""
    file = await services.files.get(who, request.path_params["key"])
    headers = download_headers(file, inline=False)
    return Response(
        body_iterator=services.files.pieces(file), length=file.size, media_type=file.media_type, headers=headers
    )


async def delete(request: Request, who: Principal, services: Services) -> Response:
    await services.files.delete(who, request.path_params["key"])
    return Response(status=204)


ROUTES = (
    route("POST", "files", upload, "upload a file to attach", openapi.UPLOAD, creating=True, upload=True),
    route("GET", "files/{key}", download, "an uploaded file's bytes", openapi.DOWNLOAD),
    route("DELETE", "files/{key}", delete, "remove an uploaded file", openapi.DELETE_FILE),
)
