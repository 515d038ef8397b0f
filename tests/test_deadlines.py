"""Rules of router.pools.deadlines: one table for all running statements, and cancellations kept apart."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from router.errors import StatementTimeout
from router.pools.deadlines import Deadlines
from router.topology import Node, Role
from tests.doubles import Server, opened
from tests.lateness import taking

READ = "SELECT a FROM t"


class Lent:
    """Stand for a connection: all that the table asks of one."""

    def __init__(self, node: Node | None = None) -> None:
        self.node = node
        self.lent_at = time.monotonic()


async def run(deadlines: Deadlines, key: object, limit: float, work: float) -> str:
    """Run as the router does: enter, work, tell whose cancellation it was, leave."""
    deadlines.enter(key, time.monotonic() + limit)  # type: ignore[arg-type]
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        if not deadlines.was_late(key):  # type: ignore[arg-type]
            raise
        return "late"
    finally:
        deadlines.leave(key)  # type: ignore[arg-type]
    return "done"


@pytest.mark.timed
async def test_what_runs_too_long_is_ended_soon_after_its_deadline() -> None:
    """A late statement ends within 50 ms of its deadline; the others are left alone."""
    deadlines = Deadlines(time.monotonic)
    async with taking(0.15, least=0.1):
        slow = asyncio.create_task(run(deadlines, Lent(), 0.1, 5.0))
        quick = asyncio.create_task(run(deadlines, Lent(), 0.2, 0.15))
        assert await slow == "late"
    assert await quick == "done"


@pytest.mark.timed
async def test_a_statement_that_runs_for_long_makes_its_node_suspect() -> None:
    """Half a second without an answer may mean a frozen server: somebody looks, and nothing is cancelled."""
    node = Node("r1", "main", Role.REPLICA, "db", 1)
    suspected: list[Node] = []
    deadlines = Deadlines(time.monotonic, suspected.append)
    quick = asyncio.create_task(run(deadlines, Lent(Node("r2", "main", Role.REPLICA, "db", 2)), 5.0, 0.2))
    assert await run(deadlines, Lent(node), 5.0, 0.7) == "done"
    assert await quick == "done"
    assert set(suspected) == {node}


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A task that somebody else cancels is cancelled, not late, also if both happen at once."""
    deadlines = Deadlines(time.monotonic)
    task = asyncio.create_task(run(deadlines, Lent(), 1.0, 5.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task = asyncio.create_task(run(deadlines, Lent(), 0.0, 5.0))
    await asyncio.sleep(0)
    deadlines._sweep()  # ours
    task.cancel()  # theirs, before the task has run again
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("left", "wait"), [(5.0, 0.02), (0.011, 0.011), (0.001, 0.005)])
async def test_the_table_is_swept_when_a_statement_is_due(left: float, wait: float) -> None:
    """The next deadline brings the next sweep forward, to 5 ms from now at the soonest."""
    deadlines = Deadlines(lambda: 100.0)
    for connection, limit in ((Lent(), left), (Lent(), 6.0)):
        deadlines.enter(connection, 100.0 + limit)  # type: ignore[arg-type]
    deadlines.close()
    deadlines._sweep()
    assert deadlines._timer is not None
    assert deadlines._timer.when() - asyncio.get_running_loop().time() == pytest.approx(wait, abs=0.004)
    deadlines.close()


async def test_a_late_statement_leaves_its_task_uncancelled() -> None:
    """After a timeout the task goes on: later awaits work, and nothing counts as cancelled."""
    deadlines = Deadlines(time.monotonic)
    assert await run(deadlines, Lent(), 0.01, 5.0) == "late"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await run(deadlines, Lent(), 1.0, 0.0) == "done"


async def test_nothing_is_swept_while_nothing_runs() -> None:
    """The timer stops by itself once the table is empty."""
    deadlines = Deadlines(time.monotonic)
    await run(deadlines, Lent(), 1.0, 0.0)
    await asyncio.sleep(0.05)
    assert deadlines._timer is None


@pytest.mark.timed
async def test_a_request_that_runs_too_long_raises_a_timeout(server: Server) -> None:
    """The limit holds through the router, and an outer asyncio.timeout is not mistaken for it."""
    async with opened() as router:
        server.block("fetch_all")
        async with taking(0.27, least=0.2):
            with pytest.raises(StatementTimeout):
                await router.fetch_all(READ, tenant="acme", timeout=0.2)
        server.block("fetch_all")
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await router.fetch_all(READ, tenant="acme", timeout=5.0)
        assert not isinstance(caught.value, StatementTimeout)


async def test_a_driver_that_swallows_the_cancellation_leaves_no_trace_of_it() -> None:
    """Whatever a late statement ends with, its task does not count as cancelled afterwards."""
    deadlines = Deadlines(time.monotonic)
    task = asyncio.current_task()
    assert task is not None
    connection: Any = Lent()
    deadlines.enter(connection, time.monotonic() + 0.01)
    with pytest.raises(OSError, match="closed"):
        try:
            try:
                await asyncio.sleep(5.0)
            except asyncio.CancelledError:
                raise OSError("closed") from None
        finally:
            deadlines.leave(connection)
    assert task.cancelling() == 0
