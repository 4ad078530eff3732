"""The vendor's Java client, rebuilt, against a server on a socket."""

from __future__ import annotations

import pytest
from dialects.snail.clients.java import Client, Event, SnailAiError
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import ApiKey
from palaver.dialects.snail import requirements_b


@pytest.fixture(scope="module")
def key(served: Served) -> ApiKey:
    return served.key("snail")


@pytest.fixture(scope="module")
def client(served: Served, key: ApiKey) -> Client:
    return Client(served.base_url, key.id, key.secret)


@shows(requirements_b.b_java_client, requirements_b.b_query_or_body)
def test_it_manages_users_agents_and_conversations(served: Served, client: Client) -> None:
    agent = served.agent("yes", suggested_questions=("a?",))
    user = client.post("/user/register", externalId="java-1", nickname=None, avatarUrl=None)["openId"]
    assert agent.id in [one["id"] for one in client.agents()]
    client.post("/user/agent", openId=user, agentId=agent.id)
    assert [one["id"] for one in client.get("/user/agents", openId=user)] == [agent.id]
    made = client.post("/agent/conversations", agentId=agent.id, openId=user, title="年度 报告&x=1")
    fields = {"agentId": agent.id, "openId": user}
    assert client.get("/agent/conversations", **fields, page=None, size=None) == [made]
    client.delete("/agent/conversations", **fields, conversationId=None)
    assert client.get("/agent/conversations", **fields) == []
    assert client.post("/embed-token", openId=user, trustedCredential=None, ttlSeconds=None)["ttlSeconds"] == 3600


@shows(requirements_b.b_java_reader, requirements_b.b_java_client, requirements_b.b_n14)
def test_it_reads_an_answer_with_pauses(served: Served, client: Client) -> None:
    agent = served.agent({"think": "用户"}, {"wait": 0.25}, "Turn ${turn}: ${content}\n\n🙂")
    user = client.post("/user/register", externalId="java-2")["openId"]
    for turn, content in enumerate(("你好", "再见"), 1):
        events = list(client.chat(agent.id, user, "c-9", content))
        assert [event.name for event in events] == ["thinking", "text", "done"]
        whole = f"Turn {turn}: {content}\n\n🙂"
        assert events[-1].data == {"conversationId": "c-9", "fullText": whole}
    assert len(client.get("/agent/conversations/messages", agentId=agent.id, conversationId="c-9", openId=user)) == 4
    sync = client.post("/agent/chat/sync", agentId=agent.id, openId=user, content="x", conversationId="c-9", timeout=0)
    assert sync["content"].startswith("Turn 3: x")


@shows(requirements_b.b_java_reader, requirements_b.b_java_client, requirements_b.b_n15)
def test_it_learns_of_every_failure(served: Served, key: ApiKey, client: Client) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    user = client.post("/user/register", externalId="java-3")["openId"]
    assert [event.name for event in client.chat(agent.id, user, None, "x")] == ["text", "error"]
    (refusal,) = client.chat(agent.id, "nobody", None, "x")
    assert refusal == Event("error", {**refusal.data, "message": "OpenId 无效: nobody", "status": 5001})
    (refusal,) = Client(served.base_url, key.id, "x").chat(agent.id, user, None, "x")
    assert (refusal.name, refusal.data["message"]) == ("error", "Token 验证失败")
    with pytest.raises(SnailAiError, match="用户不存在: nobody"):
        client.get("/user", openId="nobody")
    with pytest.raises(SnailAiError, match="HTTP 404"):
        client.get("/nothing")
