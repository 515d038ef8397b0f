"""Many users in three processes, on servers that lag, die and change roles: no promise is broken.

A short form of ``make consistency``; together the engines do 10,000 operations with all guarantees on.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.conftest import start_or_skip
from tests.consistency import cached, costs, faults, scenes
from tests.consistency.run import Faults, Workers, no_faults, workers
from tests.consistency.scenes import OFF, TENANTS, Stage
from tests.engines import Engine, Mariadb, PostgresqlSchemas, Sqlite
from tests.figures import Figure
from tests.servers import MariadbCluster, PostgresqlCluster

SEED = 5
OPERATIONS = {"postgresql": 7_000, "mariadb": 2_000, "sqlite": 1_000}
CACHED = {"postgresql": (1_200, cached.ALONE), "mariadb": (600, cached.FEW), "sqlite": (600, cached.ALONE)}
HARM: dict[str, Any] = {"postgresql": faults.postgresql, "mariadb": faults.mariadb}
served = pytest.mark.parametrize("stage", ["postgresql", "mariadb"], indirect=True)
everywhere = pytest.mark.parametrize("stage", list(OPERATIONS), indirect=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Workers]:
    """Start three processes that take part in one history after the other."""
    with workers(3) as started:
        yield started


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, processes: Workers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Give an engine with servers of its own, which the tests break; the last one for good."""
    folder = tmp_path_factory.mktemp(request.param)
    engine: Engine
    if request.param == "sqlite":
        engine = Sqlite(folder)
        engine.create(*TENANTS)
        yield Stage(engine, processes, SEED)
        return
    kind: Any = PostgresqlCluster if request.param == "postgresql" else MariadbCluster
    cluster = start_or_skip(kind)
    try:
        engine = (PostgresqlSchemas if request.param == "postgresql" else Mariadb)(folder, cluster)
        engine.create(*TENANTS)
        yield Stage(engine, processes, SEED)
    finally:
        cluster.close()


async def met(figures: AsyncIterator[Figure]) -> None:
    """Fail if a figure misses its limit."""
    found = [figure async for figure in figures]
    assert found and [figure for figure in found if not figure.ok] == []


@everywhere
async def test_every_promise_is_kept(stage: Stage, request: pytest.FixtureRequest) -> None:
    """Sessions see what they know wherever their users go, and nothing is lost, doubled or another's."""
    name = request.node.callspec.params["stage"]
    harm = HARM[name](stage.engine.server, SEED, 1) if name in HARM else no_faults
    await met(scenes.kept(stage, name, OPERATIONS[name], harm))


@everywhere
async def test_every_promise_is_kept_with_cached_reads(stage: Stage, request: pytest.FixtureRequest) -> None:
    """The same where reads are answered from memory, of which there are enough to mean something."""
    name = request.node.callspec.params["stage"]
    harm = HARM[name](stage.engine.server, SEED, 1) if name in HARM else no_faults
    total, caching = CACHED[name]
    await met(cached.kept(stage, name, total, harm, caching))


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
async def test_without_a_rule_of_the_cache_the_checker_finds_violations(stage: Stage) -> None:
    """What a session was shown, and what this process has written: each is missed."""
    trials = [each for each in cached.TRIALS if each.rule in ("shown", "invalidation")]
    await met(cached.switched_off(stage, "postgresql", 700, 1, trials))


@served
async def test_without_guarantees_the_checker_finds_violations(
    stage: Stage, request: pytest.FixtureRequest
) -> None:
    """Eventual reads of replicas that lag, and tokens dropped: what was promised is found broken."""
    name = request.node.callspec.params["stage"]

    def harm(seed: int) -> Faults:
        return faults.lagging(stage.engine.server, seed)

    await met(scenes.switched_off(stage, name, 1_500, harm, 1, OFF if name == "postgresql" else OFF[:1]))


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
async def test_a_client_that_repeats_unknown_writes_has_duplicates(stage: Stage) -> None:
    """The checker finds them; a client that leaves such writes alone has none."""
    await met(scenes.repeated(stage, "postgresql", 800, cuts=3))


@pytest.mark.timed  # a server that seems slow is probed, and that would be counted
@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
async def test_a_session_level_write_sends_no_more_and_a_token_asks_once(stage: Stage) -> None:
    """Counted on the wire: nothing added to a write, at most one question for a token."""
    await met(costs.messages(stage))


@served
async def test_what_a_failover_loses_is_found_and_told(stage: Stage, request: pytest.FixtureRequest) -> None:
    """A replica is promoted that lacks acknowledged writes: no session that knows them goes on untold."""
    name = request.node.callspec.params["stage"]
    await met(scenes.lossy(stage, name, 2_000, faults.lossy(stage.engine.server, SEED)))
