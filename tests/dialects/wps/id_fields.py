"""Where ids stand in the calls of the WPS API; see ``support.id_fields``."""

from __future__ import annotations

from collections.abc import Mapping

from support.id_fields import ANY_NAME, UUIDS, IdField, Probe

_AGENT, _TALK = IdField("agent", ANY_NAME), IdField("conversation", ANY_NAME)
_APP, _SESSION = {"app_id": _AGENT}, {"session_id": _TALK}
_RUN = IdField("run", UUIDS, silent=True)
_SAY = (
    {**_APP, **_SESSION, "text": "hi", "stream": False},
    {**_APP, "text": "hi", "stream": False, "files": [IdField("file", ("key",), silent=True)]},
)
_PAGES = {**_APP, "page_size": "5", "next_page_token": IdField("page", ("sessions",))}
_READ = (
    {**_APP, **_SESSION},
    {**_APP, "session_id": IdField("conversation", ("uuid",)), "next_page_token": IdField("page", ("messages",))},
)

FIELDS: Mapping[str, tuple[Probe, ...]] = {
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

EXEMPT: Mapping[str, str] = {}

NOT_IDS: Mapping[str, str] = {
    "client_id": "a credential's",
}
