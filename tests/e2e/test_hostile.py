"""Every attack of ``make hostile``, small and for a second, on one server with 512 MiB of memory."""

from __future__ import annotations

import asyncio

import pytest

from bench.hostile import judging
from bench.hostile.attacks import ATTACKS
from bench.hostile.judging import Verdict, judged
from bench.hostile.target import grounds
from bench.machine import Cpus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_no_attack_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "WARM_S", 0.3)

    async def attacked() -> list[Verdict]:
        async with grounds() as ground:
            return await judged(ground, ATTACKS, 1.0, 0.1, Cpus(server=None, others=None), shared=True)

    verdicts = asyncio.run(attacked())
    assert {one.attack: one.wrong for one in verdicts if one.wrong} == {}
    assert len(verdicts) == len(ATTACKS)
    assert all(one.calls for one in verdicts)
