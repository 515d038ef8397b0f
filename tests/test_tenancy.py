"""Tenants over few connections: what a connection is bound to, and what is undone before the next."""

from contextlib import AsyncExitStack

import pytest
from sqlalchemy import column, insert, select, table
from sqlalchemy import text as plain

from router import errors
from router.errors import DatabaseNotFound, PoolDeadlock, RouterError
from router.events import ConnectionClosed, ConnectionOpened
from tests.engines import SERVED, Engine, PostgresqlSchemas, Recorder, only


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


@SERVED
async def test_a_tenant_that_holds_all_its_connections_keeps_nobody_else_from_theirs(engine: Engine) -> None:
    """A fifth of a node's connections is never one tenant's, wherever its rows are (fault case 30)."""
    most = {"limits": {}}
    async with engine.open(connections=5, defaults=most) as router, AsyncExitStack() as held:
        for _ in range(4):
            await held.enter_async_context(router.session("acme").transaction())
        with pytest.raises(PoolDeadlock, match=r"each of the 4 connections that tenant 'acme' may have"):
            async with router.session("acme").transaction():
                pass
        for _ in range(20):
            async with router.session("globex").transaction() as tx:
                assert await tx.fetch_value("SELECT 1") == 1
        assert max(each.size for each in router.status().budgets) <= 5


@pytest.mark.parametrize("bare", [False, True])
async def test_what_an_orm_session_leaves_behind_is_undone(engine: Engine, bare: bool) -> None:
    """A temporary table that shadows a tenant's is gone for the next request, and so is a setting."""
    name = engine.name()
    settings = {"postgresql": "SET search_path = pg_catalog", "mysql": "SET autocommit = 0"}
    async with engine.open(connections=1) as router:
        await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant="acme")
        for text in (
            f"CREATE TEMPORARY TABLE {name} AS SELECT 'a shadow' AS who",
            settings.get(engine.dialect, "PRAGMA query_only = ON"),
        ):
            async with router.session("acme") as session, session.orm() as orm:
                if bare:  # SQLAlchemy has a way of its own for these
                    own = await orm.connection(execution_options={"no_parameters": True})
                    await own.exec_driver_sql(text)
                else:
                    await orm.execute(plain(text))
                await orm.commit()
            assert await router.fetch_all(f"SELECT who FROM {name}", tenant="acme", primary=True) == []
            await router.execute(f"INSERT INTO {name} VALUES ('acme')", tenant="acme")
            await router.execute(f"DELETE FROM {name}", tenant="acme")


@only("postgresql-schema")
async def test_a_connection_that_an_orm_session_has_lent_is_closed(engine: Engine) -> None:
    """What is done on the driver's own connection is seen by nobody."""
    name = engine.name()
    async with engine.open(connections=1) as router:
        await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant="acme")
        async with router.session("acme") as session, session.orm() as orm:
            lent = await (await orm.connection()).get_raw_connection()
            assert lent.driver_connection is not None
            await lent.driver_connection.execute(f"CREATE TEMP TABLE {name} AS SELECT 'a shadow' AS who")
            await orm.commit()
        assert await router.fetch_all(f"SELECT who FROM {name}", tenant="acme", primary=True) == []


async def test_an_orm_session_without_such_texts_costs_no_connection(engine: Engine) -> None:
    """Neither what it reads and writes nor its savepoints are reasons to close one."""
    name = engine.name()
    async with engine.open(connections=1) as router:
        await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant="acme")
        heard = Recorder(router)
        who = table(name, column("who"))
        for _ in range(3):
            async with router.session("acme") as session, session.orm() as orm:
                await orm.execute(insert(who).values(who="acme"))
                async with orm.begin_nested():
                    assert set(await orm.scalars(select(who.c.who))) == {"acme"}
                await orm.commit()
        assert not heard.of(ConnectionOpened)
        assert not heard.of(ConnectionClosed)


@only("postgresql-schema")
async def test_a_connection_that_was_cut_is_not_bound_along_with_a_statement(engine: Engine) -> None:
    """The binding is left to what finds the connection closed, and says so."""
    async with engine.open(connections=1) as router:
        await router.fetch_all("SELECT 1", tenant="acme", primary=True)
        executor = router._executor
        assert executor is not None
        target, other = executor.target("acme", None), executor.target("globex", None)
        lease = await target.lease(target.backend.cluster.primary, executor.clock() + 5)
        lease.connection.terminate()
        assert lease.connection.bind_along(lease.pool.endpoint, other.binding) is False
        lease.release()
