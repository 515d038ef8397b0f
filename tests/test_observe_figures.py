"""The figures of what is observed, with less of everything than ``make observe`` takes."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.cache.servers import Servers
from tests.engines import Engine, only
from tests.figures import Figure
from tests.observe import __main__ as command
from tests.observe import listeners, overhead
from tests.observe.effort import QUICK, Effort
from tests.observe.listeners import Seen

LITTLE = replace(QUICK, blocks=50, rounds=3, seconds=0.1)


@pytest.mark.timed
async def test_listeners_cost_a_request_little() -> None:
    """On a double, where nothing else takes time; those that every router has, with none of them beside.

    In a slow minute of the machine by the same factor as the request without them.
    Measured a few times if need be: what else the machine does only ever adds.
    """
    best: dict[str, float] = {}
    for _ in range(4):
        with overhead.double():
            found = await overhead.scaled(LITTLE.blocks)
        best = {name: min(value, best.get(name, value)) for name, value in found.items()}
        if max(best.values()) < overhead.LIMIT:
            break
    assert len(best) == 2 * len(overhead.WORKS)
    assert {name: value for name, value in best.items() if value > overhead.LIMIT} == {}


async def test_the_figures_of_the_listeners_are_microseconds() -> None:
    """Each beside its limit, with what it is the difference of."""
    with overhead.double():
        figures = [figure async for figure in overhead.on_double(replace(LITTLE, blocks=5))]
    assert [figure.limit for figure in figures] == [overhead.LIMIT] * 2 * len(overhead.WORKS)
    assert all("with," in figure.note for figure in figures if "all listeners" in figure.name)


@only("sqlite")
@pytest.mark.parametrize("kind", list(listeners.KINDS))
async def test_a_bad_listener_fails_and_slows_no_request(engine: Engine, kind: str) -> None:
    """One that hangs, raises or is slow; how long requests take beside it is for ``make observe``."""
    async with engine.open() as router:
        found = await listeners.compared(router, listeners.KINDS[kind], LITTLE)
        names = [stats.name for stats in router.dispatcher.stats()]
    figures = listeners.judged(kind, *found)
    assert [figure for figure in figures if "p99" not in figure.name and not figure.ok] == []
    assert all(seen.requests > 100 for seen in found)
    assert not [name for name in names if "listeners._" in name], "each round ends what it has begun"


@pytest.mark.parametrize(
    ("beside", "missed"),
    [
        (Seen(p99=[1.0, 1.1, 1.2]), ""),
        (Seen(failed=1, p99=[1.0, 1.1, 1.2]), "failed"),
        (Seen(slowed=1, p99=[1.0, 1.1, 1.2]), "slowed"),
        (Seen(p99=[1.0, 1.9, 1.9]), "p99"),
    ],
)
def test_what_a_bad_listener_does_is_found(beside: Seen, missed: str) -> None:
    """Each of the figures is missed by what it is for, and by nothing else."""
    figures = listeners.judged("bad", Seen(p99=[0.9, 1.0, 1.2, 1.3]), beside)
    names = [figure.name for figure in figures if not figure.ok]
    assert len(names) == bool(missed) and missed in "".join(names)


def test_the_command_prints_each_figure_beside_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object a line for machines, and the exit code says whether all are met."""

    async def two(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
        yield Figure("met", 1, 2, "us")
        yield Figure("missed", 3, 2, "us")

    monkeypatch.setitem(command.FAMILIES, "overhead", two)
    assert command.main(["--quick", "--json", "--family", "overhead"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["value"], each["limit"], each["ok"]) for each in found] == [
        ("met", 1, 2, True),
        ("missed", 3, 2, False),
    ]
