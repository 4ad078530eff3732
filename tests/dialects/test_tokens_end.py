"""Every kind of token ends with the secret that its credential had, and when the credential is disabled."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import Any, get_args, get_type_hints

import pytest
from dialects.snail import client_b as snail_b
from dialects.snail import client_c as snail_c
from dialects.wps import client as wps
from dialects.wps.test_tokens import BACK, code, exchange
from dialects.xspace import client as xspace
from dialects.xspace.test_files import send
from dialects.xspace.test_signed_urls import get_without_key
from support.kit import wait_until
from support.live_server import Served

from palaver import app
from palaver.core.types import ApiKey, Token

WPS: dict[str, Any] = {"require_signature": False, "redirect_uris": [BACK], "auto_approve_user": "ann"}
Works = Callable[[], bool]
Kind = Callable[[Served], tuple[ApiKey, Works]]
"""Issues a token, and says whose it is and how to see whether it works. Looking does not use it up."""


def wps_access(served: Served) -> tuple[ApiKey, Works]:
    key = served.key("wps", **WPS)
    token = exchange(served, key, grant_type="client_credentials").json()["access_token"]
    caller = wps.Caller(served, key, token=token)
    unsigned = {"X-Kso-Date": "", "X-Kso-Authorization": ""}
    agent = served.agent("x")
    return key, lambda: caller.get(f"/v7/devhub/app/{agent.uid}/detail", headers=unsigned).status == 200


def wps_refresh(served: Served) -> tuple[ApiKey, Works]:
    key = served.key("wps", **WPS)
    fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
    token = exchange(served, key, **fields).json()["refresh_token"]
    return key, lambda: served.do(served.core.services.users.find_token(token, "refresh")) is not None


def wps_code(served: Served) -> tuple[ApiKey, Works]:
    key = served.key("wps", **WPS)
    text = code(served, key)
    return key, lambda: served.do(served.core.store.tokens.find(text, "code")) is not None


def file_address(served: Served) -> tuple[ApiKey, Works]:
    caller = xspace.Caller(served)
    url = xspace.data(send(caller, b"mine"))["url"]
    address = xspace.data(caller.get("/api/v1/file/ak", query=f"fileUrl={url}"))
    return caller.key, lambda: get_without_key(served, address).status == 200


def embed_token(served: Served) -> tuple[ApiKey, Works]:
    program = snail_b.Caller(served)
    user = program.register()
    token = snail_b.good(program.get(f"{snail_b.B}/embed-token", openId=user))["token"]
    return program.key, lambda: _signed_in(served, token)


def session(served: Served) -> tuple[ApiKey, Works]:
    """What a page gets for its embed token."""
    program = snail_b.Caller(served)
    user = program.register()
    token = snail_b.good(program.get(f"{snail_b.B}/embed-token", openId=user))["token"]
    page = snail_c.Browser(served, None)
    session_token = snail_b.good(page.post(snail_c.SESSION, openId=user, trustedCredential=token))["token"]
    return program.key, lambda: _signed_in(served, session_token)


def proof_of_session(served: Served) -> tuple[ApiKey, Works]:
    """An embed token as what a page signs in with."""
    program = snail_b.Caller(served)
    user = program.register()
    token = snail_b.good(program.get(f"{snail_b.B}/embed-token", openId=user))["token"]
    page = snail_c.Browser(served, None)
    return program.key, lambda: page.post(snail_c.SESSION, openId=user, trustedCredential=token).json()["code"] == 1


def _signed_in(served: Served, token: str) -> bool:
    return snail_c.Browser(served, token).get(f"{snail_c.C}/agents").json()["code"] == 1


KINDS: dict[str, Kind] = {
    "access": wps_access,
    "refresh": wps_refresh,
    "code": wps_code,
    "file": file_address,
    "embed": embed_token,
    "session": session,
    "proof of a session": proof_of_session,
}
each_kind = pytest.mark.parametrize("issue", KINDS.values(), ids=KINDS)


def test_every_kind_of_token_is_among_them() -> None:
    signed_with_the_secret = {"embed", "session", "proof of a session"}
    assert set(KINDS) == set(get_args(get_type_hints(Token)["kind"])) | signed_with_the_secret


def rotated(served: Served, key: ApiKey, *, overlap_s: float = 0) -> None:
    dialect = next(one for one in app.all_dialects() if one.name == key.dialect)
    _, secret = dialect.new_credential(token_bytes(32))
    served.do(served.core.store.keys.rotate(key, secret, overlap_s=overlap_s))


def ends(works: Works) -> None:
    """Waits until a process has heard of the change."""
    wait_until(lambda: not works())


@each_kind
def test_a_new_secret_ends_it(served: Served, issue: Kind) -> None:
    key, works = issue(served)
    assert works()
    rotated(served, key)
    ends(works)


@each_kind
def test_it_lasts_as_long_as_the_secret_before(served: Served, issue: Kind) -> None:
    key, works = issue(served)
    rotated(served, key, overlap_s=60)
    assert works()
    served.sql(
        "UPDATE credential SET previous_until = now() WHERE number = $1 RETURNING pg_notify('palaver', 'keys')",
        key.number,
    )
    ends(works)
    key, works = issue(served)
    rotated(served, key, overlap_s=60)
    rotated(served, key, overlap_s=60)
    ends(works)


@each_kind
@pytest.mark.parametrize("overlap_s", [0, 60])
def test_disabling_ends_it_for_good(served: Served, issue: Kind, overlap_s: float) -> None:
    key, works = issue(served)
    if overlap_s:
        rotated(served, key, overlap_s=overlap_s)
    served.do(served.core.store.keys.set_enabled(key.id, enabled=False))
    ends(works)
    served.do(served.core.store.keys.set_enabled(key.id, enabled=True))
    assert not works()
    key, works = issue(served)
    for enabled in (False, True):
        served.do(served.core.store.keys.update(key, key.settings, enabled=enabled, label=""))
    ends(works)


@each_kind
def test_deleting_ends_it(served: Served, issue: Kind) -> None:
    key, works = issue(served)
    assert works()
    served.do(served.core.store.keys.delete(key))
    ends(works)


@each_kind
def test_both_secrets_begin_anew_when_their_credential_was_disabled(served: Served, issue: Kind) -> None:
    key, works = issue(served)
    rotated(served, key, overlap_s=60)
    for enabled in (False, True):
        served.do(served.core.store.keys.set_enabled(key.id, enabled=enabled))
    ends(works)
    (row,) = served.sql("SELECT generation, previous_generation FROM credential WHERE number = $1", key.number)
    assert {row["generation"], row["previous_generation"]}.isdisjoint({key.generation, key.generation + 1})
