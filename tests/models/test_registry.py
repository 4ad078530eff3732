"""Which model a spec names, and what is said when it names none."""

from __future__ import annotations

import asyncio

import pytest
from support.model_endpoint import Act, Upstream, answer, silence, speech, stream
from support.model_runner import asked, listen, run, said

from palaver.core.problems import Upstream as Failure
from palaver.models.extract import ExtractModel
from palaver.models.openai import OpenAIModel
from palaver.models.registry import ModelRegistry
from palaver.models.scripted import ScriptedModel


def refused(catalog: ModelRegistry, spec: str | None) -> str:
    with pytest.raises(Failure) as caught:
        catalog.chat_model(spec)
    assert caught.value.reason == "configuration"
    return caught.value.detail


def test_a_spec_names_a_model() -> None:
    catalog = ModelRegistry(api_key="k")
    assert isinstance(catalog.chat_model("extract")[0], ExtractModel)
    assert isinstance(catalog.chat_model(" scripted ")[0], ScriptedModel)
    model, name = catalog.chat_model("openai:org/model:free")
    assert (type(model), name) == (OpenAIModel, "org/model:free")


def test_no_spec_is_the_servers_own() -> None:
    assert isinstance(ModelRegistry().chat_model(None)[0], ExtractModel)
    assert isinstance(ModelRegistry(default="scripted").chat_model("")[0], ScriptedModel)
    assert ModelRegistry(default="openai:gpt", base_url="http://localhost/v1").chat_model(None)[1] == "gpt"


@pytest.mark.parametrize("spec", ["gpt-9", "anthropic:x", ":", "extract:x"])
def test_an_unknown_spec_says_which_there_are(spec: str) -> None:
    detail = refused(ModelRegistry(api_key="k"), spec)
    assert repr(spec) in detail
    assert "PALAVER_MODEL" in detail
    assert "openai:NAME" in detail


def test_a_name_without_a_prefix_says_how_it_was_meant() -> None:
    assert "'openai:gpt-9'" in refused(ModelRegistry(api_key="k"), "gpt-9")


def test_an_endpoint_without_a_name_says_what_is_missing() -> None:
    assert "openai:NAME" in refused(ModelRegistry(api_key="k"), "openai: ")


def test_an_endpoint_without_settings_says_how_to_set_it() -> None:
    detail = refused(ModelRegistry(base_url=" ", api_key=""), "openai:gpt-9")
    for name in ("PALAVER_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        assert name in detail


@pytest.mark.parametrize("base_url", ["localhost:8000/v1", "ftp://a.example", "https://"])
def test_an_address_that_is_none_says_what_one_looks_like(base_url: str) -> None:
    detail = refused(ModelRegistry(base_url=base_url), "openai:gpt-9")
    assert "https://api.openai.com/v1" in detail


@pytest.mark.parametrize("tail", ["", "/", "/chat/completions", "/chat/completions/"])
async def test_an_endpoint_answers_by_its_base_url_however_it_was_pasted(tail: str) -> None:
    async with Upstream.serving(stream(speech("x"))) as upstream:
        catalog = ModelRegistry(base_url=upstream.url + tail, api_key=" k ")
        model, name = catalog.chat_model("openai:gpt-9")
        assert said(await listen(model.stream(asked(model=name)))) == "x"
        assert upstream.bodies[0]["model"] == "gpt-9"
        assert upstream.headers[0]["Authorization"] == "Bearer k"
        await catalog.close()


async def test_credentials_in_the_address_are_for_servers_without_a_key_and_never_shown() -> None:
    async with Upstream.serving(answer(403, b"no")) as upstream:
        address = upstream.url.replace("//", "//me:pw@")
        for key, sent in ((None, "Basic bWU6cHc="), ("k", "Bearer k")):
            catalog = ModelRegistry(base_url=address, api_key=key)
            assert "me:pw" not in str(await catalog.check("openai:gpt-9"))
            assert upstream.headers[-1]["Authorization"] == sent
            await catalog.close()


def test_a_closed_catalog_may_be_used_again_and_in_another_loop() -> None:
    catalogs: list[ModelRegistry] = []

    async def work() -> None:
        async with Upstream.serving(stream(speech("x"))) as upstream:
            if not catalogs:
                catalogs.append(ModelRegistry(base_url=upstream.url))
                await catalogs[0].close()
                model, _ = catalogs[0].chat_model("openai:m")
                assert said(await listen(model.stream(asked()))) == "x"
            else:
                assert await catalogs[0].check("openai:m")
            await catalogs[0].close()

    run(work())
    run(work())


async def test_hundreds_of_answers_stream_at_a_time() -> None:
    count = 300

    async with Upstream.serving(silence()) as upstream:
        catalog = ModelRegistry(base_url=upstream.url)
        model, _ = catalog.chat_model("openai:m")
        tasks = [asyncio.ensure_future(listen(model.stream(asked()))) for _ in range(count)]
        await upstream.asked_times(count)
        assert len(upstream.connections) == count
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await catalog.close()


# The doctor's question ----------------------------------------------------------------------------------------------


def checked(act: Act, name: str = "gpt-9") -> str | None:
    async def work() -> str | None:
        async with Upstream.serving(act) as upstream:
            catalog = ModelRegistry(base_url=upstream.url, api_key="sk-secret-key")
            try:
                return await catalog.check(f"openai:{name}")
            finally:
                await catalog.close()

    return run(work())


OFFER = b'{"object":"list","data":[{"id":"gpt-9","object":"model"},{"id":"gpt-8"}]}'


def test_a_healthy_endpoint_has_nothing_wrong() -> None:
    assert checked(answer(200, OFFER)) is None
    assert checked(answer(200, b'{"data":[]}')) is None


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (answer(200, OFFER), "does not offer 'gpt-7' but gpt-8, gpt-9"),
        (answer(200, b"<html>", "text/html"), "OPENAI_BASE_URL"),
        (answer(401, b'{"error":{"message":"Wrong key sk-secret-key"}}'), "check OPENAI_API_KEY"),
        (answer(404, b""), "OPENAI_BASE_URL may lack its /v1"),
        (answer(500, b"oops"), "HTTP 500: oops"),
    ],
)
def test_an_ailing_endpoint_is_described(act: Act, words: str) -> None:
    sentence = checked(act, "gpt-7")
    assert sentence is not None
    assert words in sentence
    assert "sk-secret-key" not in sentence


async def test_an_endpoint_that_is_not_there_is_described() -> None:
    async with Upstream.serving(stream()) as upstream:
        url = upstream.url
    catalog = ModelRegistry(base_url=url)
    assert f"{url}/models cannot be reached" in str(await catalog.check("openai:m"))
    await catalog.close()


async def test_models_without_an_endpoint_have_nothing_to_check_but_their_name() -> None:
    assert await ModelRegistry().check() is None
    assert await ModelRegistry().check("scripted") is None
    assert "PALAVER_MODEL" in str(await ModelRegistry().check("gpt-9"))


async def test_the_environments_proxy_has_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream.serving(stream(speech("x"))) as upstream:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        catalog = ModelRegistry(base_url=upstream.url)
        model, _ = catalog.chat_model("openai:m")
        assert said(await listen(model.stream(asked()))) == "x"
        await catalog.close()
