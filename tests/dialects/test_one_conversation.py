"""One conversation, every dialect: what one starts goes on in the others."""

from __future__ import annotations

import pytest
from support.adapters import dialect_clients
from support.contract import DIALECTS
from support.dialect_clients import DialectClient
from support.live_server import Served

NAMES = tuple(DIALECTS)


@pytest.fixture
def clients(served: Served) -> dict[str, DialectClient]:
    return dialect_clients(served, served.agent({"text": "turn ${turn}: ${content}"}))


@pytest.mark.parametrize("first", NAMES)
def test_a_conversation_started_in_one_dialect_goes_on_in_the_others(
    clients: dict[str, DialectClient], first: str
) -> None:
    conversation = clients[first].start()
    expected = ["hi", "turn 1: hi"]
    for turn, name in enumerate(NAMES, 2):
        assert clients[name].send(conversation, f"at {name}") == f"turn {turn}: at {name}"
        expected += [f"at {name}", f"turn {turn}: at {name}"]
        for other, client in clients.items():
            if client.list_messages is not None:
                assert client.list_messages(conversation) == expected, other


@pytest.mark.parametrize("first", NAMES)
def test_a_title_set_in_one_dialect_is_shown_in_the_others(clients: dict[str, DialectClient], first: str) -> None:
    conversation = clients[first].start()
    renaming = {name: client.rename for name, client in clients.items() if client.rename is not None}
    assert len(renaming) >= 2
    for name, rename in renaming.items():
        rename(conversation, f"新标题 {name}")
        for other, client in clients.items():
            if client.get_title is not None and client.list_conversations is not None:
                assert conversation in client.list_conversations(), other
                assert client.get_title(conversation) == f"新标题 {name}", other


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("last", NAMES)
def test_a_conversation_deleted_in_one_dialect_is_gone_in_all(
    clients: dict[str, DialectClient], first: str, last: str
) -> None:
    delete = clients[last].delete
    if delete is None:
        pytest.skip("the vendor has no such call")
    conversation = clients[first].start()
    assert not any(client.is_gone(conversation) for client in clients.values())
    delete(conversation)
    assert all(client.is_gone(conversation) for client in clients.values())
