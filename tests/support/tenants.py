"""What three end users have: the one who asks, another one of the same application, one of another application.

Every thing has the names it goes by, as ``kind.form``: ``conversation.hex``, ``agent.number``, ``file.key`` and so on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from support.http_clients import GUARD
from support.live_server import APPLICATION, HOLD, Served, Step

from palaver.core.chat import NewMessage, Turn
from palaver.core.runs import read_to_end
from palaver.core.types import Agent, ApiKey, File, Principal, Text, new_uid
from palaver.dialects.wps import paging

ASKS, OTHER_USER, OTHER_APPLICATION = "bob", "ann", "rival"
SECRET = "a word that is nobody else's"
Names = Mapping[str, str]
_LIVE = (
    "SELECT 1 FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
    " JOIN end_user u ON u.app = c.app AND u.id = c.end_user WHERE u.app = $1 AND u.name = $2 AND m.status = 'live'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """Names of the things of one end user, and what must never be told to another."""

    names: Names
    secrets: tuple[str, ...] = ()


def forms(kind: str, uid: UUID, number: int | None = None, alias: str | None = None) -> dict[str, str]:
    named = {f"{kind}.hex": uid.hex, f"{kind}.uuid": str(uid)}
    if number is not None:
        named[f"{kind}.number"] = str(number)
    if alias is not None:
        named[f"{kind}.alias"] = alias
    return named


class World:
    """The three, on a server. ``mine`` is made anew by ``renew``, the rest stays."""

    def __init__(self, served: Served) -> None:
        self.served = served
        served.sql("SELECT setval(oid::regclass, 700001) FROM pg_class WHERE relkind = 'S'")
        self.shared = self._shared(APPLICATION, {"text": "so far"}, HOLD)
        theirs = self._shared(OTHER_APPLICATION, {"text": "so far"}, HOLD)
        self.withheld = served.agent("withheld", alias=("withheld-alias",))
        self.key = served.key("wps", default_user=ASKS, agents=[str(self.shared.uid)])
        rival = served.key("wps", application=OTHER_APPLICATION)
        others = (self._who(self.key, OTHER_USER), self.shared), (self._who(rival, ASKS), theirs)
        live = [self._live(who, agent) for who, agent in others]
        self.shared = self._shared(APPLICATION, {"text": "turn ${turn}"})
        theirs = self._shared(OTHER_APPLICATION, {"text": "turn ${turn}"})
        self.users = [
            served.do(served.core.store.users.get_or_create(who.app, who.user or "")).uid for who, _ in others
        ]
        self.other_user = self._of(others[0][0], self.shared, live[0], self.withheld)
        self.other_application = self._of(others[1][0], theirs, live[1], theirs, user="carol")
        self.absent = self._absent(others[0][0])
        self.renew()

    # Making it ------------------------------------------------------------------------------------------------------

    def _shared(self, application: str, *script: Step) -> Agent:
        return self.served.agent(
            *script, application=application, name="shared", alias=(f"alias-{application}",), knowledge=("base",)
        )

    @staticmethod
    def _who(key: ApiKey, user: str) -> Principal:
        return Principal(key=key, user=user)

    def _live(self, who: Principal, agent: Agent) -> UUID:
        """A run that goes on for as long as nobody stops it."""

        async def begin() -> UUID:
            sent = await self.served.core.chat.send(who, agent, NewMessage(parts=(Text(text=SECRET),)))
            while len(sent.reader.take()) == 0:
                await sent.reader.wait()
            sent.reader.close()
            store = self.served.core.store
            saved = "SELECT parts::text FROM message WHERE uid = $1"
            while "so far" not in await store.db.fetchval(saved, sent.run_uid):  # noqa: ASYNC110  saved once a second
                await asyncio.sleep(0.02)
            return sent.run_uid

        return self.served.do(begin())

    def _said(self, who: Principal, agent: Agent, alias: str, files: tuple[File, ...]) -> Turn:
        """A conversation with a title and one message, answered."""

        async def work() -> Turn:
            message = NewMessage(parts=(Text(text=f"{SECRET} of {alias}!"), *files))
            sent = await self.served.core.chat.send(who, agent, message, conversation=alias, create_as=alias)
            assert await read_to_end(sent.reader, GUARD) is not None, "it has not ended, and would change later"
            await self.served.core.chat.rename_conversation(who, sent.conversation.id, f"title of {alias}!")
            return sent

        return self.served.do(work())

    def _file(self, who: Principal, name: str) -> str:
        key = f"local/default/20260101/{new_uid().hex}.txt"
        drawer = self.served.core.services.files
        self.served.do(drawer.add(who, key=key, name=name, media_type="text/plain", content=SECRET.encode()))
        return key

    def _of(
        self, who: Principal, agent: Agent, run: UUID | None, named: Agent, *, user: str | None = None
    ) -> Belongings:
        name = self.served.new_name(f"conv-{who.user}")
        keys = [self._file(who, one) for one in ("same.txt", f"{name}.txt")]
        files = (File(ref=keys[0], name="same.txt"), File(ref=keys[1], name=f"{name}.txt"))
        sent = self._said(who, agent, name, files)
        place, answer = sent.conversation, sent.run_uid
        people = self.served.core.services.users
        person, _ = self.served.do(people.register(who, user or who.user))
        stranger, _ = self.served.do(people.register(who, f"{user or who.user}'s friend"))
        store = self.served.core.store.knowledge
        base = self.served.do(store.get_or_create(who.app, "base"))
        names = {
            **forms("conversation", place.uid, place.id, name),
            **forms("message", answer),
            **forms("run", run or answer),
            **forms("agent", named.uid, named.id, named.spec.alias[0]),
            "message.mp3": f"{answer.hex}.mp3",
            "file.key": keys[1],
            "file.url": f"http://test/api/f/{keys[1]}",
            "file.name": f"{name}.txt",
            "user.hex": person.uid.hex,
            "user.name": person.name,
            "user.new": stranger.uid.hex,
            "knowledge.number": str(base),
            "page.sessions": paging.token(who, f"sessions of {agent.id}", 1, place.id),
            "page.messages": paging.token(who, f"messages of {place.id}", 1),
        }
        return Belongings(names=names, secrets=(f"of {name}!", SECRET))

    def _absent(self, who: Principal) -> Belongings:
        """Names of what there is not; the number is one that a conversation had which is deleted."""
        chat = self.served.core.chat
        gone = self.served.do(chat.create_conversation(who, self.shared))
        self.served.do(chat.delete_conversation(who, gone.id))
        uid = new_uid()
        names = {
            **forms("conversation", uid, gone.id, "conv-nobody"),
            **forms("message", uid),
            **forms("run", uid),
            **forms("agent", uid, 799_999, "alias-nobody"),
            "message.mp3": f"{uid.hex}.mp3",
            "file.key": f"local/default/20260101/{uid.hex}.txt",
            "file.url": f"http://test/api/f/local/default/20260101/{uid.hex}.txt",
            "file.name": "nobody.txt",
            "user.hex": uid.hex,
            "user.name": "nobody",
            "user.new": new_uid().hex,
            "knowledge.number": "799998",
            "page.sessions": "AAAA",
            "page.messages": "AAAA",
        }
        return Belongings(names=names)

    def renew(self) -> None:
        """Bob has one conversation with the agent that all may use, and nothing else."""
        who = self._who(self.key, ASKS)
        while self.served.sql(_LIVE, who.app, ASKS):  # a run whose answer nobody waited for
            time.sleep(0.002)
        self.served.do(self.served.core.chat.delete_conversations(who, self.shared))
        self.mine = self._of(who, self.shared, None, self.shared)

    def untouched(self) -> list[str]:
        """All that the other two have said and heard, row by row."""
        rows = self.served.sql(
            "SELECT to_jsonb(c)::text || coalesce((SELECT string_agg(to_jsonb(m)::text, '' ORDER BY m.id)"
            " FROM message m WHERE m.app = c.app AND m.conversation = c.id), '')"
            " FROM conversation c JOIN end_user u ON u.app = c.app AND u.id = c.end_user"
            " WHERE u.uid = ANY($1::uuid[]) ORDER BY c.app, c.id",
            self.users,
        )
        return [row[0] for row in rows]

    def candidates(self, kind: str) -> dict[str, Belongings]:
        """Whose name is tried where bob's own is due. End users and knowledge bases are the application's."""
        if kind in {"user", "knowledge"}:
            return {"another application's": self.other_application}
        return {"another user's": self.other_user, "another application's": self.other_application}
