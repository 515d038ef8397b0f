"""The figures of many tenants, with less of everything than ``make tenancy`` takes."""

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from time import process_time

import asyncpg
import pytest

from router.config import load, loader
from router.config.assembly import Assembly
from router.config.problems import Problem
from tests.figures import Figure
from tests.servers import PostgresqlCluster
from tests.servers.process import wait_until
from tests.tenancy import __main__ as command
from tests.tenancy import many, neighbours, reloading, weights
from tests.tenancy.counting import ALONE, Connections
from tests.tenancy.effort import QUICK, Effort
from tests.tenancy.load import zipf
from tests.tenancy.neighbours import Seen
from tests.tenancy.place import BUDGET, Place

LITTLE = replace(QUICK, schemas=30, databases=BUDGET + 2, rounds=1, seconds=0.3)


@pytest.fixture(scope="module")
def place(postgresql: PostgresqlCluster) -> Iterator[Place]:
    """Give a place on the server of all tests, when nobody else is connected to it any more."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'router_%' AND backend_type LIKE 'client%'"
    )
    wait_until(lambda: postgresql.run(others) == "0", 10, lambda: "somebody is connected still")
    made = Place(postgresql)
    yield made
    made.close()


async def test_connections_are_counted_on_the_server(postgresql: PostgresqlCluster, place: Place) -> None:
    """All that were open at once, but neither administrators' nor those of what is compared with."""
    dsn = postgresql.primary.dsn()
    async with Connections(postgresql.primary.dsn("admin")) as seen:
        several = [await asyncpg.connect(dsn) for _ in range(3)]
        alone = await asyncpg.connect(dsn, server_settings={"application_name": ALONE})
        for each in (*several, alone):
            await each.execute("SELECT pg_sleep(0.01)")
            await each.close()
    assert seen.most == 3 and seen.looks > 5


async def test_many_schemas_share_few_connections(place: Place) -> None:
    """No request fails or sees another tenant's row, and the server has as many connections as allowed."""
    found = [figure async for figure in many.schemas(LITTLE, place)]
    assert [figure.ok for figure in found[:2]] == [True, True], found
    assert found[2].value > 0


async def test_more_databases_than_connections_take_turns(place: Place) -> None:
    """Each has a pool of its own, and all of them together keep to the budget, as the server counts."""
    found = [figure async for figure in many.databases(LITTLE, place)]
    assert [figure.ok for figure in found] == [True, True], found


async def test_weights_are_judged_by_what_each_tenant_had() -> None:
    """The share that is furthest from its weight counts."""
    assert weights.off(Counter(s1=10, s2=20, s3=40)) == 0
    assert weights.off(Counter(s1=10, s2=26, s3=34)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("beside", "missed"),
    [
        (Seen([0.001] * 98 + [0.0019] * 2), ""),
        (Seen([0.001] * 98 + [0.0021] * 2), "p99"),
        (Seen([0.001] * 100, Counter(PoolTimeout=1)), "errors"),
    ],
)
def test_what_a_neighbour_does_is_found(beside: Seen, missed: str) -> None:
    """Each figure is missed by what it is for, and by nothing else."""
    figures = neighbours.judged("floods", Seen([0.001] * 100), beside, Seen(), Seen([0.1] * 100))
    names = [figure.name for figure in figures if not figure.ok]
    assert len(names) == bool(missed) and missed in "".join(names)
    assert any("without fairness 100 x" in figure.note for figure in figures)


def test_tenants_are_asked_by_zipfs_law() -> None:
    """The first tenant is asked about ten times as often as the tenth, and the last ones now and then."""
    asked = Counter(zipf([f"s{number}" for number in range(1, 1001)], Random(1)))
    assert asked["s1"] == pytest.approx(10 * asked["s10"], rel=0.1)
    assert len(asked) > 990


def test_tenants_come_and_go_in_a_folder_that_stays_valid(tmp_path: Path) -> None:
    """At each change as many are there as before, others of the last ones, and the first ones changed."""
    names = [f"t{number}" for number in range(250)]
    section = {"engine": "sqlite", "primary": {"path": "data"}}
    listed = {
        name: {"tenant": name, "cluster": "main", "isolation": "database", "database": name} for name in names
    }
    folder = reloading.Folder(tmp_path, {"version": 1, "clusters": {"main": section}, "tenants": listed})
    seen = [load(tmp_path).tenants]
    for _ in range(2):
        folder.change()
        seen.append(load(tmp_path).tenants)
    first, second, third = (set(each) for each in seen)
    assert len(first) == len(second) and first == third
    assert len(first - second) == len(second - first) > 0
    assert [each["t0"].settings.slow_query for each in seen[1:]] == [1.0, 2.0]


def test_as_many_files_are_told_apart_in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own name: to look for it among the others took half a minute for a hundred thousand."""
    names = ["t0.yml", *(f"t{number}.yaml" for number in range(100_000))]
    monkeypatch.setattr(os, "listdir", lambda folder: list(names))
    problems: list[Problem] = []
    began = process_time()
    files = loader._tenant_files(str(tmp_path), Assembly(tmp_path, frozenset()), problems, {})
    assert process_time() - began < 2
    assert files == sorted(names[1:]) and [each.message for each in problems] == [
        "its name does not end in .yaml"
    ]


def test_the_command_prints_each_figure_beside_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object a line for machines, and the exit code says whether all are met."""

    async def two(effort: Effort, place: Place) -> AsyncIterator[Figure]:
        assert effort is QUICK
        yield Figure("met", 1, 2, "ms")
        yield Figure("missed", 3, 2, "ms")

    monkeypatch.setitem(command.FAMILIES, "schemas", two)
    assert command.main(["--quick", "--json", "--family", "schemas"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["value"], each["limit"], each["ok"]) for each in found] == [
        ("met", 1, 2, True),
        ("missed", 3, 2, False),
    ]
