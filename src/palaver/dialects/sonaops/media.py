"""Pictures and spoken messages as the vendor hands them out. Source: wire specification ``sonaops.md``, 5.5, 5.6."""

from __future__ import annotations

import base64
from uuid import UUID

import msgspec

from palaver.core.ports.models import GeneratedImage
from palaver.core.problems import NotFound, Upstream
from palaver.core.types import Agent, Message, Principal
from palaver.wire.contract import Services
from palaver.wire.ranges import RangeNotSatisfiable, requested_range

MP3 = "audio/mpeg"


def data_uri(picture: GeneratedImage) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"


def audio_key(message: UUID) -> str:
    """Under which a spoken message is kept."""
    return f"voice/{message.hex}.mp3"


def stretch(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of what a ``Range`` asks for, as players of some browsers must; ``None`` where the whole file is
    the answer, as it is to a range that the file does not have."""
    try:
        return requested_range(header, size)
    except RangeNotSatisfiable:
        return None


async def spoken(who: Principal, room: Services, message: Message, text: str, voice: str) -> bool:
    """See to it that the message's sound file is there: the first call's, whatever later ones say. Whether this is
    that call."""
    key = audio_key(message.uid)
    if await _is_kept(who, room, key):
        return False
    agent = await _speaker_of(who, room, message)
    if not room.media.can_synthesize_speech(agent):
        raise Upstream(reason="configuration")
    content = await room.media.synthesize_speech(agent, text, voice)
    name = f"{message.uid.hex}.mp3"
    await room.files.add(who, key=key, name=name, media_type=MP3, content=content, conversation=message.conversation)
    return True


async def _speaker_of(who: Principal, room: Services, message: Message) -> Agent:
    """The message's agent, also one that the key may not use or that is disabled: any message of the end user may be
    spoken."""
    conversation = await room.chat.conversation(who, message.conversation)
    settings = {name: value for name, value in who.key.settings.items() if name != "agents"}
    anywhere = msgspec.structs.replace(who, key=msgspec.structs.replace(who.key, settings=settings))
    return await room.chat.any_agent(anywhere, conversation.agent)


async def _is_kept(who: Principal, room: Services, key: str) -> bool:
    try:
        await room.files.get(who, key)
    except NotFound:
        return False
    return True
