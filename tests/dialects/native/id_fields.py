"""Where ids stand in the calls of the native API; see ``support.id_fields``."""

from __future__ import annotations

from collections.abc import Mapping

from support.id_fields import UUIDS, IdField, Probe

_N = "/palaver/v1"
_WITH = {"conversation": IdField("conversation", ("hex", "uuid", "number", "alias"))}
_OWN_AGENT = {"agent": IdField("agent", ("hex", "uuid", "number", "alias"))}
_OWN_RUN = {"uid": IdField("run", UUIDS)}
_WITH_FILE = {"files": [IdField("file", ("key",))]}

FIELDS: Mapping[str, tuple[Probe, ...]] = {
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
    f"GET {_N}/files/{{key}}": ({"key": IdField("file", ("key",))},),
    f"DELETE {_N}/files/{{key}}": ({"key": IdField("file", ("key",))},),
    f"GET {_N}/problems": (),
}

EXEMPT: Mapping[str, str] = {}

NOT_IDS: Mapping[str, str] = {}
