"""What is refused first, where a call has two faults: every dialect's order of checks, each pair of them."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations
from typing import Any

import pytest
from support.adapters import ADAPTERS
from support.check_orders import MAX_BODY_BYTES, Call, Fault
from support.contract import DIALECTS
from support.live_server import APPLICATION, Served

from palaver.core.types import ApiKey

SETTINGS = {"max_body_bytes": MAX_BODY_BYTES}
ORDERS = {order.name: (dialect, order) for dialect, adapter in ADAPTERS.items() for order in adapter.check_orders}
PAIRS = [
    pytest.param(name, first, second, id=f"{name}: {first.name}, {second.name}")
    for name, (_, order) in ORDERS.items()
    for first, second in combinations(order.faults, 2)
    if not first.changes.keys() & second.changes.keys()
]


@pytest.fixture(scope="module")
def valid_calls(served: Served) -> dict[str, Call]:
    """The valid call of each order."""
    return {name: order.valid_call(served) for name, (_, order) in ORDERS.items()}


def new_key(served: Served, dialect: str, changes: Call) -> ApiKey:
    """A new credential, as the call wants it."""
    key_id, secret = DIALECTS[dialect].new_credential(sha256(served.new_name("key").encode()).digest())
    settings = {name.removeprefix("setting "): value for name, value in changes.items() if name.startswith("setting ")}
    if changes.get("used up"):
        settings["total"] = 1

    async def create() -> ApiKey:
        owner = await served.core.store.applications.get_or_create(APPLICATION)
        keys = served.core.store.keys
        return await keys.create(owner, dialect, key_id, secret, settings, enabled=changes.get("enabled", True))

    key = served.do(create())
    if changes.get("used up"):
        served.sql("INSERT INTO usage (app, credential, total) VALUES ($1, $2, 1)", key.app, key.number)
    return key


def response_to(served: Served, name: str, call: Call, changes: Call) -> tuple[Any, ...]:
    """What is compared of the response to the changed call."""
    dialect, order = ORDERS[name]
    key = new_key(served, dialect, changes)
    return order.summary(served.ask(order.request(served, key, {**call, **changes})))


def matches(response: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether they are equal; a ``None`` at the end stands for a message that no table knows."""
    return response == (*expected[:-1], response[-1] if expected[-1] is None else expected[-1])


def test_every_dialect_has_its_orders() -> None:
    assert [name for name, adapter in ADAPTERS.items() if not adapter.check_orders] == []
    assert len(ORDERS) == sum(len(adapter.check_orders) for adapter in ADAPTERS.values())
    assert [name for name, (_, order) in ORDERS.items() if len(order.faults) < 2] == []


@pytest.mark.parametrize("name", ORDERS)
def test_each_fault_alone_has_its_answer_and_without_any_there_is_none(
    served: Served, valid_calls: dict[str, Call], name: str
) -> None:
    dialect, order = ORDERS[name]
    call = valid_calls[name]
    assert served.ask(order.request(served, new_key(served, dialect, {}), call)).status == 200
    for fault in order.faults:
        response = response_to(served, name, call, fault.changes)
        assert matches(response, fault.response), (fault.name, response)


@pytest.mark.parametrize(("name", "first", "second"), PAIRS)
def test_of_two_faults_the_one_that_is_checked_first_is_answered(
    served: Served, valid_calls: dict[str, Call], name: str, first: Fault, second: Fault
) -> None:
    response = response_to(served, name, valid_calls[name], {**first.changes, **second.changes})
    assert matches(response, first.response), response
