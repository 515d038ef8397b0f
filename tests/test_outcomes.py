"""A commit that got no answer: found out about where the server can tell, and never guessed at."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from router import Router, predicates
from router.config import parse
from router.drivers.driver import Endpoint, Login, Outcome, Setup
from router.drivers.postgresql_outcomes import judge, told
from router.drivers.registry import driver_for
from router.errors import CommitOutcomeUnknown, ReadOnlyViolation, TransactionLost
from router.events import (
    CommitResolved,
    CommitUnknown,
    RetryScheduled,
    TransactionCommitted,
    TransactionRolledBack,
)
from router.topology import Node, Role
from router.transaction import Transaction
from tests.engines import Engine, Recorder, only
from tests.relay import Loss, Relay
from tests.servers import PostgresqlCluster

HOST = "127.0.0.1"
THEN = ("7", "00000002", "2026-01-01")
CRASHED, PROMOTED, OLDER, OTHER = (
    ("7", "00000002", "2026-01-02"),
    ("7", "00000003", "2026-01-02"),
    ("7", "00000001", "2026-01-01"),
    ("8", "00000002", "2026-01-01"),
)
RECOVERING = ("7", "", "2026-01-01")


@pytest.mark.parametrize(
    ("now", "status", "outcome"),
    [
        (THEN, "committed", Outcome.COMMITTED),
        (THEN, "aborted", Outcome.ROLLED_BACK),
        (THEN, "in progress", Outcome.OPEN),
        (THEN, None, Outcome.UNKNOWN),  # too old: the server has thrown its outcome away
        *((now, "committed", Outcome.UNKNOWN) for now in (CRASHED, PROMOTED, OLDER, OTHER, RECOVERING)),
        *((now, "in progress", Outcome.UNKNOWN) for now in (CRASHED, PROMOTED, OLDER, OTHER, RECOVERING)),
        *((now, "aborted", Outcome.ROLLED_BACK) for now in (CRASHED, PROMOTED)),
        *((now, "aborted", Outcome.UNKNOWN) for now in (OLDER, OTHER, RECOVERING)),
    ],
)
def test_a_number_means_something_in_its_own_history_only(
    now: tuple[str, ...], status: str | None, outcome: Outcome
) -> None:
    """After a crash or a promotion "committed" may be another's; "aborted" says that ours never arrived."""
    assert judge(THEN, now, status) is outcome


@pytest.mark.parametrize(
    ("name", "number"),
    [("router xid 77", "77"), ("router", ""), ("router xid ", ""), ("router xid x", ""), ("77", "")],
)
def test_only_a_number_of_the_routers_own_is_read(name: str, number: str) -> None:
    """What somebody else has put into the application's name is no transaction."""
    assert told(name) == number


# --- a relay in between ----------------------------------------------------------------------------------


class Place:
    """Hold what a test of a lost commit needs."""

    def __init__(self, router: Router, relay: Relay, heard: Recorder, count: Callable[[], Any]) -> None:
        self.router, self.relay, self.heard, self.count = router, relay, heard, count
        self.session = router.session("acme")

    async def insert(self, tx: Transaction) -> None:
        """Insert a row."""
        await tx.execute("INSERT INTO outcomes (amount) VALUES (1)")

    async def lose(self, loss: Loss) -> None:
        """Insert a row in a transaction whose commit meets a loss."""
        async with self.session.transaction() as tx:
            await self.insert(tx)
            self.relay.loss = loss


@asynccontextmanager
async def placed(engine: Engine, **cluster: Any) -> AsyncIterator[Place]:
    """Open a router on the primary behind a relay, with an empty table."""
    server = engine.server.primary
    database = engine.database("acme")  # type: ignore[attr-defined]
    async with Relay(server.port).listen() as relay:
        primary = {"primary": {"host": HOST, "port": relay.port}, "replicas": []}
        async with engine.open(cluster={**primary, "resolve_commits": True, **cluster}) as router:
            await router.execute("DROP TABLE IF EXISTS outcomes", tenant="acme")
            await router.execute("CREATE TABLE outcomes (id SERIAL, amount INT)", tenant="acme")

            def count() -> int:
                return int(server.run("SELECT count(*) FROM outcomes", database))

            yield Place(router, relay, Recorder(router), count)


@only("postgresql")
async def test_a_commit_whose_answer_is_lost_is_found_committed(engine: Engine) -> None:
    """The commit returns as if nothing had happened, told as committed and as found out (fault case 3)."""
    async with placed(engine, connections={"max": 1}) as place:
        await place.lose(Loss.ANSWER)
        assert place.relay.lost.is_set()
        assert place.count() == 1
        (resolved,) = place.heard.of(CommitResolved)
        assert (resolved.tenant, resolved.committed, resolved.node.name) == ("acme", True, "primary")
        assert resolved.transaction_id.isdigit()
        assert len(place.heard.of(TransactionCommitted)) == 1
        assert place.heard.of(CommitUnknown) == []
        assert place.session.wrote
        metrics = place.router.metrics.render().decode()
        assert 'router_commits_resolved_total{cluster="main",outcome="committed"} 1.0' in metrics


