"""The figures of the cache, with less of everything than ``make cache`` takes."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cache import __main__ as command
from tests.cache import faults, growth, herds, hits, processes, ratios
from tests.cache.effort import Effort
from tests.cache.servers import Servers
from tests.cache.worker import Account, Write
from tests.figures import Figure
from tests.servers import PostgresqlCluster

LITTLE = Effort(
    16 << 20,
    distinct=60_000,
    keys=20_000,
    requests=60_000,
    looks=5,
    herds=1,
    processes=2,
    together=1.5,
    trouble=0.4,
)


@pytest.fixture
def servers(postgresql: PostgresqlCluster) -> Iterator[Servers]:
    """Lend the servers of the session."""
    lent = Servers(postgresql)
    yield lent
    lent.close()


async def met(figures: AsyncIterator[Figure]) -> None:
    """Fail if a figure misses its limit."""
    found = [figure async for figure in figures]
    assert found and [figure for figure in found if not figure.ok] == []


@pytest.mark.timed
async def test_a_hit_is_much_quicker_than_a_read(servers: Servers) -> None:
    """Beside a read that is not cached, and another cache: what both suffer of the machine is left out."""
    found = [figure async for figure in hits.figures(LITTLE, 1, servers)]
    beside = [figure for figure in found if "PostgreSQL" in figure.name or "aiocache" in figure.name]
    assert len(beside) == 2 and all(figure.ok for figure in beside), found


async def test_a_thousand_readers_of_a_cold_key_are_one_read(servers: Servers) -> None:
    """By the router's own count and by that of the servers."""
    await met(herds.figures(LITTLE, 1, servers))


async def test_processes_see_what_they_must(servers: Servers) -> None:
    """Told of each other's writes by Redis and by tokens."""
    await met(processes.figures(LITTLE, 1, servers))


async def test_whatever_redis_does_no_request_suffers(servers: Servers) -> None:
    """No failed request and no wrong row; for delays, and all other troubles, there is ``make cache``."""
    troubles = ("answers another tenant's values", "answers garbage", "frozen")
    found = [figure async for figure in faults.figures(LITTLE, 1, servers, troubles)]
    certain = [figure for figure in found if "p99" not in figure.name]
    assert len(certain) == 2 and all(figure.ok for figure in certain), found


ROW = (3, 1)
HEARD = [(3, 10.1), (3, 12.1)]


def account(writes: tuple[tuple[int, float], ...] = (), **given: Any) -> Account:
    """Return what a process has seen that has written versions of a row, each answered at a moment."""
    return Account([Write(ROW, version, at - 0.01, at) for version, at in writes], **given)


@pytest.mark.parametrize(
    ("what", "missed"),
    [
        (account(heard=HEARD, reads=[(ROW, 2, 20.0), (ROW, 1, 10.5), (ROW, 0, 9.9)]), ""),
        (account(heard=HEARD, behind=["version 1"]), "with a token"),
        (account(heard=HEARD, failed=["Timeout"]), "failed"),
        (account(heard=HEARD, reads=[(ROW, 0, 11.5)]), "lack it"),
        (account(heard=HEARD, reads=[(ROW, 1, 13.5)]), "lack it"),
        (account(heard=[(3, 10.1), (3, 13.2)]), "has heard"),
        (account(), "has heard"),
    ],
)
def test_what_processes_must_not_see_is_found(what: Account, missed: str) -> None:
    """Each of the figures is missed by what it is for, and by nothing else."""
    found = list(processes.judged([account(writes=((1, 10.0), (2, 12.0))), what]))
    names = [figure.name for figure in found if not figure.ok and "oldest" not in figure.name]
    assert len(names) == bool(missed) and missed in "".join(names)


async def test_a_process_grows_by_little_more_than_the_limit(servers: Servers) -> None:
    """Many more keys than fit in, with texts of one length or of 20 to 20,000 bytes: at most 20 % over."""
    await met(growth.figures(LITTLE, 1, servers, growth.LIMITS[:1]))


async def test_more_is_kept_of_what_is_asked_for(servers: Servers) -> None:
    """More hits than an LRU has, through scans and changes of what is hot."""
    await met(ratios.figures(LITTLE, 1, servers))


@pytest.mark.timed
def test_the_command_prints_each_figure_beside_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line for machines, and the exit code says whether all are met."""
    code = command.main(["--quick", "--json", "--seed", "7", "--family", "costs"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found and all(set(each) >= {"name", "value", "limit", "ok"} for each in found)
    assert code == int(not all(each["ok"] for each in found)) == 0


def test_a_figure_that_is_missed_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs it in a pipeline need not read."""

    async def missed(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
        yield Figure("missed", 2, 1)

    monkeypatch.setitem(command.FAMILIES, "costs", missed)
    assert command.main(["--quick", "--family", "costs"]) == 1
