"""Admitted calls take turns in the order they came; who waits too long or has gone is not worked for."""

import asyncio
import threading
from typing import Any

import pytest
from sounds import voice_of
from starlette.requests import ClientDisconnect

from sayso.runtime.errors import Overloaded, TookTooLong
from sayso.runtime.session import available_cores
from sayso.service.call import Call
from sayso.service.engine import PLACES_PER_CORE
from sayso.service.work import Admission


def test_calls_take_turns_in_the_order_they_came() -> None:
    order: list[int] = []
    together, at_work, most = threading.Lock(), [0], [0]

    def do(call: Call, number: int) -> None:
        with together:
            order.append(number)
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        threading.Event().wait(0.01)
        with together:
            at_work[0] -= 1

    async def everybody() -> Admission:
        admission = Admission(9, turns=2)
        await asyncio.gather(*(admission.run(do, Call("t", "r", "a"), number) for number in range(9)))
        return admission

    admission = asyncio.run(everybody())
    assert sorted(order) == list(range(9))
    assert all(abs(place - number) <= 1 for place, number in enumerate(order))  # two at a time may swap
    assert most[0] <= 2
    assert admission.taken == admission.waiting == 0


def test_beyond_the_places_nothing_is_begun() -> None:
    async def one_too_many() -> None:
        admission = Admission(1)
        go = threading.Event()
        first = asyncio.create_task(admission.run(lambda call: go.wait(20), Call("t", "r", "a")))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await admission.run(lambda call: pytest.fail("begun"), Call("t", "r", "a"))
        go.set()
        assert await first

    asyncio.run(one_too_many())


def test_a_wait_ends_with_the_time_of_the_call_and_gives_its_place_back() -> None:
    async def waiting() -> None:
        admission = Admission(2, turns=1)
        go = threading.Event()
        first = asyncio.create_task(admission.run(lambda call: go.wait(20), Call("t", "r", "a")))
        await asyncio.sleep(0.01)
        with pytest.raises(TookTooLong):
            await admission.run(lambda call: pytest.fail("begun"), Call("t", "r", "a", time_limit_s=0.05))
        assert (admission.taken, admission.waiting) == (1, 0)
        go.set()
        assert await first
        assert await admission.run(lambda call: call.alone, Call("t", "r", "a"))

    asyncio.run(waiting())


def test_who_is_alone_is_told_so_and_how_long_it_waited() -> None:
    def do(call: Call) -> tuple[bool, float]:
        threading.Event().wait(0.05)
        return call.alone, call.stages["queue"]

    async def three() -> list[tuple[bool, float]]:
        admission = Admission(3, turns=1)
        return list(await asyncio.gather(*(admission.run(do, Call("t", "r", "a")) for _ in range(3))))

    alone, waited = zip(*asyncio.run(three()), strict=True)
    assert alone == (True, False, True)  # at the beginning of its work the second has the third behind it
    assert waited[0] < waited[1] < waited[2]


def test_no_stage_is_begun_for_who_has_gone() -> None:
    call = Call("t", "r", "a", departed=lambda: True)
    with pytest.raises(ClientDisconnect), call.stage("decode"):
        pytest.fail("begun")
    assert call.stages == {}


def test_places_and_turns_follow_the_cores(make_service: Any) -> None:
    service = make_service()
    assert service.client.app.state.admission.limit == PLACES_PER_CORE * available_cores()
    assert service.engine.turns == available_cores() + 1
    assert f"sayso_places {float(PLACES_PER_CORE * available_cores())}" in service.get("/metrics").text
    assert make_service(max_concurrency=1, data_dir=service.engine.settings.data_dir / "2").engine.turns == 1
    assert service.post("/v1/embeddings", content=voice_of("ann")).json()["timings_ms"]["queue"] < 1000
