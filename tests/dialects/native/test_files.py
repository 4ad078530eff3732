"""Files: how long they stay, and how many."""

from __future__ import annotations

import json

from dialects.native.client import Caller, good, problem
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.native import requirements

SETTINGS = {"max_user_files_bytes": 3000, "max_application_files_bytes": 5000}
TEXT = {"Content-Type": "text/plain"}


def upload(caller: Caller, content: str, name: str = "a.txt") -> str:
    return good(caller.ask("POST", "files", content.encode(), query=f"name={name}", headers=TEXT), 201)["key"]


@shows(requirements.delete_with)
def test_a_file_stays_while_another_conversation_attaches_it(served: Served) -> None:
    agent, caller = served.agent("so be it"), Caller(served, user="eve")
    key, unused = upload(caller, "shared"), upload(caller, "unused")
    places = [caller.begin(agent, files=[key])["conversation"]["uid"] for _ in range(2)]
    for place, status in zip(places, (200, 404), strict=True):
        assert caller.ask("DELETE", f"conversations/{place}").status == 204
        assert caller.get(f"files/{key}").status == status
    assert caller.get(f"files/{unused}").status == 200


@shows(requirements.delete_file)
def test_a_file_is_deleted_for_good(served: Served) -> None:
    agent, caller, other = served.agent("so be it"), Caller(served, user="eve"), Caller(served, user="mallory")
    key = upload(caller, "plugh-content", name="plugh.txt")
    place = caller.begin(agent, files=[key])["conversation"]["uid"]
    problem(other.ask("DELETE", f"files/{key}"), 404, "not_found", noun="file")
    assert caller.ask("DELETE", f"files/{key}").status == 204
    problem(caller.get(f"files/{key}"), 404, "not_found", noun="file")
    problem(caller.ask("DELETE", f"files/{key}"), 404, "not_found", noun="file")
    assert served.sql("SELECT FROM file_piece WHERE bytes = $1", b"plugh-content") == []
    assert "plugh.txt" in json.dumps(caller.messages(place))
    assert caller.say(place)["answer"]["status"] == "complete"


@shows(requirements.quota)
def test_an_end_user_and_an_application_keep_so_much_and_no_more(served: Served) -> None:
    greedy = Caller(served, served.key("native", application="hoard"), user="greedy")
    key = upload(greedy, "x" * 2000)
    refused = greedy.ask("POST", "files", b"x" * 2000, query="name=b", headers=TEXT)
    problem(refused, 400, "invalid", field="file", rule="size")
    assert greedy.ask("DELETE", f"files/{key}").status == 204
    upload(greedy, "x" * 2000)
    second = Caller(served, greedy.key, user="second")
    upload(second, "x" * 1900)
    third = Caller(served, greedy.key, user="third")
    refused = third.ask("POST", "files", b"x" * 2000, query="name=b", headers=TEXT)
    problem(refused, 400, "invalid", field="file", rule="size")
    upload(Caller(served, user="elsewhere"), "x" * 2000)
