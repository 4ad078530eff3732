"""The adapter of every dialect. A dialect without one, or whose adapter lacks a member, fails every shared suite."""

from __future__ import annotations

import importlib

from support.contract import DIALECTS, ContractAdapter
from support.dialect_clients import DialectClient
from support.live_server import Served
from support.stream_forms import StreamForm

from palaver.core.types import Agent

ADAPTERS: dict[str, ContractAdapter] = {
    name: importlib.import_module(f"dialects.{name}.contract_adapter").ADAPTER for name in DIALECTS
}
STREAM_FORMS: tuple[StreamForm, ...] = tuple(form for adapter in ADAPTERS.values() for form in adapter.streams)


def dialect_clients(served: Served, agent: Agent) -> dict[str, DialectClient]:
    """One end user's client of every dialect, by its name."""
    return {name: adapter.client(served, agent) for name, adapter in ADAPTERS.items()}
