"""Routes of a session: each statement goes where it should, and the events say why."""

import pytest

from router import Router, errors
from router.errors import RouterClosed
from router.events import ConnectionClosed
from tests.chaos.cases import until
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder


async def test_reads_go_to_replicas_and_writes_to_the_primary(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A proven read goes to a replica, a write and a definition to the primary; the events say so."""
    await router.execute(f"INSERT INTO {items} (name) VALUES ('a')", tenant="acme")
    assert heard.route == ("primary", "write")
    await engine.settle()
    assert await router.fetch_value(f"SELECT name FROM {items}", tenant="acme") == "a"
    assert heard.route == ("replica", "read")
    assert heard.last.node is not None
    assert heard.last.node.name in engine.replicas


@SERVED
async def test_a_locking_read_goes_to_the_primary(router: Router, heard: Recorder, items: str) -> None:
    """FOR UPDATE takes locks, so it is no read."""
    assert await router.fetch_all(f"SELECT name FROM {items} FOR UPDATE", tenant="acme") == []
    assert heard.route == ("primary", "locking")


@POSTGRESQL
async def test_functions_are_asked_of_the_catalog(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A volatile function makes a write of a SELECT, a stable one does not; a changed one is noticed."""
    writes = f"INSERT INTO {items} (name) VALUES ('f') RETURNING id"
    for name, kind, body in (("looks", "STABLE", "SELECT 7"), ("writes", "VOLATILE", writes)):
        await router.execute(
            f"CREATE FUNCTION {items}_{name}() RETURNS INT LANGUAGE sql {kind} AS $$ {body} $$", tenant="acme"
        )
    await engine.settle()
    assert await router.fetch_value(f"SELECT {items}_looks()", tenant="acme") == 7
    assert heard.route == ("replica", "read")
    assert await router.fetch_value(f"SELECT {items}_writes()", tenant="acme") == 1
    assert heard.route == ("primary", "volatile_function")
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1
    await router.execute(f"ALTER FUNCTION {items}_looks() VOLATILE", tenant="acme")
    assert await router.fetch_value(f"SELECT {items}_looks()", tenant="acme") == 7
    assert heard.route == ("primary", "volatile_function")
    await router.execute(f"ALTER FUNCTION {items}_looks() STABLE", tenant="acme")
    await router.fetch_value(f"SELECT {items}_looks()", tenant="acme")
    assert heard.route == ("replica", "read")


@POSTGRESQL
async def test_a_function_changed_behind_our_back_is_refused_by_the_replica(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A function that somebody else made a writing one fails on the replica and runs on the primary, once."""
    create = f"CREATE OR REPLACE FUNCTION {items}_f() RETURNS INT LANGUAGE sql"
    await router.execute(f"{create} STABLE AS $$ SELECT 1 $$", tenant="acme")
    await engine.settle()
    await router.fetch_value(f"SELECT {items}_f()", tenant="acme")
    assert heard.route == ("replica", "read")
    async with engine.open() as other:
        body = f"INSERT INTO {items} (name) VALUES ('f') RETURNING 2"
        await other.execute(f"{create} VOLATILE AS $$ {body} $$", tenant="acme")
    await engine.settle()
    assert await router.fetch_value(f"SELECT {items}_f()", tenant="acme") == 2
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 2)
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1


async def test_a_session_reads_from_one_replica(router: Router, engine: Engine, heard: Recorder) -> None:
    """All reads of a session go to the same replica; over many sessions every replica is used."""
    await router.fetch_value("SELECT 1", tenant="acme")
    await until(lambda: all(node.usable for node in router.status().nodes))  # a busy one may be late at first
    for _ in range(40):
        session = router.session("acme")
        start = len(heard.requests)
        for _ in range(3):
            await session.fetch_value("SELECT 1")
        nodes = {event.node for event in heard.requests[start:]}
        assert len(nodes) == 1
    used = {event.node.name for event in heard.requests if event.node and event.role == "replica"}
    assert used == set(engine.replicas)


async def test_a_session_sees_its_own_writes(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """After a write the session reads where that write is seen, at once, without waiting for replicas."""
    for number in range(10):
        async with router.session("acme") as session:
            await session.execute(f"INSERT INTO {items} (name) VALUES (:n)", {"n": f"n{number}"})
            count = await session.fetch_value(f"SELECT count(*) FROM {items}")
            assert count == number + 1
            assert heard.last.reason == engine.own_read_reason


async def test_a_session_sees_the_writes_of_its_transaction(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A committed transaction and a write of the ORM count as the session's own writes."""
    from sqlalchemy import text

    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute(f"INSERT INTO {items} (name) VALUES ('a')")
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 1
        assert heard.last.reason == engine.own_read_reason
    async with router.session("acme") as session:
        async with session.orm() as orm:
            await orm.execute(text(f"INSERT INTO {items} (name) VALUES ('b')"))
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 2
        assert heard.last.reason == engine.own_read_reason


async def test_declared_intent_wins(router: Router, engine: Engine, heard: Recorder, items: str) -> None:
    """primary=True and readonly=True override what the text says."""
    await engine.settle()
    await router.fetch_all(f"SELECT * FROM {items}", tenant="acme", primary=True)
    assert heard.route == ("primary", "declared_primary")
    unproven = {
        "postgresql": "SELECT lastval_like()",
        "mysql": "SELECT nope_fn()",
        "sqlite": "SELECT nope_fn()",
    }
    for given in ({}, {"readonly": True}):
        with pytest.raises((errors.InvalidStatement, errors.PermissionDenied)):
            await router.fetch_all(unproven[engine.dialect], tenant="acme", **given)
    refused = heard.requests[-2:]
    assert [(event.role.value, event.reason.value) for event in refused] == [
        ("primary", "unknown_function"),
        ("replica", "declared_read"),
    ]


async def test_consistency_levels(router: Router, engine: Engine, heard: Recorder, items: str) -> None:
    """strong reads from the primary, eventual from a replica even after an own write."""
    await engine.settle()
    await router.fetch_all(f"SELECT * FROM {items}", tenant="acme", consistency="strong")
    assert heard.route == ("primary", "strong")
    async with router.session("acme", consistency="eventual") as session:
        await session.execute(f"INSERT INTO {items} (name) VALUES ('a')")
        await session.fetch_all(f"SELECT * FROM {items}")
        assert heard.route == ("replica", "read")
        await session.fetch_all(f"SELECT * FROM {items}", consistency="strong")
        assert heard.route == ("primary", "strong")


async def test_a_write_declared_as_read_is_refused_and_goes_to_the_primary_once(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """The replica's own refusal sends the write to the primary, once; the text is remembered after that."""
    await engine.settle()
    sql = f"INSERT INTO {items} (name) VALUES (:name)"
    await router.execute(sql, {"name": "a"}, tenant="acme", readonly=True)
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 2)
    await router.execute(sql, {"name": "b"}, tenant="acme")
    assert heard.last.role.value == "primary"
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 2


async def test_a_refused_text_is_remembered(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """The next time the same text goes straight to the primary although it is declared a read again."""
    await engine.settle()
    sql = f"INSERT INTO {items} (name) VALUES (:name)"
    for name in ("a", "b"):
        await router.execute(sql, {"name": name}, tenant="acme", readonly=True)
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 1)


async def test_tenants_and_schemas_are_apart(router: Router, engine: Engine, heard: Recorder) -> None:
    """The same table name is another table for each tenant and each of its schemas."""
    name = engine.name()
    places = [("acme", None), ("acme", "analytics"), ("globex", None), ("globex", "analytics")]
    for tenant, schema in places:
        async with router.session(tenant, schema) as session:
            await session.execute(f"CREATE TABLE {name} (who VARCHAR(50))")
            await session.execute(f"INSERT INTO {name} VALUES (:w)", {"w": f"{tenant}/{schema}"})
    await engine.settle()
    for given in ({}, {"primary": True}):
        for tenant, schema in places:
            rows = await router.fetch_all(f"SELECT who FROM {name}", tenant=tenant, schema=schema, **given)
            assert [row.who for row in rows] == [f"{tenant}/{schema}"]
            assert (heard.last.tenant, heard.last.schema) == (tenant, schema)


# --- life ------------------------------------------------------------------------------------------------


async def test_a_closed_session_refuses(router: Router) -> None:
    """Use after the block is RouterClosed; closing twice is harmless."""
    async with router.session("acme") as session:
        assert await session.fetch_value("SELECT 1") == 1
    await session.close()
    for call in (
        session.fetch_all("SELECT 1"),
        session.execute("SELECT 1"),
        session.begin(),
        session.commit(),
        session.prepare("SELECT 1"),
        anext(session.stream("SELECT 1")),
    ):
        with pytest.raises(RouterClosed) as caught:
            await call
        assert caught.value.tenant == "acme"


async def test_a_lent_connection_is_the_drivers_own(router: Router, engine: Engine, heard: Recorder) -> None:
    """connection() lends the driver's object, bound to the tenant, and closes it afterwards."""
    async with router.session("acme") as session:
        async with session.connection() as lease:
            raw = lease.connection.driver_connection
            vendors = {each.__module__.split(".")[0] for each in type(raw).__mro__}
            assert vendors & {"asyncpg", "aiomysql", "aiosqlite"}
            assert await lease.run("fetch_one", "SELECT 1", (), 5.0)
        assert heard.of(ConnectionClosed)[-1].reason == "lent"


async def test_every_request_is_told_once(router: Router, heard: Recorder, items: str) -> None:
    """One event ends each request; it has the parameterised text and times that add up."""
    heard.clear()
    async with router.session("acme", context_id="req-1") as session:
        await session.execute(f"INSERT INTO {items} (name) VALUES (:name)", {"name": "secret-value"})
        await session.fetch_all(f"SELECT * FROM {items}")
    assert len(heard.requests) == 2
    written = heard.requests[0]
    assert (written.tenant, written.context_id, written.kind) == ("acme", "req-1", "write")
    assert written.sql == f"INSERT INTO {items} (name) VALUES (:name)"
    assert "secret-value" not in repr(written)
    for event in heard.requests:
        assert 0 <= event.acquire + event.execute <= event.total
