"""Tenants over few connections: whatever one tenant does to a connection, no other sees it."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from router import Router, errors
from router.errors import DatabaseNotFound, PoolTimeout, RouterError
from router.events import ConnectionOpened
from router.session import Session
from tests.engines import SERVED, Engine, PostgresqlSchemas, Recorder, make, only

CROWD = tuple(f"tenant{number}" for number in range(20))
TASKS, STEPS, MOST = 40, 12, 3
_CROWDED = ("sqlite", "postgresql-schema", "mariadb")


@pytest.fixture(scope="module", params=_CROWDED)
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Give an engine with the places of twenty tenants, each with a row that names it."""
    made = make(request.param, tmp_path_factory.mktemp(f"crowd-{request.param}"), request)
    made.create(*CROWD)

    async def fill() -> None:
        async with made.open(CROWD, connections=MOST) as router:
            for tenant in CROWD:
                await router.execute("CREATE TABLE owned (tenant VARCHAR(20), n INT)", tenant=tenant)
                await router.execute("INSERT INTO owned VALUES (:t, 0)", {"t": tenant}, tenant=tenant)
        await made.settle()

    asyncio.run(fill())
    yield made
    made.drop()


class Visitor:
    """Do random things as one tenant, and check that every row seen is that tenant's."""

    def __init__(self, router: Router, engine: Engine, rng: random.Random) -> None:
        self.router = router
        self.engine = engine
        self.rng = rng
        self.did: Counter[str] = Counter()

    async def visit(self) -> None:
        """Do one thing in a session of its own."""
        tenant = self.rng.choice(CROWD)
        kinds = [
            self.read,
            self.write,
            self.undone,
            self.fail,
            self.cancelled,
            self.spoil,
            self.streamed,
            self.orm,
        ]
        doing = self.rng.choice(kinds)
        async with self.router.session(tenant) as session:
            await doing(session)
        self.did[doing.__name__] += 1

    async def check(self, session: Session, *, primary: bool = False) -> None:
        """Read all rows and assert that they belong to the session's tenant."""
        rows = await session.fetch_all("SELECT tenant FROM owned", primary=primary)
        assert {row.tenant for row in rows} == {session.tenant}

    async def read(self, session: Session) -> None:
        await self.check(session)
        await self.check(session, primary=self.rng.random() < 0.5)

    async def write(self, session: Session) -> None:
        insert = "INSERT INTO owned VALUES (:t, 1)"
        await session.execute(insert, {"t": session.tenant})
        await session.execute_many(insert, [{"t": session.tenant}] * 2)
        await self.check(session)

    async def undone(self, session: Session) -> None:
        async with session.transaction() as tx:
            await tx.execute("INSERT INTO owned VALUES ('nobody', 2)")
            await tx.rollback()
        async with session.transaction(readonly=True) as tx:
            rows = await tx.fetch_all("SELECT tenant FROM owned")
            assert {row.tenant for row in rows} == {session.tenant}

    async def fail(self, session: Session) -> None:
        with pytest.raises(errors.InvalidStatement):
            await session.fetch_all("SELECT nope FROM owned")
        with contextlib.suppress(ZeroDivisionError):
            async with session.transaction() as tx:
                await tx.execute("INSERT INTO owned VALUES ('nobody', 3)")
                raise ZeroDivisionError

    async def cancelled(self, session: Session) -> None:
        async def work() -> None:
            if self.rng.random() < 0.5:
                await session.fetch_all("SELECT tenant FROM owned")
            else:
                async with session.transaction() as tx:
                    await tx.execute("INSERT INTO owned VALUES ('nobody', 4)")
                    await asyncio.sleep(1)

        task = asyncio.create_task(work())
        await asyncio.sleep(self.rng.uniform(0, 0.02))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def spoil(self, session: Session) -> None:
        """Leave state on the connection by text, as a careless application would."""
        other = self.rng.choice(CROWD)
        spoilers = {
            "postgresql": [
                f"SET search_path = {other}, public",
                "CREATE TEMP TABLE owned AS SELECT 'temporary' AS tenant, 5 AS n",
                "SELECT pg_advisory_lock(:n)",
                "SET default_transaction_read_only = on",
                f"SELECT set_config('search_path', '{other}', false)",
                "SET statement_timeout = 1",
            ],
            "mysql": [
                f"USE {self.engine.prefix}_{other}",
                "CREATE TEMPORARY TABLE owned AS SELECT 'temporary' AS tenant, 5 AS n",
                "SELECT GET_LOCK('x', 0)",
                "SET @tenant = 'somebody'",
                "SET SESSION TRANSACTION READ ONLY",
            ],
            "sqlite": [
                "CREATE TEMP TABLE owned AS SELECT 'temporary' AS tenant, 5 AS n",
                "PRAGMA query_only = ON",
            ],
        }
        text = self.rng.choice(spoilers[self.engine.dialect])
        given = {"n": self.rng.randrange(1_000_000)} if ":n" in text else None
        await session.execute(text, given, primary=True)

    async def streamed(self, session: Session) -> None:
        async with contextlib.aclosing(session.stream("SELECT tenant FROM owned", batch=2)) as rows:
            async for row in rows:
                assert row.tenant == session.tenant
                if self.rng.random() < 0.3:
                    break

    async def orm(self, session: Session) -> None:
        from sqlalchemy import column, select, table

        owned = table("owned", column("tenant"))
        async with session.orm(readonly=self.rng.random() < 0.5) as orm:
            assert set(await orm.scalars(select(owned.c.tenant))) == {session.tenant}
        assert await session.fetch_value(select(owned.c.tenant).limit(1)) == session.tenant


