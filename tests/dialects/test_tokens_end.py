"""Every kind of token ends with the secret that its credential had, and when the credential is disabled."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import Any, get_args, get_type_hints

import pytest
from dialects.serving import Served
from dialects.wps import asking as wps
from dialects.wps.test_tokens import BACK, code, exchange
from dialects.xspace import asking as xspace
from dialects.xspace.test_addresses import opened
from dialects.xspace.test_files import send
from kit import run, until

from palaver import app
from palaver.core.types import Key, Token

WPS: dict[str, Any] = {"require_signature": False, "redirect_uris": [BACK], "auto_approve_user": "ann"}
Works = Callable[[], bool]
Kind = Callable[[Served], tuple[Key, Works]]
"""Issues a token, and says whose it is and how to see whether it works. Looking does not use it up."""


def wps_access(served: Served) -> tuple[Key, Works]:
    key = served.key("wps", **WPS)
    token = exchange(served, key, grant_type="client_credentials").json()["access_token"]
    caller = wps.Caller(served, key, token=token)
    unsigned = {"X-Kso-Date": "", "X-Kso-Authorization": ""}
    agent = served.agent("x")
    return key, lambda: caller.get(f"/v7/devhub/app/{agent.uid}/detail", headers=unsigned).status == 200


def wps_refresh(served: Served) -> tuple[Key, Works]:
    key = served.key("wps", **WPS)
    fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
    token = exchange(served, key, **fields).json()["refresh_token"]
    return key, lambda: served.do(served.core.room.people.token(token, "refresh")) is not None


def wps_code(served: Served) -> tuple[Key, Works]:
    key = served.key("wps", **WPS)
    text = code(served, key)
    return key, lambda: served.do(served.core.store.tokens.find(text, "code")) is not None


def file_address(served: Served) -> tuple[Key, Works]:
    caller = xspace.Caller(served)
    url = xspace.data(send(caller, b"mine"))["url"]
    address = xspace.data(caller.get("/api/v1/file/ak", query=f"fileUrl={url}"))
    return caller.key, lambda: opened(served, address).status == 200


KINDS: dict[str, Kind] = {
    "access": wps_access,
    "refresh": wps_refresh,
    "code": wps_code,
    "file": file_address,
}
each_kind = pytest.mark.parametrize("issue", KINDS.values(), ids=KINDS)


def test_every_kind_of_token_is_among_them() -> None:
    assert set(KINDS) == set(get_args(get_type_hints(Token)["kind"]))


def rotated(served: Served, key: Key, *, overlap_s: float = 0) -> None:
    dialect = next(one for one in app.all_dialects() if one.name == key.dialect)
    _, secret = dialect.new_credential(token_bytes(32))
    served.do(served.core.store.keys.rotate(key, secret, overlap_s=overlap_s))


def ends(works: Works) -> None:
    """Waits until a process has heard of the change."""

    async def look() -> bool:
        return works()

    run(until(look, False))


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
    served.sql("UPDATE credential SET previous_until = now() WHERE number = $1", key.number)
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
    served.do(served.core.store.keys.enable(key.id, enabled=False))
    ends(works)
    served.do(served.core.store.keys.enable(key.id, enabled=True))
    assert not works()
    key, works = issue(served)
    for enabled in (False, True):
        served.do(served.core.store.keys.configure(key, key.settings, enabled=enabled, label=""))
    ends(works)
