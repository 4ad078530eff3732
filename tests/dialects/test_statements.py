"""How many SQL statements a call costs: looked up once, whatever a conversation holds."""

from __future__ import annotations

import pytest
from support.adapters import ADAPTERS
from support.route_calls import NOTHING, ROUTES, Sender, filled
from support.tenants import World

MAX_STATEMENTS = 3
MAX_STATEMENTS_OF_A_TURN = 10
"""Of a call that starts a run, with the run's own as far as it has come."""
MORE = {
    "xspace GET /api/v1/chat/{conversationId}/file/{path}": 4,
    "native POST /palaver/v1/files": 4,
    "snail DELETE /snail-ai/openapi/v1/agent/conversations": 4,
    "snail DELETE /api/snail/chat/conversations": 4,
}
FEWER = {"native GET /palaver/v1/runs/{uid}": 2, "native GET /palaver/v1/conversations/{conversation}": 2}


@pytest.mark.parametrize("title", list(ROUTES))
def test_a_call_costs_few_statements(world: World, send: Sender, title: str) -> None:
    dialect, route = ROUTES[title]
    database = world.served.core.store.db
    budget = MORE.get(title) or FEWER.get(title) or MAX_STATEMENTS
    for probe in ADAPTERS[dialect].id_fields.get(f"{route.method} {route.path}") or ({},):
        for attempt in ("cold", "warm"):  # credentials, agents and end users are cached
            world.renew()
            messages, before = _messages(world), database.statement_count
            send(route, filled(dict(probe), world.mine, NOTHING, None))
            statements = database.statement_count - before
            limit = MAX_STATEMENTS_OF_A_TURN if _messages(world) > messages else budget
            assert attempt == "cold" or statements <= limit, probe


def _messages(world: World) -> int:
    return world.served.sql("SELECT count(*) FROM message")[0][0]
