"""The decision alone: look-up, classification, decide, choose; and, apart, what is around it. No server."""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from router import Router, proving
from router.frontier import Frontier
from router.requests import Request
from router.statements import Dialect, parse
from router.steering import choose, route_of
from tests.bench import texts
from tests.bench.arms.ours import TENANT, config
from tests.bench.place import Node, Place
from tests.bench.results import Cell, Line

_CALLS = 2_000  # to a batch, so that reading the clock costs nothing beside them
_TURN = 10  # requests that end in one turn of the event loop
_NOWHERE = Place("postgresql", Node("127.0.0.1", 1), (Node("127.0.0.1", 2), Node("127.0.0.1", 3)), "none")


def decision(rounds: int) -> Line:
    """Measure a request by its parts, in µs each; its figures are those of the decision as a whole."""
    return asyncio.run(_decision(max(rounds * 5, 15)))


async def _decision(batches: int) -> Line:
    async with Router(config(_NOWHERE, 1)) as router:
        parts = _parts(router)
        numbers = count()

        def cold() -> None:
            parse(f"SELECT id, name FROM plans_{next(numbers)} WHERE id = :id", Dialect.POSTGRESQL)

        took = {name: _median(part, batches, _CALLS) for name, part in parts.items()}
        took |= await _around(batches)
        whole = _batches(_whole(router), batches, _CALLS)
        took["cold"] = _median(cold, batches, 20)
    total = median(whole)
    extra = {f"{name}_us": value for name, value in took.items()} | {"spread": [min(whole), max(whole)]}
    cell = Cell("decision", "router", 1, "none")
    return Line(cell, 1e6 / total, total, total, max(whole), None, extra | {"rounds": batches})


def _parts(router: Router) -> dict[str, Callable[[], object]]:
    # private on purpose: this is the path that a request takes, and not what explain() makes of it
    executor = router._running()
    target = executor.target(TENANT, None)
    statement = target.backend.statements.of(texts.READ)
    request = Request(target, Frontier(), "fetch_one", statement, (), 0.0)
    request.verdict = proving.known(statement, target) or statement.verdict
    route = route_of(request, executor.causality)
    return {
        "lookup": lambda: executor.target(TENANT, None),
        "classify": lambda: proving.known(target.backend.statements.of(texts.READ), target),
        "decide": lambda: route_of(request, executor.causality),
        "choose": lambda: choose(route, target, Frontier()),
    }


async def _around(batches: int) -> dict[str, float]:
    """Return what taking and giving back a connection costs, and telling of a request with metrics on.

    On SQLite, since both need a connection; they are the same on every engine.
    """
    with TemporaryDirectory(prefix="router-decision-") as folder:
        (Path(folder) / f"{TENANT}.db").touch()
        file = Node(f"{folder}/{TENANT}.db")
        async with Router(config(Place("sqlite", file, (file,)), 1)) as router:
            await router.fetch_one("SELECT 1", tenant=TENANT)
            executor = router._running()
            target = executor.target(TENANT, None)
            ((pool, holder),) = target.pools.values()
            statement = target.backend.statements.of("SELECT 1")
            request = Request(target, Frontier(), "fetch_one", statement, (), 0.0)
            request.node = target.backend.cluster.replicas[0]

            def lend() -> None:
                taken = pool.take(target.binding, executor.clock(), holder)
                assert taken is not None
                pool.give(taken)

            def tell() -> None:
                # else it would be a slow one, of which more is told
                request.asked = executor.clock()
                executor.teller.finished(request, None)

            return {"take_give": _median(lend, batches, _CALLS), "event": await _told(tell, batches)}


async def _told(tell: Callable[[], None], batches: int) -> float:
    """Return the µs of telling once; what listeners do later, on the loop, is part of it."""
    took = []
    for _ in range(batches):
        started = time.perf_counter()
        for _ in range(_CALLS // _TURN):
            for _ in range(_TURN):
                tell()
            await asyncio.sleep(0)
        took.append((time.perf_counter() - started) / _CALLS * 1e6)
    return median(took)


def _whole(router: Router) -> Callable[[], object]:
    executor = router._running()
    target = executor.target(TENANT, None)
    request = Request(target, Frontier(), "fetch_one", target.backend.statements.of(texts.READ), (), 0.0)

    def decide() -> object:
        found = executor.target(TENANT, None)
        request.verdict = proving.known(found.backend.statements.of(texts.READ), found) or request.verdict
        request.seen.replica = None  # each request is a new session
        return choose(route_of(request, executor.causality), found, request.seen)

    return decide


def _batches(part: Callable[[], object], batches: int, calls: int) -> list[float]:
    took = []
    for _ in range(batches):
        started = time.perf_counter()
        for _ in range(calls):
            part()
        took.append((time.perf_counter() - started) / calls * 1e6)
    return took


def _median(part: Callable[[], object], batches: int, calls: int) -> float:
    return median(_batches(part, batches, calls))
