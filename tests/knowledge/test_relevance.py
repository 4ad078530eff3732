"""Questions of people to the documents in ``library``, and where the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest
from support.databases import Databases
from support.repositories import Reader, reader_on

ANSWERS = [
    ("如何修改安装目录", "手册/安装.md", "Windows"),
    ("忘记密码了怎么办？", "手册/安装.md", "第一次登录"),
    ("怎么卸载", "手册/安装.md", "Linux"),
    ("安装时提示缺少运行库", "手册/安装.md", "Windows"),
    ("坐飞机可以报销什么舱位", "手册/报销.md", ""),
    ("出差每天补助多少钱", "手册/报销.md", "餐饮补助"),
    ("报销单要在几个工作日之内提交", "手册/报销.md", "报销流程"),
    ("年假有几天", "手册/员工手册.txt", "第二章 休假"),
    ("离职要提前多久通知", "手册/员工手册.txt", "第三章 离职"),
    ("请问一下公司的电脑离职的时候要还吗", "手册/员工手册.txt", "第三章 离职"),
    ("加班费怎么算", "手册/员工手册.txt", "第一章 工作时间"),
    ("陪产假", "手册/员工手册.txt", "第二章 休假"),
    ("花椒", "recipes.html", "Mapo tofu 麻婆豆腐"),
    ("豆腐要煮多久", "recipes.html", "Mapo tofu 麻婆豆腐"),
    ("how long do I bake the bread", "recipes.html", "Sourdough bread"),
    ("which port does the server listen on", "configuration.md", "Network"),
    ("gpt-4o", "configuration.md", "Models"),
    ("PALAVER_MAX_BODY_BYTES", "configuration.md", "Network"),
    ("max body bytes", "configuration.md", "Network"),
    ("streams behind nginx reverse proxy arrive in one piece", "configuration.md", "Network"),
    ("where do I put the OpenAI key?", "configuration.md", "Models"),
    ("how do I restore a backup", "security.txt", "Backups"),
    ("our API key leaked, what now", "security.txt", ""),
    ("I get the error message too many requests, what should I do now?", "troubleshooting.md", ""),
    ("429", "troubleshooting.md", ""),
]
UNANSWERED = [
    "什么是量子力学",
    "明天北京天气怎么样",
    "你是谁",
    "帮我写一首关于春天的诗",
    "推荐几部好看的电影",
    "what is the capital of France",
    "weather forecast",
    "tracking",
    "Please summarise the history of the Roman empire in three sentences",
    "How tall is Mount Everest in metres?",
]


@pytest.fixture(scope="module")
def library(cluster: Databases) -> Generator[tuple[asyncio.Runner, Reader]]:
    with asyncio.Runner() as runner:
        name, url = runner.run(cluster.acquire())
        opened = reader_on(url)
        reader = runner.run(opened.__aenter__())
        runner.run(reader.add(Path(__file__).parent / "library"))
        yield runner, reader
        runner.run(opened.__aexit__(None, None, None))
        runner.run(cluster.release(name))


@pytest.mark.parametrize(("question", "source", "heading"), ANSWERS)
def test_the_best_passage_answers(
    library: tuple[asyncio.Runner, Reader], question: str, source: str, heading: str
) -> None:
    runner, reader = library
    hits = runner.run(reader.ask(question))
    assert hits
    assert (hits[0].source, hits[0].heading) == (source, heading)
    assert 1 >= hits[0].score >= hits[-1].score > 0


@pytest.mark.parametrize("question", UNANSWERED)
def test_a_question_about_something_else_finds_nothing(library: tuple[asyncio.Runner, Reader], question: str) -> None:
    runner, reader = library
    assert runner.run(reader.ask(question)) == []
