"""Files: kept for their user, attached to messages by their key. Source: ``docs/native.md``, section 8."""

from __future__ import annotations

from hashlib import sha256

from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.native import described
from palaver.dialects.native.callers import route
from palaver.dialects.native.shapes import media_type_of, upload_query
from palaver.dialects.native.shown import file_shown
from palaver.dialects.native.words import ROOT
from palaver.wire.bodies import idempotency
from palaver.wire.contract import Call, Reply, Room
from palaver.wire.downloads import download_headers
from palaver.wire.framing import compact
from palaver.wire.once import Subject, once


async def upload(call: Call, who: Principal, room: Room) -> Reply:
    """Keep the body as a file."""
    name = upload_query(call).name
    if call.upload is None or not call.upload.size:
        raise Invalid(field="file", rule="required")

    content = call.upload

    async def work() -> tuple[Reply, Subject]:
        kept = await room.drawer.add(
            who,
            key=sha256(call.trace.encode() + content.digest).hexdigest()[:32],
            name=name,
            media_type=media_type_of(call),
            content=content,
        )
        place = ("Location", f"{ROOT}/files/{kept.key}")
        return Reply(status=201, body=compact(file_shown(kept)), headers=(place,)), kept

    return await once(room, who, idempotency(call, f"POST {ROOT}/files"), work)


async def download(call: Call, who: Principal, room: Room) -> Reply:
    """A file's bytes. A browser is told to save them: what somebody uploaded is not to run as a page of this server."""
    file = await room.drawer.get(who, call.params["key"])
    headers = download_headers(file, inline=False)
    return Reply(pieces=room.drawer.pieces(file), length=file.size, media_type=file.media_type, headers=headers)


async def delete(call: Call, who: Principal, room: Room) -> Reply:
    await room.drawer.delete(who, call.params["key"])
    return Reply(status=204)


ROUTES = (
    route("POST", "files", upload, "upload a file to attach", described.UPLOAD, creating=True, upload=True),
    route("GET", "files/{key}", download, "an uploaded file's bytes", described.DOWNLOAD),
    route("DELETE", "files/{key}", delete, "remove an uploaded file", described.DELETE_FILE),
)
