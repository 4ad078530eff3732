"""Surface C: the gateway of the vendor's chat page. A browser signs in as one end user, and does for that user what
surface B does. Source: wire specification ``snail.md``, section 8."""

from __future__ import annotations

from palaver.core.problems import Unauthenticated
from palaver.core.types import ANYBODY, Key, Principal
from palaver.dialects.snail import agents, described, talk
from palaver.dialects.snail.auth import embed_token, issuer, verified
from palaver.dialects.snail.shapes import Session, asked, life, members, need, user_name
from palaver.dialects.snail.users import person, token_shown
from palaver.dialects.snail.words import COMPLETIONS, SESSION, C, success
from palaver.wire.contract import Call, Reply, Room, Route

DIALECT = "snail"
OPEN = "open_sessions"
"""The setting of the credential that signs in whoever names an end user."""
TITLE = "Chat"


async def config(call: Call, _who: Principal, _room: Room) -> Reply:
    """Where the page finds the gateway. A page from elsewhere needs the server's name for that, and its browser says
    where it is from; one from here must not depend on how the server calls itself behind a proxy."""
    origin = call.headers.get("origin", call.origin)
    server = "" if origin == call.origin else call.origin
    return success({"gatewayPath": f"{server}{C}", "pageTitle": TITLE, "logo": "", "resourceBaseUrl": server})


async def open_session(call: Call, _who: Principal, room: Room) -> Reply:
    """Sign a browser in: for an embed token its user's next one, which ends no later."""
    request = asked(Session, members(call, ANYBODY))
    open_id = user_name(need(request.openId, "openId").strip())
    ends = int(call.now) + life(None)
    if request.trustedCredential is None:
        key = await _open_to_anybody(room)
        await room.people.count(key)
        user = await room.people.find(Principal(key=key), open_id)
    else:
        key, proven = await _proven(request.trustedCredential.strip(), open_id, call.now, room)
        await room.people.count(key)
        ends = min(ends, int(proven))
        user = await person(Principal(key=key), room, open_id)
    token = embed_token(key, open_id, ends, None)
    return success(token_shown(token, open_id, user, ends, ends - int(call.now), room))


async def _proven(token: str, open_id: str, now: float, room: Room) -> tuple[Key, float]:
    """The version of the credential that signed the token for that user, and when the token ends."""
    key = await room.people.key(DIALECT, issuer(token))
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    key, user, ends = verified(token, key.versions(now), now)
    if user != open_id:
        raise Unauthenticated(reason="user", subject=open_id)
    if ends < now + 1:  # nothing is left of it to pass on
        raise Unauthenticated(reason="expired")
    return key, ends


async def _open_to_anybody(room: Room) -> Key:
    """The one credential whose operator wants no proof. It registers nobody: who calls has shown nothing at all."""
    keys = await room.people.keys_with(DIALECT, OPEN)
    if len(keys) != 1:
        raise Unauthenticated(reason="missing")
    return keys[0]


ROUTES = (
    Route(
        method="GET",
        path=f"{C}/config",
        handle=config,
        purpose="tell the page where it is",
        public=True,
        told=described.CONFIG,
    ),
    Route(
        method="POST",
        path=SESSION,
        handle=open_session,
        purpose="sign a browser in",
        public=True,
        told=described.SESSION,
    ),
    Route(method="GET", path=f"{C}/agents", handle=agents.list_agents, purpose="list agents", told=described.C_AGENTS),
    Route(method="GET", path=f"{C}/agent", handle=agents.one_agent, purpose="show one agent", told=described.C_AGENT),
    Route(
        method="GET",
        path=f"{C}/my-agents",
        handle=agents.subscribed_agents,
        purpose="list the user's agents",
        told=described.C_SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{C}/agent/subscribe",
        handle=agents.subscribe,
        purpose="subscribe an agent",
        told=described.C_SUBSCRIPTION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/agent/subscribe",
        handle=agents.unsubscribe,
        purpose="unsubscribe an agent",
        told=described.C_SUBSCRIPTION,
    ),
    Route(
        method="GET",
        path=f"{C}/conversations",
        handle=talk.list_conversations,
        purpose="list the user's conversations",
        told=described.C_CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=f"{C}/conversations",
        handle=talk.create_conversation,
        purpose="create a conversation",
        creating=True,
        told=described.C_NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/conversations",
        handle=talk.delete_conversations,
        purpose="delete one conversation, or all",
        told=described.C_OLD_CONVERSATIONS,
    ),
    *(
        Route(
            method="GET",
            path=f"{C}{path}",
            handle=talk.list_messages,
            purpose="read a conversation",
            told=described.C_MESSAGES,
        )
        for path in ("/messages", "/conversations/messages")
    ),
    Route(
        method="POST",
        path=COMPLETIONS,
        handle=talk.chat,
        purpose="send a message, follow the answer",
        creating=True,
        told=described.C_TALK,
    ),
)
