"""``palaver chat``."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest
from support.commands import Palaver, Terminal

SLOW = """---
name: slow
model: scripted
opening_message: Good morning.
---
- think: "I wonder. "
- text: "Begun ${content}. "
- repeat: {text: "x", times: 2000, every: 0.01}
"""
ECHO = "---\nname: echo\nmodel: scripted\n---\nThis is no script."
FAILING = "---\nname: failing\nmodel: scripted\n---\n- text: so far\n- fail: cut\n"


@pytest.fixture
def terminal(palaver: Palaver) -> Generator[Terminal]:
    palaver.agent(SLOW)
    at = Terminal(palaver, "chat", "slow")
    yield at
    at.close()


def test_ctrl_c_stops_the_answer_and_at_the_prompt_it_leaves(terminal: Terminal) -> None:
    terminal.until("Good morning.")
    for question in ("one", "two"):
        terminal.until("› ")
        terminal.type(f"{question}\n")
        assert "I wonder. \n" in terminal.until(f"Begun {question}. xx")
        terminal.type("\x03")
        terminal.until("(stopped)")
    terminal.until("› ")
    terminal.until("palaver chat 'slow' --conversation ", press="\x03")
    assert terminal.ended() == 0


def test_a_question_from_a_pipe_gets_the_answer_and_nothing_else(palaver: Palaver) -> None:
    palaver.agent(ECHO)
    said = palaver.run("chat", "echo", "--conversation", "mine", stdin="hello\n")
    assert (said.returncode, said.stdout, said.stderr) == (0, "You said: hello\n", "")
    events = [json.loads(line) for line in palaver.says("chat", "echo", "-m", "hi", "--json").splitlines()]
    assert [event["type"] for event in events] == ["begun", "text", "text", "text", "text", "ended"]
    assert "".join(event.get("text", "") for event in events) == "You said: hi"
    assert (events[-1]["status"], events[0]["agent"]["name"]) == ("complete", "echo")


def test_a_conversation_goes_on_where_it_was(palaver: Palaver) -> None:
    palaver.agent("---\nname: counting\nmodel: scripted\n---\n- text: turn ${turn}\n")
    ask = ("chat", "counting", "--conversation", "mine", "-m", "hi")
    assert [palaver.says(*ask) for _ in range(2)] == ["turn 1\n", "turn 2\n"]
    assert "there is no conversation '4711'" in palaver.refused(
        "chat", "counting", "--conversation", "4711", "-m", "hi"
    )


def test_an_answer_that_fails_is_one_line_and_exit_code_1(palaver: Palaver) -> None:
    palaver.agent(FAILING)
    said = palaver.run("chat", "failing", "-m", "hi")
    assert (said.returncode, said.stdout) == (1, "so far\n")
    assert said.stderr.startswith("palaver: the model failed (cut)")


def test_variables_are_given_on_the_command_line(palaver: Palaver) -> None:
    script = (
        "---\nname: guide\nmodel: scripted\nvariables:\n  - name: city\n    required: true\n---\n- text: in {{city}}\n"
    )
    palaver.agent(script)
    assert "in Rome" in palaver.says("chat", "guide", "-m", "hi", "--var", "city=Rome")
    assert "requires the variable 'city'" in palaver.refused("chat", "guide", "-m", "hi")
    assert "is not NAME=VALUE" in palaver.refused("chat", "guide", "-m", "hi", "--var", "city", code=2)
