"""What a model is asked, as an endpoint reads it."""

from __future__ import annotations

from typing import Any

import msgspec
from support.model_runner import asked

from palaver.core.ports.models import Attachment, ModelMessage, ModelRequest
from palaver.core.ports.tools import ToolSpec
from palaver.core.types import AnyPart, File, Passage, Text, Thinking, ToolCall, ToolResult
from palaver.models.request_body import encode_body, messages


def written(*parts: AnyPart) -> list[dict[str, Any]]:
    """The messages of an assistant's turn."""
    turn = ModelMessage(role="assistant", parts=parts)
    return messages(ModelRequest(model="m", instructions="", history=(turn,)))


def call(call_id: str, **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name="look", arguments=arguments)


def result(call_id: str, content: str = "seen") -> ToolResult:
    return ToolResult(call_id=call_id, name="look", content=content)


def test_a_plain_question_is_one_message_and_asks_for_usage() -> None:
    assert msgspec.json.decode(encode_body(asked("Hello?", model="gpt-9"))) == {
        "model": "gpt-9",
        "messages": [{"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_instructions_are_the_systems_words_and_blank_ones_are_none() -> None:
    assert messages(asked(instructions=" Be brief.\n"))[0] == {"role": "system", "content": "Be brief."}
    assert messages(asked(instructions=" \n"))[0]["role"] == "user"


def test_passages_follow_the_instructions_as_numbered_sources() -> None:
    passages = (
        Passage(text="Turn left.", source="way.md", title="The way"),
        Passage(text="Then right.", source="https://a.example/b"),
    )
    request = msgspec.structs.replace(asked(instructions="Be brief."), passages=passages)
    system = messages(request)[0]["content"]
    assert system.startswith("Be brief.\n\n")
    assert "[1] The way (way.md)\nTurn left." in system
    assert "[2] https://a.example/b (https://a.example/b)\nThen right." in system


def test_passages_without_instructions_make_a_system_message_of_their_own() -> None:
    request = msgspec.structs.replace(asked(), passages=(Passage(text="a", source="b"),))
    assert [message["role"] for message in messages(request)] == ["system", "user"]


def test_tools_are_offered_as_functions() -> None:
    tool = ToolSpec(name="look", description="Looks.", parameters={"type": "object", "properties": {}})
    said = msgspec.json.decode(encode_body(msgspec.structs.replace(asked(), tools=(tool,))))
    assert said["tools"] == [
        {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": tool.parameters}}
    ]


def asked_with(attachments: dict[str, Attachment], *parts: AnyPart) -> Any:
    turn = ModelMessage(role="user", parts=(Text(text="What is this?"), *parts))
    (message,) = messages(ModelRequest(model="m", instructions="", history=(turn,), attachments=attachments))
    return message["content"]


def test_a_picture_is_shown_and_never_by_its_address() -> None:
    file = File(ref="https://a.example/x.png", media_type="image/png")
    picture = Attachment(name="x.png", media_type="image/png", image=b"\x89PNG")
    assert asked_with({file.ref: picture}, file) == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]
    assert asked_with({}, file) == "What is this?\n[attached file: https://a.example/x.png, image/png]"


def test_a_text_is_read_out_between_its_name_and_its_end() -> None:
    notes = Attachment(name="notes.md", media_type="text/markdown", text="# Notes")
    assert asked_with({"k/1": notes}, File(ref="k/1")) == (
        "What is this?\n[attached file: notes.md, text/markdown]\n# Notes\n[end of the attached file]"
    )


def test_a_file_that_could_not_be_read_says_why() -> None:
    gone = Attachment(name="plan.pdf", missing="there is no such file")
    assert asked_with({"k/1": gone}, File(ref="k/1")) == (
        "What is this?\n[attached file: plan.pdf; it could not be read: there is no such file]"
    )


def test_files_that_are_only_named_leave_the_question_plain_text() -> None:
    parts: tuple[AnyPart, ...] = (Text(text="Read it."), File(ref="k/1", name="plan.pdf"))
    (message,) = messages(ModelRequest(model="m", instructions="", history=(ModelMessage(role="user", parts=parts),)))
    assert message["content"] == "Read it.\n[attached file: plan.pdf]"


def test_a_turn_of_several_steps_is_a_message_for_each_step_and_each_result() -> None:
    said = written(
        Thinking(text="Hm."),
        Text(text="Let me look."),
        call("a", at="x"),
        call("b"),
        result("b", "B"),
        result("a", "A"),
        Text(text="Once more."),
        call("c"),
        result("c", "C"),
        Text(text="Done."),
    )
    assert [(message["role"], message.get("content")) for message in said] == [
        ("assistant", "Let me look."),
        ("tool", "A"),
        ("tool", "B"),
        ("assistant", "Once more."),
        ("tool", "C"),
        ("assistant", "Done."),
    ]
    assert said[0]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}},
        {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ]
    assert [message["tool_call_id"] for message in said if message["role"] == "tool"] == ["a", "b", "c"]


def test_a_step_of_calls_alone_has_no_content() -> None:
    assert written(call("a"), result("a"))[0]["content"] is None


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    assert "stopped" in written(call("a"))[1]["content"]


def test_malformed_arguments_go_back_as_an_object() -> None:
    broken = ToolCall(call_id="a", name="", arguments={}, malformed='{"x":')
    assert written(broken, result("a"))[0]["tool_calls"][0]["function"] == {"name": "unknown", "arguments": "{}"}


def test_thinking_stays_here() -> None:
    assert written(Thinking(text="Hm."), Text(text="Yes.")) == [{"role": "assistant", "content": "Yes."}]
    assert "Hm." not in str(written(Thinking(text="Hm."), call("a"), result("a")))


def test_thinking_goes_back_with_its_calls_to_an_endpoint_that_wants_it() -> None:
    pocket = {"openai": {"reasoning_content": None}, "another": {"x": 1}}
    said = written(Thinking(text="Hm.", provider_data=pocket), call("a"), result("a"))
    assert said[0]["reasoning_content"] == "Hm."
    assert "x" not in said[0]
    assert written(Thinking(text="Hm.", provider_data=pocket), Text(text="Yes.")) == [
        {"role": "assistant", "content": "Yes."}
    ]


def test_what_a_call_carries_for_its_endpoint_goes_back() -> None:
    signed = ToolCall(call_id="a", name="look", arguments={}, provider_data={"openai": {"extra_content": {"s": "1"}}})
    assert written(signed, result("a"))[0]["tool_calls"][0]["extra_content"] == {"s": "1"}


def test_texts_that_are_no_unicode_are_mended_on_the_way_out() -> None:
    request = asked("a\ud800b", instructions="c\udfffd")
    assert "a\ufffdb" in encode_body(request).decode()
    assert "\ufffd" in str(written(call("a"), result("a", "\ud800")))
