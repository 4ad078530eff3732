"""A second model in the place of one that fails before its first word."""

from __future__ import annotations

import pytest
from support.model_endpoint import Act, Upstream, answer, chunk, cut, speech, stream
from support.model_runner import asked, listen, listen_to_the_end, said

from palaver.core.observer import NullObserver
from palaver.core.problems import Upstream as Failure
from palaver.models.openai import Timeouts
from palaver.models.registry import ModelRegistry


class Heard(NullObserver):
    """What an operator's figures are made of."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def model_failed(self, model: str, problem: Failure) -> None:
        self.models.append(model)


@pytest.mark.parametrize(
    "act",
    [answer(401, b"no"), answer(429, b'{"error": {"code": "insufficient_quota"}}'), cut()],
    ids=["a wrong key", "no quota", "cut"],
)
async def test_a_model_that_fails_at_once_is_replaced(act: Act) -> None:
    async with Upstream.serving(act, act, act) as first, Upstream.serving(stream(speech("spare"))) as second:
        catalog = ModelRegistry(
            base_url=first.url,
            api_key="k1",
            fallback="openai:small",
            fallback_base_url=second.url,
            fallback_api_key="k2",
            timeouts=Timeouts(),
        )
        heard = catalog.observer = Heard()
        model, name = catalog.chat_model("openai:big")
        assert said(await listen(model.stream(asked(model=name)))) == "spare"
        assert heard.models == ["big"], "a failure counts, also where a fallback answers"
        assert first.bodies[0]["model"] == "big"
        assert second.bodies[0]["model"] == "small"
        assert {one["messages"][-1]["content"] for one in (*first.bodies, *second.bodies)} == {"Hello?"}
        assert second.headers[0]["Authorization"] == "Bearer k2"
        await catalog.close()


async def test_a_model_that_works_is_not() -> None:
    async with Upstream.serving(stream(speech("first"))) as first:
        catalog = ModelRegistry(base_url=first.url, fallback="scripted")
        model, name = catalog.chat_model("openai:big")
        assert said(await listen(model.stream(asked(model=name)))) == "first"
        await catalog.close()


async def test_what_has_been_said_is_never_taken_back() -> None:
    broken = cut(chunk({"content": "half"}))
    async with Upstream.serving(broken) as first:
        catalog = ModelRegistry(base_url=first.url, fallback="scripted")
        model, name = catalog.chat_model("openai:big")
        deltas, failure = await listen_to_the_end(model.stream(asked(model=name)))
        assert said(deltas) == "half"
        assert failure is not None
        await catalog.close()


async def test_a_key_is_not_sent_to_an_endpoint_it_is_not_for() -> None:
    async with Upstream.serving(answer(401, b"no")) as first, Upstream.serving(stream(speech("x"))) as second:
        catalog = ModelRegistry(base_url=first.url, api_key="k1", fallback="openai:m", fallback_base_url=second.url)
        model, name = catalog.chat_model("openai:m")
        await listen(model.stream(asked(model=name)))
        assert "Authorization" not in second.headers[0]
        await catalog.close()


async def test_an_agents_own_fallback_wins_and_stands_in_for_a_model_that_cannot_be() -> None:
    catalog = ModelRegistry(fallback="extract")
    model, name = catalog.chat_model("openai:big", "scripted")
    assert said(await listen(model.stream(asked(model=name)))) == "You said: Hello?"
    await catalog.close()


def test_a_fallback_that_cannot_be_says_so() -> None:
    with pytest.raises(Failure) as caught:
        ModelRegistry(fallback="nonsense").chat_model("extract")
    assert caught.value.reason == "configuration"
    assert "nonsense" in caught.value.detail
