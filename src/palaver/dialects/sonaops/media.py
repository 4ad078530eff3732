"""Pictures and spoken messages as the vendor hands them out. Source: wire specification ``sonaops.md``, 5.5, 5.6."""

from __future__ import annotations

import base64
import re
from uuid import UUID

import msgspec

from palaver.core.ports import Picture
from palaver.core.problems import NotFound, Upstream
from palaver.core.types import Agent, Message, Principal
from palaver.wire.contract import Room

MP3 = "audio/mpeg"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


def data_uri(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"


def audio_key(message: UUID) -> str:
    """Under which a spoken message is kept."""
    return f"voice/{message.hex}.mp3"


def stretch(wanted: str, size: int) -> tuple[int, int] | None:
    """Beginning and end of the one stretch that a ``Range`` asks for, as players of some browsers must; ``None`` where
    the whole file is the answer."""
    named = _RANGE.fullmatch(wanted)
    if named is None or named[0] == "bytes=-":
        return None
    first, last = named.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    return (start, end) if start < end else None


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
    await room.drawer.add(who, key=key, name=f"{message.uid.hex}.mp3", media_type=MP3, content=content)
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
