"""Where ids stand in the calls of each dialect: path, query or body, by route.

``Its`` marks such a place; everything else is sent as it is. A field whose name begins with ``?`` goes into the query
of a POST. A route without probes names nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Probe = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Its:
    """A place for a name of the caller's own. ``silent``: the call answers an absent one like an own one."""

    kind: str
    forms: tuple[str, ...]
    silent: bool = False


UUIDS = ("hex", "uuid")
ANY_NAME = (*UUIDS, "alias")

# Sonaops ------------------------------------------------------------------------------------------------------------

_AGENT, _TALK = Its("agent", ANY_NAME), Its("conversation", ANY_NAME)
_IN_TALK = {"agentId": _AGENT, "conversationId": _TALK}

SONAOPS: Mapping[str, tuple[Probe, ...]] = {
    "POST /v1/chat/conversation": ({"agentId": _AGENT},),
    "POST /v1/agent/list": (),
    "GET /v1/agent/list": (),
    "POST /v1/chat/stream": ({**_IN_TALK, "text": "hi"},),
    "POST /v1/chat/inspiration": (_IN_TALK,),
    "POST /v1/chat/image": ({**_IN_TALK, "text": "a cat"},),
    "POST /v1/chat/tts": ({"messageId": Its("message", UUIDS), "processedText": "hi"},),
    "GET /saas/voice-broadcast/{name}": ({"name": Its("message", ("mp3",), silent=True)},),
}

# WPS ----------------------------------------------------------------------------------------------------------------

_APP, _SESSION = {"app_id": _AGENT}, {"session_id": _TALK}
_RUN = Its("run", UUIDS, silent=True)
_SAY = (
    {**_APP, **_SESSION, "text": "hi", "stream": False},
    {**_APP, "text": "hi", "stream": False, "files": [Its("file", ("key",), silent=True)]},
)
_PAGES = {**_APP, "page_size": "5", "next_page_token": Its("page", ("sessions",))}
_READ = (
    {**_APP, **_SESSION},
    {**_APP, "session_id": Its("conversation", ("uuid",)), "next_page_token": Its("page", ("messages",))},
)

WPS: Mapping[str, tuple[Probe, ...]] = {
    "POST /v7/devhub/app/{app_id}/chat/create": _SAY,
    "POST /v7/devhub/apps/{app_id}/chats/create": _SAY,
    "POST /v7/sse/devhub/apps/{app_id}/chats/create": _SAY,
    "POST /v7/devhub/app/{app_id}/chat/{chat_id}/cancel": ({**_APP, "chat_id": _RUN},),
    "POST /v7/devhub/apps/{app_id}/chats/cancel": ({**_APP, "chat_id": _RUN}, {**_APP, "?chat_id": _RUN}),
    "POST /v7/devhub/app/{app_id}/session/create": (_APP,),
    "POST /v7/devhub/apps/{app_id}/sessions/create": (_APP,),
    "GET /v7/devhub/app/{app_id}/session/list": ({**_APP, "page_size": "5"}, _PAGES),
    "GET /v7/devhub/apps/{app_id}/sessions/list": ({**_APP, "page_size": "5"}, _PAGES),
    "GET /v7/devhub/app/{app_id}/session/messages": _READ,
    "GET /v7/devhub/apps/{app_id}/sessions/messages": _READ,
    "GET /v7/devhub/session/{session_id}/name": (_SESSION,),
    "GET /v7/devhub/sessions/{session_id}/name": (_SESSION,),
    "POST /v7/devhub/session/{session_id}/delete": (_SESSION,),
    "POST /v7/devhub/sessions/{session_id}/delete": (_SESSION,),
    "GET /v7/devhub/app/{app_id}/detail": (_APP,),
    "GET /v7/devhub/apps/{app_id}/detail": (_APP,),
    "POST /oauth2/token": (),
    "GET /oauth2/auth": (),
}

# XSpace -------------------------------------------------------------------------------------------------------------

_NUMBERED = Its("conversation", ("number", *UUIDS))
_AT, _HERE = {"id": _NUMBERED}, {"conversationId": _NUMBERED}
_BODY = {"conversationId": Its("conversation", ("number",)), "message": "hi"}
_FILE = {"fileKey": Its("file", ("key",), silent=True), "fileName": "x.txt"}
_ADDRESS = {"fileUrl": Its("file", ("url",), silent=True), "fileName": "x.txt"}
_ITS_AGENT = {"agentId": Its("agent", ("number",))}

