"""Where ids stand in the calls of the XSpace API; see ``support.id_fields``."""

from __future__ import annotations

from collections.abc import Mapping

from support.id_fields import UUIDS, IdField, Probe

_NUMBERED = IdField("conversation", ("number", *UUIDS))
_AT, _HERE = {"id": _NUMBERED}, {"conversationId": _NUMBERED}
_BODY = {"conversationId": IdField("conversation", ("number",)), "message": "hi"}
_FILE = {"fileKey": IdField("file", ("key",), silent=True), "fileName": "x.txt"}
_ADDRESS = {"fileUrl": IdField("file", ("url",), silent=True), "fileName": "x.txt"}
_ITS_AGENT = {"agentId": IdField("agent", ("number",))}

FIELDS: Mapping[str, tuple[Probe, ...]] = {
    "POST /api/v1/chat/conversation/{conversationId}/update": ({**_HERE, "topic": "taken over"},),
    "POST /api/v1/chat/conversation/add": (_ITS_AGENT,),
    "GET /api/v1/chat/conversation/{id}": (_AT,),
    "GET /api/v1/chat/conversation/list": (
        _ITS_AGENT,
        {
            "agentId": IdField("agent", ("number",), silent=True),
            "lastId": IdField("conversation", ("number",), silent=True),
        },
    ),
    "POST /api/v1/chat/conversation/{id}/delete": (_AT,),
    "POST /api/v1/chat/{conversationId}": ({**_HERE, "message": "hi"}, {**_HERE, "attachments": [_FILE, _ADDRESS]}),
    "POST /api/v1/chat/{conversationId}/stop": (_HERE,),
    "GET /api/v1/chat/{conversationId}/messages": (_HERE,),
    "GET /api/v1/chat/{conversationId}/files": (_HERE,),
    "GET /api/v1/chat/{conversationId}/file/{path}": (
        {**_HERE, "path": "same.txt"},
        {**_HERE, "path": IdField("file", ("name",))},
    ),
    "GET /api/v1/chat/{conversationId}/file/": ({"conversationId": IdField("conversation", ("number",), silent=True)},),
    "POST /api/v1/file/upload": (),
    "GET /api/v1/file/ak": ({"?fileUrl": IdField("file", ("url",))},),
    "GET /api/v1/agent": (),
    "POST /api/v1/conversation/create": (),
    "GET /api/v1/conversation/{id}": (_AT,),
    "POST /api/v1/conversation/{id}/delete": (_AT,),
    "GET /api/v1/conversations": (),
    "POST /api/v1/chat": (_BODY, {**_BODY, "attachments": [_FILE, _ADDRESS]}),
    "POST /api/v1/chat/stop/{conversationId}": (_HERE,),
    "GET /api/v1/chat/suggest/{conversationId}": (_HERE,),
}

EXEMPT: Mapping[str, str] = {
    "GET /api/logo/agent/{name}": "draws the name it is given, and looks nothing up",
    "GET /api/f/{storage}/{target}/{day}/{name}": "a key of somebody else's is 403, one there is not is 404",
    "POST /api/v1/chat/conversation/add agentId": "an agent that the key may not use is 0001, one there is not is 4000",
}

NOT_IDS: Mapping[str, str] = {
    "targetId": "kept with a file, never looked up",
}
