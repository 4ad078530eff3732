"""The offline model: what it quotes, and what it says when there is nothing to quote."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from support.model_runner import asked, called, finished, listen, run, said

from palaver.core.ports.models import Attachment, ContentDelta, ModelDelta, ModelMessage, ModelRequest, StepFinished
from palaver.core.turn import SEARCH_TOOL, KnowledgeSearchTool, search_output
from palaver.core.types import Passage, Text, ToolCall, ToolResult
from palaver.models.extract import QUOTE_CHARACTERS, ExtractModel, QueryWord, excerpt

LEAVE = Passage(
    text="Employees have 25 days of annual leave. It must be taken by 31 March. Ask your manager first.",
    source="handbook.md",
    title="Handbook",
    heading="Annual leave",
)
CANTEEN = Passage(text="The canteen opens at 11.30.\nIt closes at 14.00.", source="canteen.md")
HOLIDAY = Passage(
    text="员工每年有25天年假。年假必须在3月31日前休完。", source="handbook.md", title="员工手册", heading="年假"
)


def answered(question: str, *passages: Passage) -> str:
    return said(deltas(msgspec.structs.replace(asked(question), passages=passages)))


def deltas(request: ModelRequest) -> list[ModelDelta]:
    return run(listen(ExtractModel().stream(request)))


def after_search(question: str, result: ToolResult) -> ModelRequest:
    call = ToolCall(call_id="a", name=SEARCH_TOOL, arguments={"query": question})
    turn = ModelMessage(role="assistant", parts=(call, result))
    request = asked(question)
    return msgspec.structs.replace(request, history=(*request.history, turn), tools=(KnowledgeSearchTool.spec,))


def test_a_passage_is_quoted_with_its_source() -> None:
    assert answered("How many days of annual leave do I have?", LEAVE) == (
        "This is what my documents say:\n\n"
        "> Employees have 25 days of annual leave. It must be taken by 31 March. Ask your manager first.\n\n"
        "— Handbook › Annual leave (handbook.md)"
    )


def test_every_line_of_a_quote_is_quoted() -> None:
    assert "> The canteen opens at 11.30.\n> It closes at 14.00.\n\n— canteen.md" in answered("canteen?", CANTEEN)


def test_a_chinese_question_is_answered_in_chinese() -> None:
    text = answered("年假有多少天？", HOLIDAY)
    assert text.startswith("资料中的相关内容如下：\n\n> 员工每年有25天年假。")
    assert text.endswith("—— 员工手册 › 年假（handbook.md）")


def test_the_answer_comes_in_several_pieces_and_costs_nothing() -> None:
    heard = deltas(msgspec.structs.replace(asked("leave"), passages=(LEAVE,)))
    assert len([delta for delta in heard if isinstance(delta, ContentDelta)]) > 2
    assert finished(heard) == StepFinished()


def test_at_most_three_passages_are_quoted_and_none_twice() -> None:
    many = [Passage(text=f"Rule {n} about leave.", source=f"{n}.md") for n in range(6)]
    text = answered("What about leave?", many[0], many[0], *many)
    assert [line for line in text.splitlines() if line.startswith("—")] == ["— 0.md", "— 1.md", "— 2.md"]


def test_a_passage_without_a_word_of_the_question_is_not_quoted_beside_one_with_many() -> None:
    assert "canteen" not in answered("When must annual leave be taken?", LEAVE, CANTEEN)


KEYS = Passage(
    text="| Command | What it does |\n|---|---|\n| key create | makes a key |\n| key rotate | renews a secret |",
    source="commands.md",
    heading="Commands",
)


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("What is the capital of France?", Passage(text="Start each name with a capital letter.", source="style.md")),
        ("Which key opens the garage door?", KEYS),
        ("Wo gibt es Essen?", CANTEEN),
        ("法国的首都是哪座城市？", Passage(text="每座仓库都有编号。", source="a.md")),
    ],
)
def test_what_shares_one_word_or_none_is_not_quoted(question: str, passage: Passage) -> None:
    assert answered(question, passage) in {"I have found nothing about this.", "没有找到与此相关的内容。"}


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("canteen?", CANTEEN),
        ("When does the canteen close?", CANTEEN),
        ("How do I rotate a key?", KEYS),
        ("年假", HOLIDAY),
        ("请问年假怎么休？", HOLIDAY),
        ("员工的年假要在什么时候休完？", HOLIDAY),
    ],
)
def test_what_shares_what_was_asked_for_is_quoted(question: str, passage: Passage) -> None:
    assert answered(question, passage).startswith(("This is what my documents say:", "资料中的相关内容如下："))


def test_what_answers_perhaps_is_quoted_alone_and_it_says_so() -> None:
    question = "Is there a canteen voucher for visitors who close a contract in the evening?"
    text = answered(question, CANTEEN, Passage(text="The canteen is cleaned at the close of day.", source="b.md"))
    assert text.startswith("I am not sure that this answers the question.")
    assert text.count("\n— ") == 1
    assert answered(
        "食堂关门以后访客还能凭合同领取餐券吗？", Passage(text="食堂每天中午开门。晚上六点关门。", source="c")
    ).startswith("以下内容不一定能回答您的问题")


def test_a_word_in_most_passages_does_not_say_which_one_answers() -> None:
    many = [Passage(text=f"Palaver has a setting number {n}.", source=f"{n}.md") for n in range(6)]
    text = answered(
        "Which palaver setting has the heartbeat?",
        *many,
        Passage(text="The heartbeat is a palaver setting.", source="h.md"),
    )
    assert [line for line in text.splitlines() if line.startswith("—")] == ["— h.md"]


def test_asked_what_a_file_says_it_quotes_the_beginning() -> None:
    file = Attachment(name="menu.txt", text="Soup costs 4.\n\nTea costs 2.")
    request = msgspec.structs.replace(asked("Please summarise"), attachments={"k": file})
    assert "> Soup costs 4." in said(deltas(request))
    assert said(deltas(request)).startswith("I am not sure")


@pytest.mark.parametrize("size", [40_000, 80_000])
@pytest.mark.parametrize("script", ["en", "zh"])
def test_the_event_loop_goes_on_whatever_is_asked_of_whatever_files(size: int, script: str) -> None:
    def text(length: int) -> str:
        if script == "zh":
            return "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(length))
        return " ".join(f"w{at:05}x" for at in range(length // 8))

    files = {name: Attachment(name=name, text=text(length)) for name, length in (("a", 56_000), ("b", 200_000))}
    request = msgspec.structs.replace(
        asked(text(size)), attachments=files, passages=tuple(Passage(text=text(1200), source=str(n)) for n in range(5))
    )

    async def scene() -> float:
        longest = 0.0
        answering = asyncio.create_task(listen(ExtractModel().stream(request)))
        while not answering.done():
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begun)
        assert said(await answering)
        return longest

    assert min(run(scene()) for _ in range(3)) < 0.05


def test_a_long_passage_is_cut_to_the_sentences_around_the_match() -> None:
    before = "Nothing of interest stands here, e.g. no 3.5 and no v1.2. " * 30
    text = before + "The secret word is plover. It opens the cave. " + before
    quote = excerpt(text, [QueryWord(parts=("plover",))])[0]
    assert len(quote) <= QUOTE_CHARACTERS + 4
    assert "The secret word is plover. It opens the cave." in quote
    assert quote.startswith("… ")
    assert quote.endswith(" …")


def test_a_long_chinese_passage_is_cut_at_its_own_full_stops() -> None:
    text = "这里没有什么内容。" * 100 + "年假有二十五天。" + "这里没有什么内容。" * 100
    quote = answered("年假有几天", Passage(text=text, source="a")).split("> ")[1].split("\n")[0]
    assert "年假有二十五天。" in quote
    assert quote.startswith("… 这里没有什么内容。")
    assert len(quote) <= QUOTE_CHARACTERS + 4


def test_a_sentence_without_an_end_is_cut_around_the_match() -> None:
    quote = excerpt("x" * 2000 + " plover " + "y" * 2000, [QueryWord(parts=("plover",))])[0]
    assert "plover" in quote
    assert len(quote) <= QUOTE_CHARACTERS + 4


@pytest.mark.parametrize(
    "text", ["." * 50_000, "a" * 50_000, "。" * 50_000, "\n" * 50_000, "a." * 25_000, "?!) " * 9999]
)
def test_no_text_takes_long(text: str) -> None:
    answered("a?", Passage(text="a" + text, source="s"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who are you?", "I have found nothing about this."),
        ("hi", "Hello! What would you like to know?"),
        ("Good morning!", "Hello! What would you like to know?"),
        ("你好", "你好！请问您想了解什么？"),
        ("公司在哪里？", "没有找到与此相关的内容。"),
        ("会社はどこですか", "I have found nothing about this."),
        ("", "I have found nothing about this."),
    ],
)
def test_with_nothing_found_it_says_so_and_nothing_that_is_for_the_operator(question: str, answer: str) -> None:
    assert answered(question) == answer


def test_offered_the_search_it_searches_with_the_question() -> None:
    heard = deltas(msgspec.structs.replace(asked("How much leave?"), tools=(KnowledgeSearchTool.spec,)))
    assert [(call.name, call.arguments) for call in called(heard)] == [(SEARCH_TOOL, {"query": "How much leave?"})]
    assert finished(heard).reason == "tool_calls"


def test_it_quotes_what_the_search_found() -> None:
    output = search_output([LEAVE, CANTEEN])
    result = ToolResult(call_id="a", name=SEARCH_TOOL, content=output.content, data=output.data)
    assert "> Employees have 25 days" in said(deltas(after_search("How much annual leave?", result)))


@pytest.mark.parametrize(
    "result",
    [
        ToolResult(call_id="a", name=SEARCH_TOOL, content="Nothing was found.", data=[]),
        ToolResult(call_id="a", name=SEARCH_TOOL, content="", data=None),
        ToolResult(call_id="a", name=SEARCH_TOOL, content="broken", error=True),
        ToolResult(call_id="a", name=SEARCH_TOOL, content="odd", data=[{"no": "passage"}]),
    ],
)
def test_it_searches_once_and_not_again(result: ToolResult) -> None:
    heard = deltas(after_search("How much leave?", result))
    assert not called(heard)
    assert said(heard) == "I have found nothing about this."


def test_a_search_of_an_earlier_turn_is_not_this_turns() -> None:
    request = after_search("Old?", ToolResult(call_id="a", name=SEARCH_TOOL, content="", data=[]))
    turn = ModelMessage(role="user", parts=(Text(text="New?"),))
    heard = deltas(msgspec.structs.replace(request, history=(*request.history, turn)))
    assert called(heard)[0].arguments == {"query": "New?"}


def test_it_does_not_search_for_nothing() -> None:
    assert not called(deltas(msgspec.structs.replace(asked("  "), tools=(KnowledgeSearchTool.spec,))))