XSPACE: Mapping[str, tuple[Probe, ...]] = {
    "POST /api/v1/chat/conversation/{conversationId}/update": ({**_HERE, "topic": "taken over"},),
    "POST /api/v1/chat/conversation/add": (_ITS_AGENT,),
    "GET /api/v1/chat/conversation/{id}": (_AT,),
    "GET /api/v1/chat/conversation/list": (
        _ITS_AGENT,
        {"agentId": Its("agent", ("number",), silent=True), "lastId": Its("conversation", ("number",), silent=True)},
    ),
    "POST /api/v1/chat/conversation/{id}/delete": (_AT,),
    "POST /api/v1/chat/{conversationId}": ({**_HERE, "message": "hi"}, {**_HERE, "attachments": [_FILE, _ADDRESS]}),
    "POST /api/v1/chat/{conversationId}/stop": (_HERE,),
    "GET /api/v1/chat/{conversationId}/messages": (_HERE,),
    "GET /api/v1/chat/{conversationId}/files": (_HERE,),
    "GET /api/v1/chat/{conversationId}/file/{path}": (
        {**_HERE, "path": "same.txt"},
        {**_HERE, "path": Its("file", ("name",))},
    ),
    "GET /api/v1/chat/{conversationId}/file/": ({"conversationId": Its("conversation", ("number",), silent=True)},),
    "POST /api/v1/file/upload": (),
    "GET /api/v1/file/ak": ({"?fileUrl": Its("file", ("url",))},),
    "GET /api/v1/agent": (),
    "POST /api/v1/conversation/create": (),
    "GET /api/v1/conversation/{id}": (_AT,),
    "POST /api/v1/conversation/{id}/delete": (_AT,),
    "GET /api/v1/conversations": (),
    "POST /api/v1/chat": (_BODY, {**_BODY, "attachments": [_FILE, _ADDRESS]}),
    "POST /api/v1/chat/stop/{conversationId}": (_HERE,),
    "GET /api/v1/chat/suggest/{conversationId}": (_HERE,),
}

# Snail --------------------------------------------------------------------------------------------------------------

_A, _B, _C = "/snail-ai/open-api", "/snail-ai/openapi/v1", "/api/snail/chat"
_NUMBER, _USER = {"agentId": Its("agent", ("number",))}, {"openId": Its("user", ("hex", "name"))}
_NAMED = {"conversationId": Its("conversation", ANY_NAME, silent=True)}
_FOR_USER = {**_NUMBER, **_USER}
_SAYS = ({**_FOR_USER, "content": "hi"}, {**_FOR_USER, **_NAMED, "content": "hi"})
_BY_NAME = {"openId": Its("user", ("new",), silent=True)}
_OTHER = {"openId": Its("user", ("hex", "name"), silent=True)}
"""Surface C acts for its token's user, whoever else is named."""

SNAIL: Mapping[str, tuple[Probe, ...]] = {
    f"POST {_A}/chat": (
        {**_NUMBER, **_BY_NAME, "content": "hi"},
        {**_NUMBER, "openId": "bob", **_NAMED, "content": "hi"},
    ),
    f"POST {_A}/rag/search": ({"ragId": Its("knowledge", ("number",)), "query": "apples"},),
    f"GET {_B}/agents": (),
    f"GET {_B}/agent": (_NUMBER,),
    f"GET {_B}/user/agents": (_USER,),
    f"POST {_B}/user/agent": (_FOR_USER,),
    f"DELETE {_B}/user/agent": ({**_USER, "agentId": Its("agent", ("number",), silent=True)},),
    f"POST {_B}/user/register": (),
    f"GET {_B}/user": (_USER,),
    f"GET {_B}/embed-token": (_USER,),
    f"POST {_B}/embed-token": (_USER,),
    f"GET {_B}/agent/conversations": ({**_FOR_USER, **_NAMED},),
    f"POST {_B}/agent/conversations": ({**_FOR_USER, **_NAMED, "title": "x"},),
    f"DELETE {_B}/agent/conversations": (
        {**_USER, "agentId": Its("agent", ("number",), silent=True)},
        {**_USER, "agentId": Its("agent", ("number",), silent=True), **_NAMED},
    ),
    f"GET {_B}/agent/conversations/messages": ({**_FOR_USER, "conversationId": Its("conversation", ANY_NAME)},),
    f"POST {_B}/agent/chat": _SAYS,
    f"POST {_B}/agent/chat/sync": _SAYS,
    f"GET {_C}/config": (),
    f"POST {_C}/session": (),
    f"GET {_C}/agents": (_OTHER,),
    f"GET {_C}/agent": ({**_NUMBER, **_OTHER},),
    f"GET {_C}/my-agents": (_OTHER,),
    f"POST {_C}/agent/subscribe": ({**_NUMBER, **_OTHER},),
    f"DELETE {_C}/agent/subscribe": ({"agentId": Its("agent", ("number",), silent=True), **_OTHER},),
    f"GET {_C}/conversations": ({**_NUMBER, **_OTHER, **_NAMED},),
    f"POST {_C}/conversations": ({**_NUMBER, **_OTHER, **_NAMED, "title": "x"},),
    f"DELETE {_C}/conversations": (
        {"agentId": Its("agent", ("number",), silent=True), **_OTHER},
        {"agentId": Its("agent", ("number",), silent=True), **_NAMED},
    ),
    **dict.fromkeys(
        (f"GET {_C}/messages", f"GET {_C}/conversations/messages"),
        (
            {**_NUMBER, "conversationId": Its("conversation", ANY_NAME)},
            {"agentId": "1", **_OTHER, "conversationId": "there is none"},
        ),
    ),
    f"POST {_C}/completions": (
        {**_NUMBER, **_OTHER, "content": "hi"},
        {**_NUMBER, **_NAMED, "content": "hi"},
    ),
}

