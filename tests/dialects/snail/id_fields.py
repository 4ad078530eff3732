"""Where ids stand in the calls of the Snail API; see ``support.id_fields``."""

from __future__ import annotations

from collections.abc import Mapping

from support.id_fields import ANY_NAME, IdField, Probe

_A, _B, _C = "/snail-ai/open-api", "/snail-ai/openapi/v1", "/api/snail/chat"
_NUMBER, _USER = {"agentId": IdField("agent", ("number",))}, {"openId": IdField("user", ("hex", "name"))}
_NAMED = {"conversationId": IdField("conversation", ANY_NAME, silent=True)}
_FOR_USER = {**_NUMBER, **_USER}
_SAYS = ({**_FOR_USER, "content": "hi"}, {**_FOR_USER, **_NAMED, "content": "hi"})
_BY_NAME = {"openId": IdField("user", ("new",), silent=True)}
_OTHER = {"openId": IdField("user", ("hex", "name"), silent=True)}
"""Surface C acts for its token's user, whoever else is named."""

FIELDS: Mapping[str, tuple[Probe, ...]] = {
    f"POST {_A}/chat": (
        {**_NUMBER, **_BY_NAME, "content": "hi"},
        {**_NUMBER, "openId": "bob", **_NAMED, "content": "hi"},
    ),
    f"POST {_A}/rag/search": ({"ragId": IdField("knowledge", ("number",)), "query": "apples"},),
    f"GET {_B}/agents": (),
    f"GET {_B}/agent": (_NUMBER,),
    f"GET {_B}/user/agents": (_USER,),
    f"POST {_B}/user/agent": (_FOR_USER,),
    f"DELETE {_B}/user/agent": ({**_USER, "agentId": IdField("agent", ("number",), silent=True)},),
    f"POST {_B}/user/register": (),
    f"GET {_B}/user": (_USER,),
    f"GET {_B}/embed-token": (_USER,),
    f"POST {_B}/embed-token": (_USER,),
    f"GET {_B}/agent/conversations": ({**_FOR_USER, **_NAMED},),
    f"POST {_B}/agent/conversations": ({**_FOR_USER, **_NAMED, "title": "x"},),
    f"DELETE {_B}/agent/conversations": (
        {**_USER, "agentId": IdField("agent", ("number",), silent=True)},
        {**_USER, "agentId": IdField("agent", ("number",), silent=True), **_NAMED},
    ),
    f"GET {_B}/agent/conversations/messages": ({**_FOR_USER, "conversationId": IdField("conversation", ANY_NAME)},),
    f"POST {_B}/agent/chat": _SAYS,
    f"POST {_B}/agent/chat/sync": _SAYS,
    f"GET {_C}/config": (),
    f"POST {_C}/session": (),
    f"GET {_C}/agents": (_OTHER,),
    f"GET {_C}/agent": ({**_NUMBER, **_OTHER},),
    f"GET {_C}/my-agents": (_OTHER,),
    f"POST {_C}/agent/subscribe": ({**_NUMBER, **_OTHER},),
    f"DELETE {_C}/agent/subscribe": ({"agentId": IdField("agent", ("number",), silent=True), **_OTHER},),
    f"GET {_C}/conversations": ({**_NUMBER, **_OTHER, **_NAMED},),
    f"POST {_C}/conversations": ({**_NUMBER, **_OTHER, **_NAMED, "title": "x"},),
    f"DELETE {_C}/conversations": (
        {"agentId": IdField("agent", ("number",), silent=True), **_OTHER},
        {"agentId": IdField("agent", ("number",), silent=True), **_NAMED},
    ),
    **dict.fromkeys(
        (f"GET {_C}/messages", f"GET {_C}/conversations/messages"),
        (
            {**_NUMBER, "conversationId": IdField("conversation", ANY_NAME)},
            {"agentId": "1", **_OTHER, "conversationId": "there is none"},
        ),
    ),
    f"POST {_C}/completions": (
        {**_NUMBER, **_OTHER, "content": "hi"},
        {**_NUMBER, **_NAMED, "content": "hi"},
    ),
}

EXEMPT: Mapping[str, str] = {}

NOT_IDS: Mapping[str, str] = {
    "externalId": "a name that the caller gives",
    "avatarUrl": "kept with an end user, never fetched",
    "sid": "echoed, never looked up",
    "disabledMcpServerIds": "switched off for one message, an unknown one is ignored",
    "disabledSkillIds": "switched off for one message, an unknown one is ignored",
}
