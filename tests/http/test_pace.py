"""Requests that come by the thousand begin a few at a time, each application's by themselves."""

from __future__ import annotations

import asyncio

from support.kit import run

from palaver.http.pace import REQUESTS_PER_PASS, RequestPacer


def test_an_applications_requests_do_not_wait_for_those_of_another() -> None:
    async def scene() -> None:
        pace = RequestPacer()
        begun: list[int] = []

        async def request(app: int) -> None:
            await pace.turn(app)
            begun.append(app)

        requests = [asyncio.create_task(request(1)) for _ in range(1000)]
        requests.append(asyncio.create_task(request(2)))
        await asyncio.gather(*requests)
        assert begun.count(1) == 1000
        assert begun.index(2) <= REQUESTS_PER_PASS

    run(scene())


def test_so_many_begin_in_a_pass_and_all_in_their_order() -> None:
    async def scene() -> None:
        pace = RequestPacer(4)
        begun: list[int] = []
        most = last = 0

        async def request(number: int) -> None:
            await pace.turn(1)
            begun.append(number)

        requests = [asyncio.create_task(request(number)) for number in range(100)]
        requests[50].cancel()
        while not all(one.done() for one in requests):
            await asyncio.sleep(0)
            most, last = max(most, len(begun) - last), len(begun)
        assert begun == [number for number in range(100) if number != 50]
        assert most == 4

    run(scene())
