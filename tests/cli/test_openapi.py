"""``palaver openapi``; nothing is opened for it, so it runs in this process."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from palaver.app import all_dialects
from palaver.cli import main


def _said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["palaver", "openapi", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_the_document_has_the_routes_of_every_dialect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = _said(capsys, monkeypatch)
    assert content["openapi"] == "3.1.0"
    assert set(content["paths"]) == {route.path for dialect in all_dialects() for route in dialect.routes}
    assert "servers" not in content


def test_one_dialect_s_document_can_be_made_for_an_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = _said(capsys, monkeypatch, "--dialect", "wps", "--server", "https://agents.example.com")
    assert [tag["name"] for tag in content["tags"]] == ["wps"]
    assert content["servers"] == [{"url": "https://agents.example.com"}]
