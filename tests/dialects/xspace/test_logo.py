"""The picture of an agent that has none of its own."""

from __future__ import annotations

from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from dialects.xspace.client import Caller
from support.http_clients import Ask
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.xspace import requirements


@shows(requirements.default_icon)
@pytest.mark.parametrize(("name", "letter"), [("weather", "W"), ("天气助手", "天"), ("<&>", "?"), ("ß", "S")])
def test_the_default_icon_is_public(served: Served, caller: Caller, name: str, letter: str) -> None:
    url: str = caller.detail(caller.add(served.agent("x", name=name)))["agent"]["icon"]
    icon = urlsplit(url)
    answer = served.ask(Ask(method="GET", path=icon.path))
    assert (answer.status, answer.header("Content-Type")) == (200, "image/svg+xml")
    assert ElementTree.fromstring(answer.body)[1].text == letter
    assert served.ask(Ask(method="GET", path=icon.path)).body == answer.body
