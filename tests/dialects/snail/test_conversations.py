"""Conversations: whose they are, what they are called, what is remembered in them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote
from uuid import UUID, uuid4

import pytest
from dialects.snail.client import USER, Caller, done, refused
from support.http_clients import Answer
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

OTHER_AGENT = "conversationId 与 agentId 不匹配"
WRONG_NAME = "参数格式错误: conversationId"


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    """Says how many messages it has seen in this conversation, the present one included."""
    return served.agent("${turn}")


def turn(answer: Answer) -> int:
    return int(done(answer)["fullText"])


def name(answer: Answer) -> str:
    """The conversation's id, which both places of the answer must agree on."""
    written = done(answer)["conversationId"]
    header = answer.header("X-Conversation-Id")
    assert header is not None
    assert written in {header, unquote(header)}
    return written


def bare(uid: str) -> str:
    """A UUID without its hyphens."""
    return uid.replace("-", "")


# A conversation goes on ---------------------------------------------------------------------------------------------


@shows(
    requirements.n2,
    requirements.conversation_goes_on,
    requirements.unknown_conversation_is_new,
    requirements.alias_is_verbatim,
    requirements.reasoning_and_history_in_one_call,
)
def test_n2_the_second_message_of_a_conversation_sees_the_first(caller: Caller, agent: Agent) -> None:
    for number in (1, 2, 3):
        answer = caller.say(agent, conversationId="conv-abc123")
        assert (turn(answer), name(answer)) == (number, "conv-abc123")


@shows(requirements.conversation_id_comes_back, requirements.conversation_goes_on)
def test_the_id_that_came_back_goes_on_with_the_conversation(caller: Caller, agent: Agent) -> None:
    first = caller.say(agent)
    second = caller.say(agent, conversationId=name(first))
    assert (turn(first), turn(second)) == (1, 2)
    assert name(second) == name(first)


@pytest.mark.parametrize("blank", [None, "", " ", "\t\n", "\u3000"])
@shows(requirements.first_message_makes_a_conversation, requirements.blank_conversation_id)
def test_without_an_id_every_message_begins_a_conversation(caller: Caller, agent: Agent, blank: str | None) -> None:
    first, second = (caller.say(agent, conversationId=blank) for _ in range(2))
    assert (turn(first), turn(second)) == (1, 1)
    assert name(first) != name(second)


@shows(requirements.conversation_goes_on)
def test_the_model_sees_what_was_said_and_what_was_answered(served: Served, caller: Caller) -> None:
    agent = served.agent("An answer to ${content}")
    answer = [caller.say(agent, words, conversationId="remembered") for words in ("one", "two")][-1]
    history = [(message.role, message.text) for message in served.history(caller.key, USER, name(answer))]
    assert history == [
        ("user", "one"),
        ("assistant", "An answer to one"),
        ("user", "two"),
        ("assistant", "An answer to two"),
    ]


# What it is called --------------------------------------------------------------------------------------------------


@shows(requirements.alias_or_uuid)
def test_a_conversation_without_a_name_is_its_uuid_with_hyphens(caller: Caller, agent: Agent) -> None:
    written = name(caller.say(agent))
    assert written == str(UUID(written))


@shows(requirements.uuid_forms, requirements.alias_or_uuid)
def test_a_uuid_goes_on_in_every_form_and_is_answered_in_one(caller: Caller, agent: Agent) -> None:
    uid = UUID(name(caller.say(agent)))
    forms = (str(uid), uid.hex, str(uid).upper(), uid.hex.upper())
    answers = [caller.say(agent, conversationId=form) for form in forms]
    assert [turn(answer) for answer in answers] == [2, 3, 4, 5]
    assert {name(answer) for answer in answers} == {str(uid)}


@shows(requirements.uuid_forms)
def test_what_is_no_form_of_a_uuid_is_another_name(caller: Caller, agent: Agent) -> None:
    uid = name(caller.say(agent))
    for form in (f"{{{uid}}}", f"urn:uuid:{uid}", f" {uid}", f"{uid} ", uid.replace("-", "_"), uid[:-1]):
        answer = caller.say(agent, conversationId=form)
        assert (turn(answer), name(answer)) == (1, form)


