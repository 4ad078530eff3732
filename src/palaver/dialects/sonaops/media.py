"""Pictures and spoken messages as the vendor hands them out. Source: wire specification ``sonaops.md``, 5.5, 5.6."""

from __future__ import annotations

import base64
from uuid import UUID

import msgspec

from palaver.core.ports import Picture
from palaver.core.problems import NotFound, Upstream
from palaver.core.types import Agent, Message, Principal
from palaver.wire.contract import Room
from palaver.wire.ranges import NoSuchRange, wanted

MP3 = "audio/mpeg"


def data_uri(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"


def audio_key(message: UUID) -> str:
    """Under which a spoken message is kept."""
    return f"voice/{message.hex}.mp3"


def stretch(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of what a ``Range`` asks for, as players of some browsers must; ``None`` where the whole file is
    the answer, as it is to a range that the file does not have."""
    try:
        return wanted(header, size)
    except NoSuchRange:
        return None


async def spoken(who: Principal, room: Room, message: Message, text: str, voice: str) -> bool:
    """See to it that the message's sound file is there: the first call's, whatever later ones say. Whether this is
    that call."""
    key = audio_key(message.uid)
    if await _is_kept(who, room, key):
        return False
    agent = await _speaker_of(who, room, message)
    if not room.studio.speaks(agent):
        raise Upstream(reason="configuration")
    content = await room.studio.speak(agent, text, voice)
    name = f"{message.uid.hex}.mp3"
    await room.drawer.add(who, key=key, name=name, media_type=MP3, content=content, conversation=message.conversation)
    return True


async def _speaker_of(who: Principal, room: Room, message: Message) -> Agent:
    """The message's agent, also one that the key may not use or that is disabled: any message of the end user may be
    spoken."""
    conversation = await room.chat.conversation(who, message.conversation)
    settings = {name: value for name, value in who.key.settings.items() if name != "agents"}
    anywhere = msgspec.structs.replace(who, key=msgspec.structs.replace(who.key, settings=settings))
    return await room.chat.any_agent(anywhere, conversation.agent)


async def _is_kept(who: Principal, room: Room, key: str) -> bool:
    try:
        await room.drawer.get(who, key)
    except NotFound:
        return False
    return True
