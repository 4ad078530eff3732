"""Searching a knowledge base: surface A's second call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dialects.snail.client import FAR, jwt, refused
from dialects.snail.client_b import SEARCH, good
from support.http_clients import Answer, Ask
from support.live_server import APPLICATION, Served
from support.requirements import shows

from palaver.core.types import ApiKey
from palaver.dialects.snail import requirements_b
from palaver.knowledge.ingest import ingest

MISSING = "ragId 和 query 为必填参数"
UNKNOWN = "知识库不存在"
TEXTS = {
    "fruit/apple.md": "# Apples\n\nAn apple is a round fruit that keeps well in a cool cellar.\n",
    "fruit/pear.md": "# Pears\n\nA pear is a fruit as well. An apple keeps longer than a pear does.\n",
    "报销.md": "# 报销\n\n差旅报销需要在三十天内提交发票。\n",
}
Search = Callable[..., Answer]


@pytest.fixture(scope="module")
def key(served: Served) -> ApiKey:
    return served.key("snail")


@pytest.fixture(scope="module")
def base(served: Served, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A knowledge base that an agent of the application has."""
    served.agent(name="librarian", knowledge=("handbook",))
    return filled(served, tmp_path_factory.mktemp("documents"), APPLICATION, TEXTS)


def filled(served: Served, folder: Path, application: str, texts: dict[str, str]) -> int:
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    async def add() -> int:
        shelf = served.core.store.knowledge
        app = (await served.core.store.applications.get_or_create(application)).id
        await ingest(shelf, app, "handbook", [folder], lambda _: None)
        return await shelf.get_or_create(app, "handbook")

    return served.do(add())


@pytest.fixture
def search(served: Served, key: ApiKey) -> Search:
    def ask(body: bytes | None = None, *, auth: str | None = key.secret, accept: str = "*/*", **fields: Any) -> Answer:
        headers = [("Accept", accept), *([] if auth is None else [("Snail-Ai-Auth", auth)])]
        content = json.dumps(fields).encode() if body is None else body
        return served.ask(Ask(path=SEARCH, headers=headers, body=content))

    return ask


@shows(requirements_b.rag_results, requirements_b.rag_ten)
def test_the_best_passages_come_first(search: Search, base: int) -> None:
    data = good(search(ragId=base, query="How long does an apple keep in the cellar?"))
    assert list(data) == ["results", "metrics"]
    results = data["results"]
    assert [result["documentName"] for result in results] == ["fruit/apple.md", "fruit/pear.md"]
    assert "cool cellar" in results[0]["content"]
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    for result in results:
        assert list(result) == ["chunkId", "content", "score", "documentId", "documentName", "metadata"]
        assert (type(result["chunkId"]), type(result["documentId"]), result["metadata"]) == (str, int, {})
    (chinese,) = good(search(ragId=str(base), query="差旅报销"))["results"]
    assert chinese["documentName"] == "报销.md"


@shows(requirements_b.rag_results, requirements_b.rag_metrics)
def test_metrics_come_with_debug_alone(search: Search, base: int) -> None:
    for more in ({}, {"debug": False}, {"debug": None}):
        assert good(search(ragId=base, query="zebra", **more)) == {"results": [], "metrics": None}
    metrics = good(search(ragId=base, query="apple", debug=True))["metrics"]
    assert list(metrics) == [
        "embeddingMs",
        "vectorSearchMs",
        "bm25SearchMs",
        "fusionMs",
        "rerankMs",
        "totalMs",
        "vectorHitCount",
        "bm25HitCount",
        "finalCount",
    ]
    assert (metrics["bm25HitCount"], metrics["finalCount"], metrics["vectorHitCount"]) == (2, 2, 0)
    assert all(type(value) is int and value >= 0 for value in metrics.values())


@shows(requirements_b.rag_missing)
def test_n18_base_and_query_are_required(search: Search, base: int) -> None:
    for fields in ({}, {"ragId": base}, {"query": "x"}, {"ragId": base, "query": " "}, {"ragId": "", "query": "x"}):
        refused(search(**fields), MISSING)
    refused(search(ragId="x", query="x"), "参数格式错误: ragId")
    refused(search(ragId=base, query=7), "参数格式错误: query")
    refused(search(ragId=base, query="x", debug="yes"), "参数格式错误: debug")
    refused(search(b"[]"), "请求体不是合法的 JSON")


@shows(requirements_b.rag_unknown)
def test_another_applications_base_is_unknown(served: Served, search: Search, base: int, tmp_path: Path) -> None:
    foreign = filled(served, tmp_path, "somebody-else", {"a.md": "An apple."})
    for number in (foreign, 0, -1, 10**30):
        refused(search(ragId=number, query="apple"), UNKNOWN)


@shows(requirements_b.rag_known)
def test_a_base_of_agents_that_the_caller_may_not_use_is_unknown(served: Served, base: int) -> None:
    key = served.key("snail", agents=[served.agent("yes").name])
    body = json.dumps({"ragId": base, "query": "apple"}).encode()
    refused(served.ask(Ask(path=SEARCH, headers=[("Snail-Ai-Auth", key.secret)], body=body)), UNKNOWN)


@shows(requirements_b.rag_is_a)
def test_it_takes_what_the_chat_takes_and_never_answers_with_events(search: Search, key: ApiKey, base: int) -> None:
    token = jwt({"appId": key.id, "exp": FAR}, key.secret)
    assert good(search(ragId=base, query="pear", auth=f"Bearer {token}", accept="text/event-stream"))["results"]
    refused(search(ragId=base, query="x", auth=None), "缺少认证信息，请提供 Snail-Ai-Auth", status=5001)
    refused(search(ragId=base, query="x", auth="SAI_x", accept="text/event-stream"), "Token 验证失败", status=5001)