@pytest.mark.parametrize(
    "alias",
    [
        "c-9",
        "7",
        "0",
        " padded ",
        "a b",
        "a%20b",
        "100%",
        "对话/一?x=1&y#z",
        "🙂",
        "é" * 128,
        "🙂" * 128,
        "x" * 128,
        "\u200b",
        "\u202e",
        "null",
        "'; --",
        '"\\',
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400E29B41D4A716446655440001",
    ],
)
@shows(requirements.alias_is_verbatim, requirements.unknown_conversation_is_new, requirements.ids_in_headers)
def test_a_name_of_ones_own_is_kept_as_it_is(caller: Caller, agent: Agent, alias: str) -> None:
    for number in (1, 2):
        answer = caller.say(agent, conversationId=alias)
        assert (turn(answer), done(answer)["conversationId"]) == (number, alias)
        header = answer.header("X-Conversation-Id")
        assert header is not None
        if all("!" <= character <= "~" for character in alias):
            assert header == alias
        else:
            assert all("!" <= character <= "~" for character in header)
            assert unquote(header, errors="strict") == alias


@shows(requirements.uuid_forms)
def test_a_name_is_compared_exactly(caller: Caller, agent: Agent) -> None:
    own = str(uuid4())
    aliases = ("Name", "name", "name ", "náme", "na\u0301me", own, own.upper(), UUID(own).hex)
    assert [turn(caller.say(agent, conversationId=alias)) for alias in aliases] == [1] * len(aliases)


@pytest.mark.parametrize("alias", ["x" * 129, "🙂" * 129, "é" * 1000, "a\nb", "a\tb", "\x01", "a\x7f", "\x80", "a\x9f"])
@shows(requirements.conversation_id_has_a_form)
def test_a_name_that_is_too_long_or_has_control_characters_is_refused(caller: Caller, agent: Agent, alias: str) -> None:
    refused(caller.say(agent, conversationId=alias), WRONG_NAME)


@shows(requirements.nul_in_conversation_id)
def test_u_0000_in_a_name_is_u_fffd(caller: Caller, agent: Agent) -> None:
    first = caller.say(agent, conversationId="nul\x00")
    second = caller.say(agent, conversationId="nul\ufffd")
    assert [name(first), name(second)] == ["nul\ufffd"] * 2
    assert turn(second) == 2


# Whose it is --------------------------------------------------------------------------------------------------------


@shows(requirements.n3, requirements.open_ids_are_kept_apart, requirements.conversations_are_found_by_owner)
def test_n3_the_same_name_of_another_user_is_another_conversation(caller: Caller, agent: Agent) -> None:
    users = ("one", "two", "One", "one ", "оne")
    answers = [caller.say(agent, user=user, conversationId="shared") for user in users for _ in range(2)]
    assert [turn(answer) for answer in answers] == [1, 2] * len(users)


@pytest.mark.parametrize("form", [str, str.upper, bare])
@shows(requirements.conversations_are_found_by_owner, requirements.open_ids_are_kept_apart)
def test_nobody_joins_a_conversation_whose_uuid_they_know(
    caller: Caller, agent: Agent, form: Callable[[str], str]
) -> None:
    mine = caller.say(agent, user="owner")
    uid = form(name(mine))
    theirs = caller.say(agent, user=f"thief of {uid}", conversationId=uid)
    assert (turn(theirs), name(theirs)) == (1, uid)
    assert turn(caller.say(agent, user="owner", conversationId=uid)) == 2
    assert turn(caller.say(agent, user=f"thief of {uid}", conversationId=uid)) == 2


@shows(requirements.conversations_are_found_by_owner)
def test_a_conversations_number_is_only_a_name(served: Served, caller: Caller, agent: Agent) -> None:
    uid = name(caller.say(agent))
    (row,) = served.sql("SELECT id FROM conversation WHERE uid = $1", UUID(uid))
    answer = caller.say(agent, conversationId=str(row["id"]))
    assert (turn(answer), name(answer)) == (1, str(row["id"]))