async def test_nothing_leaks_between_many_tenants(crowd: Engine) -> None:
    """Twenty tenants, three connections a node, forty tasks, every abuse: each sees its own rows only."""
    seed = random.randrange(1_000_000)
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    async with crowd.open(
        CROWD, connections=MOST, defaults={"timeouts": {"acquire": "30s"}, "consistency": "session"}
    ) as router:
        heard = Recorder(router)

        async def task(number: int) -> None:
            visitor = Visitor(router, crowd, random.Random(seed + number))
            for _ in range(STEPS):
                await visitor.visit()
            done.update(visitor.did)

        results = await asyncio.gather(*(task(number) for number in range(TASKS)), return_exceptions=True)
        failures = [each for each in results if each is not None]
        assert not failures, f"seed {seed}: {failures[:3]}"
        assert sum(done.values()) == TASKS * STEPS
        assert len(done) == 8
        await crowd.settle()
        for tenant in rng.sample(CROWD, 10):
            for given in ({}, {"primary": True}):
                rows = await router.fetch_all("SELECT DISTINCT tenant FROM owned", tenant=tenant, **given)
                assert [row.tenant for row in rows] == [tenant]
        pools = router.status().pools
        assert all(pool.in_use == 0 and pool.waiting == 0 and pool.size <= pool.max for pool in pools)
        if crowd.dialect != "sqlite":
            assert len(pools) == 1 + len(crowd.replicas)  # all tenants share the pools of the nodes
        assert heard.of(ConnectionOpened)


# --- bindings --------------------------------------------------------------------------------------------


@only("postgresql-schema", "mariadb")
async def test_one_connection_serves_tenants_in_turn(engine: Engine) -> None:
    """A connection is bound anew for each tenant; prepared statements of one never answer for another."""
    name = engine.name()
    async with engine.open(connections=1) as router:
        heard = Recorder(router)
        for tenant in ("acme", "globex"):
            await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant=tenant)
            await router.execute(f"INSERT INTO {name} VALUES (:t)", {"t": tenant}, tenant=tenant)
        for _ in range(10):
            for tenant in ("acme", "globex"):
                found = await router.fetch_value(f"SELECT who FROM {name}", tenant=tenant, primary=True)
                assert found == tenant
                found = await router.execute(f"SELECT who FROM {name}", tenant=tenant, primary=True)
                assert found.rows[0].who == tenant
        assert len([event for event in heard.of(ConnectionOpened) if event.node.role == "primary"]) == 1


@only("postgresql-schema", "mariadb")
async def test_a_missing_place_never_falls_through(engine: Engine) -> None:
    """A tenant without its schema is refused; it does not read what the connection was bound to before."""
    name = engine.name()
    async with engine.open(("acme", "missing"), connections=1) as router:
        await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant="acme")
        for _ in range(3):
            with pytest.raises(DatabaseNotFound):
                await router.execute(f"SELECT * FROM {name}", tenant="missing", primary=True)
            with pytest.raises(RouterError):
                await router.execute(f"CREATE TABLE {name} (a INT)", tenant="missing")
            assert await router.fetch_all(f"SELECT * FROM {name}", tenant="acme", primary=True) == []


@only("postgresql-schema")
async def test_a_table_of_public_is_not_seen_by_a_schema_tenant(engine: Engine) -> None:
    """The search path of a schema tenant is its schema alone."""
    assert isinstance(engine, PostgresqlSchemas)
    name = engine.name()
    engine.server.run(f"CREATE TABLE public.{name} (a INT)", engine.database("acme"))
    async with engine.open() as router:
        with pytest.raises(errors.InvalidStatement):
            await router.fetch_all(f"SELECT * FROM {name}", tenant="acme", primary=True)


@SERVED
async def test_session_state_is_undone_before_the_next_lease(engine: Engine) -> None:
    """What a text set on the only connection is gone for the next request, of whatever tenant."""
    changes = {
        "postgresql": ("SET application_name = 'spoiled'", "SHOW application_name", "router"),
        "mysql": ("SET @x = 'spoiled'", "SELECT @x", None),
    }
    change, look, clean = changes[engine.dialect]
    async with engine.open(connections=1) as router:
        await router.execute(change, tenant="acme")
        for tenant in ("globex", "acme"):
            assert await router.fetch_value(look, tenant=tenant, primary=True) == clean


@only("postgresql")
async def test_a_tenant_that_holds_all_its_connections_keeps_nobody_else_from_theirs(engine: Engine) -> None:
    """With a database for each tenant every one has a pool of its own (fault case 30)."""
    async with engine.open(connections=2) as router, AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(router.session("acme").transaction())
        with pytest.raises(PoolTimeout, match="Held by acme"):
            async with router.session("acme", timeout=0.2).transaction():
                pass
        for _ in range(20):
            async with router.session("globex").transaction() as tx:
                assert await tx.fetch_value("SELECT 1") == 1
