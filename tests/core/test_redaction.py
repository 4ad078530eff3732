"""What of an address, or of a text, may stand in a log."""

from __future__ import annotations

import time

import pytest

from palaver.core.redaction import HIDDEN, redact_text, redact_url
from palaver.logs import MAX_TEXT_CHARS, redact

HEX = "5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5"


@pytest.mark.parametrize(
    ("address", "left"),
    [
        ("https://api.example.com/v1/chat/completions", "https://api.example.com/v1/chat/completions"),
        ("https://user:word@host.example:8443/a?sig=x#y", "https://host.example:8443/a"),
        ("https://host.example?token=x", "https://host.example"),
        ("https://host.example#x", "https://host.example"),
        ("https://hooks.example.com/services/T0001/B0002/xyz9", "https://hooks.example.com/services/…/…/…"),
        ("https://host.example/bot123:ABC/send", "https://host.example/…/send"),
        ("postgresql://palaver:word@db.example/palaver?sslmode=require", "postgresql://db.example/palaver"),
        ("https://user:w%40rd@[::1]:8000/x", "https://[::1]:8000/x"),
        (f"/api/f/local/default/20260413/{HEX}.txt", "/api/f/local/default/…/…"),
        (f"/saas/voice-broadcast/{HEX}.mp3", "/saas/voice-broadcast/…"),
        ("/wp-login.php?redirect=x", "/wp-login.php"),
        ("/v7/devhub/none", "/v7/devhub/none"),
        (f"/{HEX}", "/…"),
        (HEX, "…"),
        ("/%61k-0123", "/…"),
        ("", ""),
        ("/", "/"),
    ],
)
def test_an_address_keeps_its_host_and_what_is_plainly_a_word(address: str, left: str) -> None:
    assert redact_url(address) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Cannot connect to https://u:p@host/x1/v1?key=1 now", "Cannot connect to https://host/…/v1 now"),
        ("<https://host/a?b=c>, 'https://host/d?e'", "<https://host/a>, 'https://host/d'"),
        ("Incorrect API key provided: sk-proj-abc12345.", "Incorrect API key provided: …."),
        (f"SAI_{HEX} pv-{HEX} ak-{HEX} kso_rt_{HEX}", "… … … …"),
        ("Authorization: Bearer abcdefghij", "Authorization: …"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6IngifQ.c2ln is wrong", "… is wrong"),
        (f"no such key: local/default/20260413/{HEX}.txt", "no such key: local/default/20260413/….txt"),
        (f"no such key: local/default/20260413/{HEX}", "no such key: local/default/20260413/…"),
        (f"run {HEX} of task-12345678 takes a basic form", f"run {HEX} of task-12345678 takes a basic form"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "/usr/lib/python3.11/asyncio/tasks.py"),
    ],
)
def test_a_text_keeps_everything_but_addresses_and_secrets(text: str, left: str) -> None:
    assert redact_text(text) == left


def test_a_long_text_takes_time_in_proportion_to_its_length() -> None:
    for piece in ("a", "a://", "sk-", "basic ", "eyJ.", "0", "/", "?", "Bearer", "a+", "-eyJ", "-sk-", "x.eyJa.b"):
        begun = time.process_time()
        redact_text(piece * 100_000)
        redact_url(piece * 100_000)
        assert time.process_time() - begun < 2, piece


def test_a_line_has_of_a_text_what_somebody_would_read() -> None:
    written = redact(None, "info", {"ref": "9" * 1_000_000, "short": "9" * MAX_TEXT_CHARS})
    assert written == {"ref": "9" * MAX_TEXT_CHARS + HIDDEN, "short": "9" * MAX_TEXT_CHARS}