@shows(requirements.issued_open_ids, requirements.conversations_are_found_by_owner)
def test_an_issued_open_id_is_the_user_it_was_issued_to_in_its_application_alone(
    served: Served, caller: Caller, agent: Agent
) -> None:
    assert turn(caller.say(agent, user="issued", conversationId="private")) == 1
    (row,) = served.sql("SELECT uid FROM end_user WHERE name = 'issued'")
    assert turn(caller.say(agent, user=row["uid"].hex, conversationId="private")) == 2
    abroad = Caller(served, served.key("snail", application="far away"))
    theirs = served.agent("${turn}", application="far away")
    assert turn(abroad.say(theirs, user=row["uid"].hex, conversationId="private")) == 1


@shows(requirements.conversations_are_the_applications, requirements.several_secrets)
def test_every_credential_of_the_application_reaches_the_conversation(
    served: Served, caller: Caller, agent: Agent
) -> None:
    other = Caller(served)
    assert turn(caller.say(agent, conversationId="of the application")) == 1
    assert turn(other.say(agent, conversationId="of the application")) == 2


@shows(requirements.conversations_are_found_by_owner, requirements.unknown_users_are_registered)
def test_another_application_has_its_own_users_and_conversations(served: Served, caller: Caller, agent: Agent) -> None:
    abroad = Caller(served, served.key("snail", application="abroad"))
    theirs = served.agent("${turn}", application="abroad")
    mine = caller.say(agent, user="same", conversationId="same")
    uid = served.sql("SELECT uid FROM conversation WHERE alias = 'same'")[0]["uid"]
    assert turn(mine) == 1
    assert turn(abroad.say(theirs, user="same", conversationId="same")) == 1
    assert turn(abroad.say(theirs, user="same", conversationId=str(uid))) == 1
    users = served.sql("SELECT app FROM end_user WHERE name = 'same'")
    assert len({row["app"] for row in users}) == 2


@shows(requirements.unknown_users_are_registered)
def test_a_user_is_registered_once(served: Served, caller: Caller, agent: Agent) -> None:
    for _ in range(3):
        caller.say(agent, user="registered")
    assert len(served.sql("SELECT FROM end_user WHERE name = 'registered'")) == 1


# Another agent ------------------------------------------------------------------------------------------------------


@shows(requirements.conversation_of_another_agent)
def test_a_conversation_stays_with_its_agent(served: Served, caller: Caller, agent: Agent) -> None:
    other = served.agent("${turn}")
    uid = name(caller.say(agent))
    assert turn(caller.say(agent, conversationId="of an agent")) == 1
    for known in ("of an agent", uid, UUID(uid).hex):
        refused(caller.say(other, conversationId=known), OTHER_AGENT)
    assert turn(caller.say(agent, conversationId="of an agent")) == 2
    assert turn(caller.say(other, user="somebody else", conversationId="of an agent")) == 1


@shows(requirements.agent_before_conversation)
def test_the_agent_is_looked_at_before_the_conversation(caller: Caller, agent: Agent) -> None:
    caller.say(agent, conversationId="of this agent")
    refused(caller.say(999, conversationId="of this agent"), "智能体不存在或已被禁用")


@shows(requirements.conversation_before_idempotency)
def test_the_conversation_is_looked_at_before_the_use_of_a_key(served: Served, caller: Caller, agent: Agent) -> None:
    other = served.agent("${turn}")
    key = {"Idempotency-Key": "one"}
    caller.say(agent, conversationId="with a key", headers=key)
    refused(caller.say(other, conversationId="with a key", headers=key), OTHER_AGENT)


@shows(requirements.malformed_key_before_conversation)
def test_a_malformed_key_is_reported_before_the_conversation(served: Served, caller: Caller, agent: Agent) -> None:
    other = served.agent("${turn}")
    caller.say(agent, conversationId="with a bad key")
    answer = caller.say(other, conversationId="with a bad key", headers={"Idempotency-Key": "a b"})
    refused(answer, "Idempotency-Key 格式错误")
