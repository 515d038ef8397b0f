"""No tenant sees another's rows, whatever anybody does; and the check that says so finds what is broken."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from router import Router
from router.belongings import BASE, Belongings
from router.errors import UsageError
from router.testing import Visit, leak_check, sqlite_router
from router.visitors import VISITORS
from tests.figures import Figure
from tests.leaks import __main__ as command
from tests.leaks import mutants, visitors
from tests.leaks.models import Model
from tests.leaks.world import Servers, compare, opened, places
from tests.servers import MariadbCluster, PostgresqlCluster, RedisServer

TENANTS = 16  # of all models together
DONE = {each.__name__ for each in (*VISITORS, *visitors.VISITORS)}


@pytest.fixture(scope="module")
def servers(postgresql: PostgresqlCluster, mariadb: MariadbCluster, redis: RedisServer) -> Servers:
    """Use the servers of all tests."""
    return Servers(postgresql, mariadb, redis)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the files of SQLite a place."""
    return tmp_path_factory.mktemp("leaks")


@pytest.fixture(scope="module")
def made(servers: Servers, folder: Path) -> Iterator[tuple[Model, ...]]:
    """Make a few tenants of each model."""
    with places(folder, servers, TENANTS) as models:
        yield models


async def test_nothing_leaks_between_tenants_of_all_models(
    servers: Servers, folder: Path, made: tuple[Model, ...]
) -> None:
    """Two connections a node, every abuse: all rows are the tenant's, none is missing, none stays behind."""
    async with opened(folder, servers, made, most=2) as (router, check):
        await check.run(reads=600, tasks=50)
        for _ in range(20):
            if check.report().visits.keys() >= DONE:
                break
            await check.run(reads=50, tasks=50)
        await check.look_again()
        assert all(pool.in_use == 0 and pool.waiting == 0 for pool in router.status().pools)
    report, left = check.report(), compare(made, check.owned)
    assert report.ok, report
    assert report.visits.keys() >= DONE, "each visitor came"
    assert (left.foreign, left.lost, left.undone) == (0, 0, 0), left


@pytest.mark.parametrize(
    "rule",
    [
        "a connection is bound",
        "a broken connection is closed",
        "an answer in memory has an owner",
        "tables that are shared have row security",
    ],
)
async def test_what_is_broken_is_found(
    servers: Servers, folder: Path, made: tuple[Model, ...], rule: str
) -> None:
    """A router that breaks one of its rules is given away by a row; ``make leaks`` breaks all of them."""
    report = await mutants.found(folder, servers, made, rule, seconds=20)
    assert report.wrong, report
    assert not report.ok


# --- for users -------------------------------------------------------------------------------------------


async def test_users_check_their_own_tables() -> None:
    """A visitor of the user's comes beside the others; the visitors' table is gone afterwards."""

    async def plans(visit: Visit) -> None:
        rows = await visit.session.fetch_all("SELECT account FROM plans")
        visit.see((row.account for row in rows), least=1)

    tenants = ("acme", "globex")
    async with sqlite_router(tenants) as router:
        for tenant in tenants:
            await router.execute("CREATE TABLE plans (account TEXT)", tenant=tenant)
            await router.execute("INSERT INTO plans VALUES (:id)", {"id": tenant}, tenant=tenant)
        report = await leak_check(
            router, tenants, seconds=None, reads=200, tasks=10, visitors=[plans], seed=7
        )
        assert report.ok, report
        assert report.visits["plans"] > 0
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        assert [row.name for row in await router.fetch_all(tables, tenant="acme")] == ["plans"]


@pytest.fixture
async def acme() -> AsyncIterator[Router]:
    """Open a router of one tenant."""
    async with sqlite_router(["acme"]) as router:
        yield router