# Native -------------------------------------------------------------------------------------------------------------

_N = "/palaver/v1"
_WITH = {"conversation": Its("conversation", ("hex", "uuid", "number", "alias"))}
_OWN_AGENT = {"agent": Its("agent", ("hex", "uuid", "number", "alias"))}
_OWN_RUN = {"uid": Its("run", UUIDS)}
_WITH_FILE = {"files": [Its("file", ("key",))]}

NATIVE: Mapping[str, tuple[Probe, ...]] = {
    f"GET {_N}/agents": (),
    f"GET {_N}/agents/{{agent}}": (_OWN_AGENT,),
    f"POST {_N}/conversations": (_OWN_AGENT,),
    f"GET {_N}/conversations": (_OWN_AGENT,),
    f"GET {_N}/conversations/{{conversation}}": (_WITH,),
    f"PUT {_N}/conversations/{{conversation}}/title": ({**_WITH, "title": "taken over"},),
    f"DELETE {_N}/conversations/{{conversation}}": (_WITH,),
    f"GET {_N}/conversations/{{conversation}}/messages": (_WITH,),
    f"POST {_N}/messages": ({**_OWN_AGENT, "content": "hi"}, {**_OWN_AGENT, **_WITH_FILE}),
    f"POST {_N}/conversations/{{conversation}}/messages": ({**_WITH, "content": "hi"}, {**_WITH, **_WITH_FILE}),
    f"POST {_N}/conversations/{{conversation}}/stop": (_WITH,),
    f"GET {_N}/runs/{{uid}}": (_OWN_RUN,),
    f"GET {_N}/runs/{{uid}}/events": (_OWN_RUN,),
    f"POST {_N}/runs/{{uid}}/stop": (_OWN_RUN,),
    f"POST {_N}/files": (),
    f"GET {_N}/files/{{key}}": ({"key": Its("file", ("key",))},),
    f"DELETE {_N}/files/{{key}}": ({"key": Its("file", ("key",))},),
    f"GET {_N}/problems": (),
}

PLACES = {"native": NATIVE, "sonaops": SONAOPS, "wps": WPS, "xspace": XSPACE, "snail": SNAIL}

APART = {
    "GET /api/logo/agent/{name}": "draws the name it is given, and looks nothing up",
    "GET /api/f/{storage}/{target}/{day}/{name}": "a key of somebody else's is 403, one there is not is 404",
    "POST /api/v1/chat/conversation/add agentId": "an agent that the key may not use is 0001, one there is not is 4000",
}
"""Where the specification wants another's to look unlike an absent one, or where there is none; by route, or by route
and place."""

NO_NAMES = {
    "externalId": "a name that the caller gives",
    "avatarUrl": "kept with an end user, never fetched",
    "sid": "echoed, never looked up",
    "targetId": "kept with a file, never looked up",
    "disabledMcpServerIds": "switched off for one message, an unknown one is ignored",
    "disabledSkillIds": "switched off for one message, an unknown one is ignored",
    "voiceTimbreId": "the endpoint's",
    "voiceId": "shown, not read",
    "client_id": "a credential's",
}
"""Fields that look like ids and are none of a conversation, message, run, file or agent."""
