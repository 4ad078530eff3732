"""Uploading and downloading files. Source: wire specification ``xspace.md``, section 6.3."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from palaver.core.problems import Forbidden, Invalid, NotFound
from palaver.core.types import Conversation, File, Principal, StoredFile
from palaver.dialects.xspace.access import open_conversation
from palaver.dialects.xspace.envelope import error
from palaver.dialects.xspace.multipart import FormPart, digest, parts
from palaver.dialects.xspace.requests import INT64, TARGET, StoredFileQuery, UploadForm, conversation_ref
from palaver.dialects.xspace.responses import FileList, FileRecord, file_item, file_record, is_external, named_files
from palaver.wire.bodies import idempotency_key, parse
from palaver.wire.contract import Request, Response, Services
from palaver.wire.downloads import download_headers
from palaver.wire.framing import compact_json, encode_url
from palaver.wire.idempotent import Subject
from palaver.wire.ranges import RangeNotSatisfiable, requested_range
from palaver.wire.responses import IdempotentResponse

DEFAULT_MEDIA_TYPE = "application/octet-stream"
MAX_MEDIA_TYPE = 255
_TARGET = re.compile(TARGET, re.ASCII)
_INT64 = re.compile(INT64, re.ASCII)
_EXTENSION = re.compile(r".+(\.[A-Za-z0-9]{1,16})", re.ASCII | re.DOTALL)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(?:[ \t]*;[\x20-\x7e]*)?", re.ASCII | re.IGNORECASE)


async def upload(request: Request, principal: Principal, services: Services) -> IdempotentResponse[FileRecord]:
    """Store a file for the end user; messages attach it by its key."""
    content_type = request.headers.get("content-type", "")
    form = [] if request.upload is None else await request.upload.run_in_thread(partial(parts, content_type))
    key = idempotency_key(request, "POST /api/v1/file/upload")
    if key is not None:
        # Two equal forms may have different boundaries.
        key = msgspec.structs.replace(key, digest=sha256(request.query_string.encode() + b"\0" + digest(form)).digest())
    file = next((part for part in form if part.name == "file" and part.filename is not None), None)
    if file is None:
        raise Invalid(field="file", rule="required")
    details = _details(form)
    today = datetime.fromtimestamp(request.now, services.settings.timezone)
    file_key = _file_key(request, file, str(details["targetType"]), today)

    async def work() -> tuple[FileRecord, Subject]:
        stored = await services.files.add(
            principal,
            key=file_key,
            name=file.filename or "file",
            media_type=_media_type(file.media_type),
            content=file,
            details=details,
        )
        return file_record(stored, request), stored

    return IdempotentResponse(key=key, create=work)


def _details(form: list[FormPart]) -> dict[str, Any]:
    fields = parse(UploadForm, {part.name: part.text for part in form if part.filename is None})
    target_type, target_id = fields.target_type or "Default", (fields.target_id or "-1").strip()
    if not _TARGET.fullmatch(target_type):
        raise Invalid(field="targetType", rule="range", detail="letters, digits, - and _")
    if not _INT64.fullmatch(target_id):
        raise Invalid(field="targetId", rule="range", detail="not a number")
    return {"targetType": target_type, "targetId": int(target_id), "metadata": fields.metadata}


def _file_key(request: Request, file: FormPart, target_type: str, today: datetime) -> str:
    extension = _EXTENSION.fullmatch(file.filename or "")
    name = sha256(request.trace.encode() + file.digest).hexdigest()[:32]
    return f"local/{target_type.lower()}/{today:%Y%m%d}/{name}{'' if extension is None else extension[1]}"


def _media_type(media_type: str) -> str:
    is_valid = len(media_type) <= MAX_MEDIA_TYPE and _MEDIA_TYPE.fullmatch(media_type)
    return media_type if is_valid else DEFAULT_MEDIA_TYPE


async def list_files(request: Request, principal: Principal, services: Services) -> FileList:
    """List the files attached to a conversation's messages."""
    conversation, _ = await open_conversation(request, principal, services)
    files = named_files(await _attachments(principal, services, conversation))
    return FileList(files=[file_item(file, conversation) for file in files])


async def conversation_file(request: Request, principal: Principal, services: Services) -> Response:
    """One of a conversation's files, by its name in the conversation; a redirect if it is on another server."""
    ref = conversation_ref(request.path_params["conversationId"])
    conversation, _ = await services.chat.open_conversation(principal, ref)
    name = request.path_params["path"]
    for named in named_files(await _attachments(principal, services, conversation)):
        if named.name == name:
            if is_external(named.file):
                return Response(status=302, media_type="", headers=(("Location", encode_url(named.file.ref)),))
            return await _content(request, services, await services.files.get(principal, named.file.ref))
    raise NotFound(noun="file", ref=name[:80])


async def unnamed_file(_request: Request, _principal: Principal, _services: Services) -> Response:
    raise Invalid(field="path", rule="required")


async def stored_file(request: Request, query: StoredFileQuery, principal: Principal, services: Services) -> Response:
    """The content of an uploaded file, with ``download=true`` as an attachment. Another user's file is forbidden rather
    than not found: its key cannot be guessed."""
    key = "/".join(request.path_params[name] for name in ("storage", "target", "day", "name"))
    try:
        file = await services.files.get(principal, key)
    except NotFound:
        await services.files.get_unscoped(key)
        raise Forbidden(reason="file") from None
    return await _content(request, services, file, inline=not query.download)


async def _attachments(principal: Principal, services: Services, conversation: Conversation) -> list[File]:
    """The files attached to the conversation's messages. Keeps nothing else of the messages in memory."""
    history = await services.chat.full_history(principal, conversation)
    files = [file for message in history.first for file in message.files]
    if history.rest is not None:
        async for messages in history.rest:
            files += [file for message in messages for file in message.files]
    return files


async def _content(request: Request, services: Services, file: StoredFile, *, inline: bool = True) -> Response:
    """The content of a file, or the requested range of it."""
    etag = f'"{file.digest.hex()[:32]}"'
    last_modified = formatdate(int(file.created.timestamp()), usegmt=True)
    headers = (
        ("Accept-Ranges", "bytes"),
        ("ETag", etag),
        ("Last-Modified", last_modified),
        *download_headers(file, inline=inline),
    )
    unchanged = request.headers.get("if-range", etag) in {etag, last_modified}
    try:
        span = requested_range(request.headers.get("range"), file.size) if unchanged else None
    except RangeNotSatisfiable:
        body = compact_json(error(request, "4160", "Requested range not satisfiable"))
        return Response(status=416, body=body, headers=(*headers, ("Content-Range", f"bytes */{file.size}")))
    if span is None:
        pieces = services.files.pieces(file)
        return Response(body_iterator=pieces, length=file.size, media_type=file.media_type, headers=headers)
    start, length = span
    pieces = services.files.pieces(file, start=start, length=length)
    content_range = ("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
    return Response(
        status=206,
        body_iterator=pieces,
        length=length,
        media_type=file.media_type,
        headers=(*headers, content_range),
    )