@pytest.mark.parametrize(
    ("visitor", "fault"),
    [
        (lambda visit: visit.see(["acme", "globex"]), "foreign"),
        (lambda visit: visit.see(["acme"], least=2), "missing"),
        (lambda visit: 1 / 0, "errors"),
    ],
)
async def test_what_a_visitor_sees_is_told(
    acme: Router, visitor: Callable[[Visit], object], fault: str
) -> None:
    """Another's row, a row too few and an error of any kind each make the report a bad one, in words."""

    async def comes(visit: Visit) -> None:
        visitor(visit)

    report = await leak_check(acme, ["acme"], seconds=None, reads=60, tasks=4, visitors=[comes], seed=7)
    assert not report.ok
    assert {name for name in ("foreign", "missing", "undone", "errors") if getattr(report, name)} == {fault}
    assert "acme" in report.told[0]
    assert f"seed {report.seed}" in str(report)


async def test_what_cannot_be_checked_is_refused(acme: Router) -> None:
    """No tenants, or a table whose name is none."""
    with pytest.raises(UsageError, match="nobody to check"):
        await leak_check(acme, [])
    with pytest.raises(UsageError, match="plain name"):
        await leak_check(acme, ["acme"], table="a; DROP TABLE b")


# --- the account -----------------------------------------------------------------------------------------


def filled() -> Belongings:
    """Return an account with the rows that are always there."""
    owned = Belongings()
    owned.attempt(BASE, 3)
    owned.keep(BASE)
    return owned


@pytest.mark.parametrize(
    ("found", "missing", "undone"),
    [({BASE: 3}, 0, 0), ({}, 3, 0), ({BASE: 2}, 1, 0), ({BASE: 6}, 3, 0), ({BASE: 3, 9: 2}, 0, 2)],
)
def test_rows_too_few_too_many_and_unknown_are_counted(
    found: dict[int, int], missing: int, undone: int
) -> None:
    """What is certain must be there once; what nobody has committed must not be there."""
    owned = filled()
    glance = owned.glance()
    assert (owned.missing(glance, found), owned.undone(glance, found)) == (missing, undone)


def test_a_write_may_be_seen_from_its_commit_on_and_must_once_it_is_known() -> None:
    """In between, and with an unknown outcome for ever, either is right."""
    owned = filled()
    before = owned.glance()
    assert owned.undone(before, {1: 1}) == 1
    owned.attempt(1, 1)
    assert (owned.undone(before, {1: 1}), owned.missing(before, {BASE: 3})) == (0, 0)
    owned.keep(1)
    assert owned.missing(before, {BASE: 3}) == 0, "the read began before"
    assert owned.missing(owned.glance(), {BASE: 3}) == 1
    owned.attempt(2, 1)
    owned.undo(2)
    assert owned.undone(owned.glance(), {2: 1}) == 1


def test_what_was_removed_may_be_seen_by_who_asked_before_and_by_who_lags() -> None:
    """Nobody else."""
    owned = filled()
    owned.attempt(1, 1)
    owned.keep(1)
    before = owned.glance()
    owned.attempt(1, 1)
    owned.remove(1)
    assert owned.undone(before, {1: 1}) == 0
    assert owned.undone(owned.glance(), {1: 1}) == 1
    assert owned.undone(owned.glance(lagging=True), {1: 1}) == 0


def test_who_lags_must_still_see_the_base_and_what_it_wrote_itself() -> None:
    """A replica may lack others' writes, not those of the session."""
    owned = filled()
    for mark in (1, 2):
        owned.attempt(mark, 1)
        owned.keep(mark)
    glance = owned.glance(own=[1], lagging=True)
    assert owned.missing(glance, {BASE: 3, 1: 1}) == 0
    assert owned.missing(glance, {BASE: 3, 2: 1}) == 1


def test_the_command_prints_each_figure_beside_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], servers: Servers
) -> None:
    """One object a line for machines, and the exit code says whether all are met."""

    async def two(*_: object) -> AsyncIterator[Figure]:
        yield Figure("met", 1, 2)
        yield Figure("missed", 3, 2)

    class Running:
        def __enter__(self) -> Servers:
            return servers

        def __exit__(self, *_: object) -> None:
            """Leave them running."""

    monkeypatch.setattr(command, "started", Running)
    monkeypatch.setitem(command.FAMILIES, "whole", two)
    assert command.main(["--quick", "--json", "--family", "whole"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["value"], each["limit"], each["ok"]) for each in found] == [
        ("met", 1, 2, True),
        ("missed", 3, 2, False),
    ]