@only("postgresql")
async def test_a_commit_that_did_not_arrive_is_found_rolled_back(engine: Engine) -> None:
    """TransactionLost: nothing was applied and it may be run again (fault case 3)."""
    async with placed(engine) as place:
        with pytest.raises(TransactionLost) as caught:
            await place.lose(Loss.QUESTION)
        assert predicates.is_retryable(caught.value)
        assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
        assert (caught.value.transaction_id or "").isdigit()
        assert caught.value.transaction_id in str(caught.value)
        assert place.count() == 0
        assert [event.committed for event in place.heard.of(CommitResolved)] == [False]
        assert [event.error for event in place.heard.of(TransactionRolledBack)] == ["TransactionLost"]


@only("postgresql")
async def test_run_repeats_what_was_rolled_back(engine: Engine) -> None:
    """session.run makes the transaction again, once, after a commit that did not arrive (fault case 3)."""
    async with placed(engine) as place:
        runs = 0

        async def work(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await place.insert(tx)
            place.relay.loss = Loss.QUESTION if runs == 1 else Loss.NONE

        await place.session.run(work)
        assert (runs, place.count()) == (2, 1)
        assert [event.error for event in place.heard.of(RetryScheduled)] == ["TransactionLost"]


@only("postgresql")
async def test_a_transaction_that_is_still_open_is_asked_about_again(engine: Engine) -> None:
    """While the server has not noticed that we are gone the answer is "in progress": not an outcome."""
    async with placed(engine) as place:
        lost = asyncio.create_task(place.lose(Loss.LATE))
        await place.relay.lost.wait()
        await asyncio.sleep(0.2)
        assert not lost.done()
        place.relay.let_go.set()
        with pytest.raises(TransactionLost):
            await lost
        assert place.count() == 0


@only("postgresql")
async def test_what_stays_open_for_the_callers_time_is_unknown(engine: Engine) -> None:
    """Nobody waits longer than the commit itself was given; the number is told (fault case 3)."""
    async with placed(engine) as place:
        async with engine.open(
            cluster={
                "primary": {"host": HOST, "port": place.relay.port},
                "replicas": [],
                "resolve_commits": True,
            },
            defaults={"timeouts": {"statement": "400ms"}},
        ) as hasty:
            heard = Recorder(hasty)
            with pytest.raises(CommitOutcomeUnknown) as caught:
                async with hasty.session("acme").transaction() as tx:
                    await place.insert(tx)
                    place.relay.loss = Loss.LATE
            assert (caught.value.transaction_id or "").isdigit()
            assert not predicates.is_retryable(caught.value)
            assert len(heard.of(CommitUnknown)) == 1
            assert heard.of(CommitResolved) == []
        place.relay.let_go.set()


@only("postgresql")
@pytest.mark.parametrize("loss", [Loss.ANSWER, Loss.QUESTION])
async def test_without_the_option_the_outcome_stays_unknown(engine: Engine, loss: Loss) -> None:
    """Off by default: no number is asked for, so nothing can be found out."""
    async with placed(engine, resolve_commits=False) as place:
        with pytest.raises(CommitOutcomeUnknown) as caught:
            await place.lose(loss)
        assert caught.value.transaction_id is None
        assert place.heard.of(CommitResolved) == []


@only("postgresql")
async def test_a_commit_of_the_orms_is_found_out_about_too(engine: Engine) -> None:
    """session.orm() ends well where the commit has arrived, and with TransactionLost where not."""
    async with placed(engine) as place:
        insert = text("INSERT INTO outcomes (amount) VALUES (1)")
        async with place.session.orm() as orm:
            await orm.execute(insert)
            place.relay.loss = Loss.ANSWER
        assert place.count() == 1
        with pytest.raises(TransactionLost) as caught:
            async with place.session.orm() as orm:
                await orm.execute(insert)
                place.relay.loss = Loss.QUESTION
        assert caught.value.tenant == "acme"
        assert place.count() == 1
        assert [event.committed for event in place.heard.of(CommitResolved)] == [True, False]


@only("postgresql")
async def test_asking_that_is_cancelled_leaves_it_unknown(engine: Engine) -> None:
    """CancelledError comes through; the outcome is told as unknown, and the session as one that wrote."""
    async with placed(engine) as place:
        lost = asyncio.create_task(place.lose(Loss.LATE))
        await place.relay.lost.wait()
        await asyncio.sleep(0.05)
        lost.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lost
        assert len(place.heard.of(CommitUnknown)) == 1
        assert place.session.wrote
        place.relay.let_go.set()


@only("postgresql")
async def test_the_number_is_learned_with_the_begin(engine: Engine) -> None:
    """It costs no round trip, shows in pg_stat_activity, and the application's name returns afterwards."""
    async with placed(engine) as place:
        name = "SELECT current_setting('application_name')"
        async with place.session.transaction() as tx:
            number = tx.unit.lease.connection.mark
            assert number is not None
            assert await tx.fetch_value("SELECT pg_current_xact_id()::text") == number.transaction_id
            assert await tx.fetch_value(name) == f"router xid {number.transaction_id}"
        assert await place.session.fetch_value(name, primary=True) == "router"
        async with place.session.transaction(readonly=True) as tx:
            assert await tx.fetch_value("SELECT pg_current_xact_id_if_assigned()") is None


@only("postgresql")
async def test_a_primary_that_is_a_replica_is_noticed_at_the_begin(engine: Engine) -> None:
    """A replica gives no numbers away: before anything is sent that could be lost (fault case 8)."""
    replica, driver = engine.server.replicas[0], driver_for("postgresql")

    async def password() -> str:
        return str(replica.password("router_app"))

    await engine.settle()
    node, login = Node("r1", "main", Role.PRIMARY, replica.host, replica.port), Login("router_app", password)
    database = engine.database("acme")  # type: ignore[attr-defined]
    endpoint = Endpoint(node, database, login, readonly=False, setup=Setup(resolve=True))
    connection = await driver.connect(endpoint, 5.0)
    try:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
            await connection.begin(readonly=False, isolation=None, timeout=5.0)
    finally:
        await connection.close(5.0)
    assert isinstance(driver.translate(caught.value), ReadOnlyViolation)
    assert connection.mark is None


# --- a server that crashes or is replaced ----------------------------------------------------------------


def behind(relay: Relay, cluster: PostgresqlCluster) -> Any:
    """Return a configuration of one tenant on a primary behind a relay."""
    login = {"username": "router_app", "password": cluster.primary.password("router_app")}
    section = {
        "engine": "postgresql",
        "primary": {"host": HOST, "port": relay.port},
        "credentials": {"writer": login},
        "resolve_commits": True,
    }
    return parse(
        {
            "version": 1,
            "clusters": {"main": section},
            "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "app"}},
            "defaults": {"timeouts": {"statement": "10s"}},
        }
    )


async def lose(router: Router, relay: Relay) -> None:
    """Insert a row in a transaction whose answer to COMMIT is lost."""
    async with router.session("acme").transaction() as tx:
        await tx.execute("INSERT INTO outcomes (amount) VALUES (1)")
        relay.loss = Loss.ANSWER


async def test_numbers_that_were_handed_out_again_are_not_ours(
    postgresql_factory: Callable[..., PostgresqlCluster],
) -> None:
    """A crash, then a promotion: what another transaction became under our number is no outcome of ours.

    (fault case 3)
    """
    cluster = await asyncio.to_thread(postgresql_factory, 1)
    old, new = cluster.primary, cluster.replicas[0]
    cluster.run("CREATE TABLE outcomes (id SERIAL, amount INT); GRANT ALL ON outcomes TO router_app")
    cluster.run("GRANT ALL ON outcomes_id_seq TO router_app")
    cluster.wait_for_replicas()
    async with Relay(old.port).listen() as relay, Router.open(behind(relay, cluster)) as router:
        # 1: the commit arrives, the server crashes, recovers, and knows it; but it could be anybody's
        relay.dark = True
        stopped = asyncio.create_task(_crash(relay, old))
        with pytest.raises(CommitOutcomeUnknown) as caught:
            await lose(router, relay)
        await stopped
        assert (caught.value.transaction_id or "").isdigit()
        assert cluster.run("SELECT count(*) FROM outcomes") == "1"
        # 2: the replica misses the commit, is promoted, and gives the number to others
        cluster.wait_for_replicas()
        new.stop()
        replaced = asyncio.create_task(_replace(relay, old, new))
        with pytest.raises(CommitOutcomeUnknown) as caught:
            await lose(router, relay)
        await replaced
        number = caught.value.transaction_id
        assert new.run(f"SELECT pg_xact_status('{number}')") == "committed"  # somebody else's
        assert new.run("SELECT count(*) FROM outcomes", "app") == "11"  # one row before, ten others


async def _crash(relay: Relay, server: Any) -> None:
    await relay.lost.wait()
    relay.lost.clear()
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    relay.target = server.port


async def _replace(relay: Relay, old: Any, new: Any) -> None:
    await relay.lost.wait()
    await asyncio.to_thread(old.kill)
    await asyncio.to_thread(new.start)
    await asyncio.to_thread(new.promote)
    for _ in range(10):
        await asyncio.to_thread(new.run, "INSERT INTO outcomes (amount) VALUES (2)", "app")
    relay.target = new.port
