"""Generated images and speech in the vendor's format. Source: wire specification ``sonaops.md``, 5.5, 5.6."""

from __future__ import annotations

import base64
from uuid import UUID

from palaver.core.chat import Run
from palaver.core.ports.models import GeneratedImage
from palaver.core.problems import NotFound, Upstream
from palaver.core.types import Principal
from palaver.wire.contract import Services
from palaver.wire.ranges import RangeNotSatisfiable, requested_range

MP3 = "audio/mpeg"


def data_uri(picture: GeneratedImage) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"


def audio_key(message: UUID) -> str:
    """The storage key of a message's speech."""
    return f"voice/{message.hex}.mp3"


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of a requested ``Range``, which some browsers' players need; ``None`` to send the whole file,
    also if the range cannot be satisfied."""
    try:
        return requested_range(header, size)
    except RangeNotSatisfiable:
        return None


async def ensure_audio(principal: Principal, services: Services, run: Run, text: str, voice: str) -> bool:
    """Synthesize the speech of a run's answer unless it exists; later requests never change it. Returns whether it is
    new."""
    message = run.answer
    key = audio_key(message.uid)
    if await _exists(principal, services, key):
        return False
    if not services.media.can_synthesize_speech(run.agent):
        raise Upstream(reason="configuration")
    content = await services.media.synthesize_speech(run.agent, text, voice)
    name = f"{message.uid.hex}.mp3"
    await services.files.add(
        principal, key=key, name=name, media_type=MP3, content=content, conversation_id=message.conversation
    )
    return True


async def _exists(principal: Principal, services: Services, key: str) -> bool:
    try:
        await services.files.get(principal, key)
    except NotFound:
        return False
    return True
