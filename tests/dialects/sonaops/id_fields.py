"""Where ids stand in the calls of the Sonaops API; see ``support.id_fields``."""

from __future__ import annotations

from collections.abc import Mapping

from support.id_fields import ANY_NAME, UUIDS, IdField, Probe

_AGENT, _TALK = IdField("agent", ANY_NAME), IdField("conversation", ANY_NAME)
_IN_TALK = {"agentId": _AGENT, "conversationId": _TALK}

FIELDS: Mapping[str, tuple[Probe, ...]] = {
    "POST /v1/chat/conversation": ({"agentId": _AGENT},),
    "POST /v1/agent/list": (),
    "GET /v1/agent/list": (),
    "POST /v1/chat/stream": ({**_IN_TALK, "text": "hi"},),
    "POST /v1/chat/inspiration": (_IN_TALK,),
    "POST /v1/chat/image": ({**_IN_TALK, "text": "a cat"},),
    "POST /v1/chat/tts": ({"messageId": IdField("message", UUIDS), "processedText": "hi"},),
    "GET /saas/voice-broadcast/{name}": ({"name": IdField("message", ("mp3",), silent=True)},),
}

EXEMPT: Mapping[str, str] = {}

NOT_IDS: Mapping[str, str] = {
    "voiceTimbreId": "the endpoint's",
    "voiceId": "shown, not read",
}
