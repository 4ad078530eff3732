"""Files: uploaded, attached to messages, handed out. Source: wire specification ``xspace.md``, section 6.3."""

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
from palaver.dialects.xspace.access import own_conversation
from palaver.dialects.xspace.errors import envelope, success
from palaver.dialects.xspace.multipart import FormPart, digest, parts
from palaver.dialects.xspace.requests import INT64, TARGET, UploadForm, conversation_ref, stored_query
from palaver.dialects.xspace.responses import file_item, file_record, is_elsewhere, named_files
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Services
from palaver.wire.downloads import download_headers
from palaver.wire.framing import compact_json, encode_url
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.ranges import RangeNotSatisfiable, requested_range

UNKNOWN_TYPE = "application/octet-stream"
MAX_MEDIA_TYPE = 255
_TARGET = re.compile(TARGET, re.ASCII)
_INT64 = re.compile(INT64, re.ASCII)
_ENDING = re.compile(r".+(\.[A-Za-z0-9]{1,16})", re.ASCII | re.DOTALL)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(?:[ \t]*;[\x20-\x7e]*)?", re.ASCII | re.IGNORECASE)


async def upload(request: Request, who: Principal, services: Services) -> Response:
    """Keep a file for its user; a message attaches it by its key."""
    content_type = request.headers.get("content-type", "")
    form = [] if request.upload is None else await request.upload.run_in_thread(partial(parts, content_type))
    claim = idempotency_key(request, "POST /api/v1/file/upload")
    if claim is not None:
        claim = msgspec.structs.replace(
            claim, digest=sha256(request.query_string.encode() + b"\0" + digest(form)).digest()
        )
    file = next((part for part in form if part.name == "file" and part.filename is not None), None)
    if file is None:
        raise Invalid(field="file", rule="required")
    details = _details(form)
    key = _key(
        request, file, str(details["targetType"]), datetime.fromtimestamp(request.now, services.settings.timezone)
    )

    async def work() -> tuple[Response, Subject]:
        stored_file = await services.files.add(
            who,
            key=key,
            name=file.filename or "file",
            media_type=_media_type(file.media_type),
            content=file,
            details=details,
        )
        return success(request, file_record(stored_file, request)), stored_file

    return await answer_once(services, who, claim, work)


def _details(form: list[FormPart]) -> dict[str, Any]:
    fields = {part.name: part.text for part in form if part.filename is None}
    form_fields = UploadForm(**{name: fields[name] for name in UploadForm.__struct_fields__ if name in fields})
    target, number = form_fields.targetType or "Default", (form_fields.targetId or "-1").strip()
    if not _TARGET.fullmatch(target):
        raise Invalid(field="targetType", rule="range", detail="letters, digits, - and _")
    if not _INT64.fullmatch(number):
        raise Invalid(field="targetId", rule="range", detail="not a number")
    return {"targetType": target, "targetId": int(number), "metadata": form_fields.metadata}


def _key(request: Request, file: FormPart, target: str, today: datetime) -> str:
    ending = _ENDING.fullmatch(file.filename or "")
    name = sha256(request.trace.encode() + file.digest).hexdigest()[:32]
    return f"local/{target.lower()}/{today:%Y%m%d}/{name}{'' if ending is None else ending[1]}"


def _media_type(media_type: str) -> str:
    return media_type if len(media_type) <= MAX_MEDIA_TYPE and _MEDIA_TYPE.fullmatch(media_type) else UNKNOWN_TYPE


async def produced(request: Request, who: Principal, services: Services) -> Response:
    """The files of a conversation: what its messages attach and what its runs made."""
    conversation, _ = await own_conversation(request, who, services)
    named = named_files(await _files(who, services, conversation))
    return success(request, {"files": [file_item(one, conversation) for one in named]})


async def attached(request: Request, who: Principal, services: Services) -> Response:
    """The bytes of one of a conversation's files, by the name it has there; of one elsewhere, the way there."""
    conversation, _ = await services.chat.open_conversation(
        who, conversation_ref(request.path_params["conversationId"])
    )
    name = request.path_params["path"]
    for one in named_files(await _files(who, services, conversation)):
        if one.name == name:
            if is_elsewhere(one.file):
                return Response(status=302, media_type="", headers=(("Location", encode_url(one.file.ref)),))
            return await _bytes(request, services, await services.files.get(who, one.file.ref))
    raise NotFound(noun="file", ref=name[:80])


async def empty_path(_call: Request, _who: Principal, _room: Services) -> Response:
    raise Invalid(field="path", rule="required")


async def stored(request: Request, who: Principal, services: Services) -> Response:
    """The bytes of an uploaded file, shown or, with ``download=true``, saved. One that is another's is forbidden; its
    key cannot be guessed."""
    key = "/".join(request.path_params[name] for name in ("storage", "target", "day", "name"))
    try:
        file = await services.files.get(who, key)
    except NotFound:
        await services.files.get_unscoped(key)
        raise Forbidden(reason="file") from None
    return await _bytes(request, services, file, inline=not stored_query(request).download)


async def _files(who: Principal, services: Services, conversation: Conversation) -> list[File]:
    """What the messages attach: of all else that they say nothing is kept."""
    history = await services.chat.full_history(who, conversation)
    files = [file for message in history.first for file in message.files]
    if history.rest is not None:
        async for piece in history.rest:
            files += [file for message in piece for file in message.files]
    return files


async def _bytes(request: Request, services: Services, file: StoredFile, *, inline: bool = True) -> Response:
    """The file, or the range of it that is asked for."""
    tag = f'"{file.digest.hex()[:32]}"'
    headers = (
        ("Accept-Ranges", "bytes"),
        ("ETag", tag),
        ("Last-Modified", formatdate(int(file.created.timestamp()), usegmt=True)),
        *download_headers(file, inline=inline),
    )
    current = request.headers.get("if-range", tag) in {tag, headers[2][1]}
    try:
        span = requested_range(request.headers.get("range"), file.size) if current else None
    except RangeNotSatisfiable:
        body = compact_json(envelope(request, "4160", "Requested range not satisfiable"))
        return Response(status=416, body=body, headers=(*headers, ("Content-Range", f"bytes */{file.size}")))
    if span is None:
        pieces = services.files.pieces(file)
        return Response(body_iterator=pieces, length=file.size, media_type=file.media_type, headers=headers)
    start, length = span
    pieces = services.files.pieces(file, start=start, length=length)
    whole = ("Content-Range", f"bytes {start}-{start + length - 1}/{file.size}")
    return Response(
        status=206, body_iterator=pieces, length=length, media_type=file.media_type, headers=(*headers, whole)
    )
