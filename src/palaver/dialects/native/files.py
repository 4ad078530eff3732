"""Files: stored for their user, attached to messages by their key. Source: ``docs/native.md``, section 8."""

from __future__ import annotations

from hashlib import sha256

from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.native import openapi
from palaver.dialects.native.errors import ROOT
from palaver.dialects.native.requests import UploadQuery, media_type_of, query_request, upload_query
from palaver.dialects.native.responses import FileResponse, file_response, ok_response
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services
from palaver.wire.downloads import download_headers
from palaver.wire.idempotent import Subject
from palaver.wire.responses import NO_CONTENT, RAW, IdempotentResponse, JSONResponse


async def upload(
    request: Request, query: UploadQuery, principal: Principal, services: Services
) -> IdempotentResponse[FileResponse]:
    """Store the body as a file."""
    if request.upload is None or not request.upload.size:
        raise Invalid(field="file", rule="required")

    content = request.upload

    async def work() -> tuple[JSONResponse[FileResponse], Subject]:
        file = await services.files.add(
            principal,
            key=sha256(request.trace.encode() + content.digest).hexdigest()[:32],
            name=query.name,
            media_type=media_type_of(request),
            content=content,
        )
        location = ("Location", f"{ROOT}/files/{file.key}")
        return JSONResponse(content=file_response(file), status=201, headers=(location,)), file

    return IdempotentResponse(key=idempotency_key(request, f"POST {ROOT}/files"), create=work)


async def download(request: Request, principal: Principal, services: Services) -> Response:
    """Serve a file as an attachment: an uploaded page must not run in a browser under this server's origin."""
    file = await services.files.get(principal, request.path_params["key"])
    headers = download_headers(file, inline=False)
    return Response(
        body_iterator=services.files.pieces(file), length=file.size, media_type=file.media_type, headers=headers
    )


async def delete(request: Request, principal: Principal, services: Services) -> None:
    await services.files.delete(principal, request.path_params["key"])


ROUTES = (
    Route(
        method="POST",
        path=f"{ROOT}/files",
        endpoint=upload,
        request=query_request(UploadQuery, upload_query),
        response=ok_response(FileResponse),
        summary="upload a file to attach",
        idempotent=True,
        upload=True,
        operation=openapi.UPLOAD,
    ),
    Route(
        method="GET",
        path=f"{ROOT}/files/{{key}}",
        endpoint=download,
        response=RAW,
        summary="an uploaded file's bytes",
        operation=openapi.DOWNLOAD,
    ),
    Route(
        method="DELETE",
        path=f"{ROOT}/files/{{key}}",
        endpoint=delete,
        response=NO_CONTENT,
        summary="remove an uploaded file",
        operation=openapi.DELETE_FILE,
    ),
)
