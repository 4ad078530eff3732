"""One end user of one application at every front door: the same few acts through each vendor's API, and our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from dialects.native import client as native
from dialects.snail import client_b as snail
from dialects.sonaops import client as sonaops
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.live_server import Served

from palaver.core.types import Agent

USER = "ann"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the end user can do through one dialect. Conversations are named by their UUID. ``None``: the vendor has
    no such call."""

    name: str
    open: Callable[[], str]
    """Begin a conversation by saying "hi"; its UUID."""
    say: Callable[[str, str], str]
    """Say something in a conversation; the answer."""
    said: Callable[[str], list[str]] | None
    """Every text of the conversation, oldest first."""
    listed: Callable[[], list[str]] | None
    name_of: Callable[[str], str] | None
    rename: Callable[[str, str], None] | None
    delete: Callable[[str], None] | None
    gone: Callable[[str], bool]
    """Whether the conversation answers like one that never was."""


def doors(served: Served, agent: Agent) -> dict[str, Door]:
    return {door.name: door for door in (make(served, agent) for make in (_sonaops, _wps, _xspace, _snail, _native))}


def _sonaops(served: Served, agent: Agent) -> Door:
    caller = sonaops.Caller(served, user=USER)

    def say(conversation: str, text: str) -> str:
        return sonaops.joined(sonaops.frames(caller.say(agent, conversation, text).body))

    def begin() -> str:
        conversation = caller.create(agent)
        say(conversation, "hi")
        return str(UUID(conversation))

    def gone(conversation: str) -> bool:
        answer = caller.say(agent, conversation, "?")
        return answer.header("Content-Type") == "application/json" and answer.json()["code"] == 10404

    return Door(
        name="sonaops", open=begin, say=say, said=None, listed=None, name_of=None, rename=None, delete=None, gone=gone
    )


def _wps(served: Served, agent: Agent) -> Door:
    caller = wps.Caller(served, served.key("wps", default_user=USER))

    def say(conversation: str, text: str) -> str:
        return wps.chunks(caller.hear(agent, text, session_id=conversation))

    def begin() -> str:
        said = caller.hear(agent)
        return next(event["data"]["session_id"] for event in said if event["event"] == "add_message")

    def delete(conversation: str) -> None:
        wps.data(caller.post(f"/v7/devhub/session/{conversation}/delete"))

    return Door(
        name="wps",
        open=begin,
        say=say,
        said=lambda conversation: [item["text"] for item in caller.items(agent, conversation)],
        listed=lambda: [
            item["session_id"]
            for item in wps.data(caller.get(f"/v7/devhub/app/{agent.uid}/session/list", "page_size=100"))["items"]
        ],
        name_of=lambda conversation: wps.data(caller.get(f"/v7/devhub/session/{conversation}/name"))["name"],
        rename=None,
        delete=delete,
        gone=lambda conversation: caller.say(agent, "?", session_id=conversation).status == 404,
    )


def _xspace(served: Served, agent: Agent) -> Door:
    caller = xspace.Caller(served, default_user=USER)

    def uid(conversation: Any) -> str:
        return str(UUID(caller.detail(conversation)["uid"]))

    def begin() -> str:
        conversation = caller.add(agent)
        caller.say(conversation)
        return uid(conversation)

    def rename(conversation: str, title: str) -> None:
        xspace.data(caller.update(conversation, {"topic": title}))

    def listed() -> list[str]:
        return [
            str(UUID(item["uid"])) for item in xspace.data(caller.get(xspace.LIST, f"agentId={agent.id}&limit=100"))
        ]

    def delete(conversation: str) -> None:
        xspace.done(caller.post(f"/api/v1/chat/conversation/{conversation}/delete"))

    return Door(
        name="xspace",
        open=begin,
        say=lambda conversation, text: xspace.joined(xspace.events(caller.say(conversation, text))),
        said=lambda conversation: [item["text"] for item in caller.messages(conversation, "limit=100")],
        listed=listed,
        name_of=lambda conversation: caller.detail(conversation)["topic"],
        rename=rename,
        delete=delete,
        gone=lambda conversation: caller.get(f"/api/v1/chat/conversation/{conversation}").json()["code"] == "0001",
    )


def _snail(served: Served, agent: Agent) -> Door:
    caller = snail.Caller(served)
    user = caller.register(USER)
    where = {"agentId": agent.id, "openId": user}

    def say(conversation: str | None, text: str) -> tuple[str, str]:
        answer = caller.say(agent, user, text, conversationId=conversation)
        done = snail.spoken(answer)[-1][1]
        return done["conversationId"], done["fullText"]

    def listed() -> list[dict[str, Any]]:
        return snail.good(caller.get(snail.CONVERSATIONS, **where, size=200))

    def delete(conversation: str) -> None:
        snail.good(caller.delete(snail.CONVERSATIONS, **where, conversationId=conversation))

    def said(conversation: str) -> list[str]:
        messages = snail.good(caller.get(snail.MESSAGES, **where, conversationId=conversation))
        return [message["content"] for message in messages]

    return Door(
        name="snail",
        open=lambda: say(None, "hi")[0],
        say=lambda conversation, text: say(conversation, text)[1],
        said=said,
        listed=lambda: [item["conversationId"] for item in listed()],
        name_of=lambda conversation: next(item["title"] for item in listed() if item["conversationId"] == conversation),
        rename=None,
        delete=delete,
        gone=lambda conversation: said(conversation) == [],
    )


def _native(served: Served, agent: Agent) -> Door:
    caller = native.Caller(served, user=USER)

    def listed() -> list[str]:
        return [
            str(UUID(one["uid"]))
            for one in native.good(caller.get("conversations", f"agent={agent.id}&limit=100"))["conversations"]
        ]

    def rename(conversation: str, title: str) -> None:
        native.good(caller.ask("PUT", f"conversations/{conversation}/title", {"title": title}))

    def delete(conversation: str) -> None:
        assert caller.ask("DELETE", f"conversations/{conversation}").status == 204

    return Door(
        name="native",
        open=lambda: str(UUID(caller.begin(agent)["conversation"]["uid"])),
        say=lambda conversation, text: caller.say(conversation, text)["answer"]["text"],
        said=lambda conversation: [one["text"] for one in caller.messages(conversation)],
        listed=listed,
        name_of=lambda conversation: native.good(caller.get(f"conversations/{conversation}"))["title"],
        rename=rename,
        delete=delete,
        gone=lambda conversation: caller.get(f"conversations/{conversation}").status == 404,
    )
