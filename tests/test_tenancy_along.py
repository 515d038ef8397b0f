"""Sessions that are bound along with a statement: whatever happens, each statement is in its own schema."""

import asyncio
from typing import Any

import pytest

from router import Router, errors
from router.drivers import postgresql, postgresql_along
from router.drivers.driver import Binding, Endpoint
from router.drivers.postgresql_along import Trust
from router.drivers.postgresql_binding import Bound
from tests.similar import TENANTS, A, B, C, Place
from tests.similar import place as place
from tests.similar import router as router


@pytest.fixture
def binds(monkeypatch: pytest.MonkeyPatch) -> list[Binding | None]:
    """Collect what was bound by a round trip of its own."""
    seen: list[Binding | None] = []
    bind = Bound.bind

    async def spy(self: Bound, raw: Any, endpoint: Endpoint, binding: Binding | None, timeout: Any) -> None:
        seen.append(binding)
        await bind(self, raw, endpoint, binding, timeout)

    monkeypatch.setattr(Bound, "bind", spy)
    return seen


WAYS = pytest.mark.parametrize(
    ("more", "trusted"),
    [({}, 60.0), ({"extensions": ["helpers"]}, 60.0), ({}, 0.0)],
    ids=["alone", "extensions", "verified long ago"],
)


@WAYS
async def test_a_tenant_is_verified_once_and_then_bound_along(
    place: Place,
    binds: list[Binding | None],
    more: dict[str, Any],
    trusted: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a session's first tenant costs a round trip to be bound, whatever else the path holds."""
    monkeypatch.setattr(postgresql_along, "TRUSTED", trusted)
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    async with place.open(**more) as router:
        for _ in range(3):
            for tenant in TENANTS:
                assert await router.fetch_value("SELECT who FROM items", tenant=tenant) == tenant
                assert (await router.execute("UPDATE items SET who = who", tenant=tenant)).rowcount == 1
                found = await router.fetch_value("SELECT current_schemas(false)", tenant=tenant)
                assert found == [tenant, *more.get("extensions", ())]
    assert [each.schema for each in binds if each is not None] == [A]


@pytest.mark.parametrize("works", [True, False])
async def test_whatever_a_tenant_begins_with_is_done_in_its_schema(
    place: Place, router: Router, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """Every verb binds first, also where the version of asyncpg is not known to take messages along."""
    monkeypatch.setattr(postgresql, "WORKS", works)
    place.fresh("CREATE TABLE items (who TEXT)")
    for _ in range(3):
        for tenant in TENANTS:
            async with router.session(tenant) as session:
                await session.execute_many("INSERT INTO items VALUES (:who)", [{"who": tenant}] * 2)
        for tenant in TENANTS:
            async with router.session(tenant) as session:
                assert [row.who async for row in session.stream("SELECT who FROM items")] == [tenant] * 2
        for tenant in TENANTS:
            async with router.session(tenant) as session, session.transaction() as tx:
                assert (await tx.execute("DELETE FROM items WHERE who = current_schema()")).rowcount == 2
        for tenant in TENANTS:
            await router.session(tenant).execute_raw("INSERT INTO items VALUES ('raw'); DELETE FROM items")
    assert place.run("SELECT count(*) FROM alpha.items, beta.items, gamma.items") == "0"


async def test_an_error_leaves_the_session_bound_or_unsure(place: Place, router: Router) -> None:
    """What fails along with a binding undoes both; who comes next is in its own schema, on the same one."""
    place.fresh("CREATE TABLE items (n INT UNIQUE, who TEXT); INSERT INTO items VALUES (1, '{s}')")
    insert, read = "INSERT INTO items VALUES (:n, 'new')", "SELECT who FROM items WHERE n = :n"
    pid = "SELECT pg_backend_pid()"
    for tenant in TENANTS * 2:
        assert await router.fetch_value(read, {"n": 1}, tenant=tenant) == tenant
    session = await router.fetch_value(pid, tenant=A)
    failures: list[tuple[str, object, type[Exception]]] = [
        (insert, 1, errors.UniqueViolation),  # by the server
        (insert, "no number", errors.ParameterError),  # by asyncpg, before it has written its part
        (insert, 2**40, errors.ParameterError),
        ("SELECT who FROM nowhere WHERE :n = 1", 1, errors.InvalidStatement),  # when it is prepared
        ("SELECT 1 / (n - 1) FROM items WHERE n = :n", 1, errors.DataError),  # when it runs
    ]
    for sql, value, kind in failures:
        for before, tenant, after in ((A, B, C), (C, A, A), (B, C, B)):
            assert await router.fetch_value(read, {"n": 1}, tenant=before) == before
            with pytest.raises(kind):
                await router.execute(sql, {"n": value}, tenant=tenant)
            assert await router.fetch_value(read, {"n": 1}, tenant=after) == after
            assert await router.fetch_value("SELECT current_schema()", tenant=tenant) == tenant
    assert await router.fetch_value(pid, tenant=A) == session
    assert place.run("SELECT count(*) FROM alpha.items, beta.items, gamma.items") == "1"


async def test_who_fails_hears_of_the_own_failure(
    place: Place, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of that of looking how the session is bound: that nothing was sent then says nothing of before."""
    place.fresh("CREATE TABLE items (n INT UNIQUE); INSERT INTO items VALUES (1)")
    insert = "INSERT INTO items VALUES (:n)"
    for tenant in TENANTS * 2:
        await router.execute("DELETE FROM items WHERE n = :n", {"n": 2}, tenant=tenant)
        await router.execute(insert, {"n": 2}, tenant=tenant)

    async def lost(*_: object) -> None:
        raise errors.ConnectionLost("the connection broke")

    with monkeypatch.context() as patched:
        patched.setattr(Bound, "bind", lost)
        with pytest.raises(errors.UniqueViolation):
            await router.execute(insert, {"n": 1}, tenant=A)
    for tenant in TENANTS:
        assert await router.fetch_value("SELECT current_schema()", tenant=tenant) == tenant


async def test_a_session_that_is_ended_is_lost(place: Place, router: Router) -> None:
    """Also behind what binds it; whether a write was applied is not known then."""
    place.fresh("CREATE TABLE items (n INT)")
    for tenant in TENANTS * 2:
        await router.execute("INSERT INTO items VALUES (:n)", {"n": 1}, tenant=tenant)
    kill = "INSERT INTO items SELECT pg_terminate_backend(pg_backend_pid())::int"
    with pytest.raises(errors.CommitOutcomeUnknown):
        await router.execute(kill, tenant=A)
    assert await router.fetch_value("SELECT current_schema()", tenant=B) == B


async def test_what_runs_in_no_transaction_runs(place: Place, router: Router) -> None:
    """Messages ahead make one with it, which such a statement refuses before it has done anything."""
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    read = "SELECT who FROM items"
    for sql in ("VACUUM items", "REINDEX TABLE CONCURRENTLY items"):
        for tenant in TENANTS * 2:
            assert await router.fetch_value(read, tenant=tenant) == tenant
        for tenant in TENANTS * 2:
            await router.execute(sql, tenant=tenant)
    assert place.run("SELECT count(DISTINCT relid) FROM pg_stat_user_tables WHERE vacuum_count = 2") == "3"


async def execute(router: Router, sql: str, tenant: str) -> None:
    await router.execute(sql, {"n": "no number"}, tenant=tenant)


async def execute_many(router: Router, sql: str, tenant: str) -> None:
    await router.execute_many(sql, [{"n": 1}, {"n": "no number"}], tenant=tenant)


async def stream(router: Router, sql: str, tenant: str) -> None:
    query = sql.replace("INSERT INTO items VALUES (", "SELECT n FROM items WHERE n IN (")
    async for _ in router.stream(query, {"n": "no number"}, tenant=tenant):
        pass


@pytest.mark.parametrize("verb", [execute, execute_many, stream])
async def test_a_value_of_the_wrong_type_leaves_no_lock(place: Place, router: Router, verb: Any) -> None:
    """asyncpg prepares and does not end the transaction; nobody who changes the table waits for that."""
    place.fresh("CREATE TABLE items (n INT)")
    for number, tenant in enumerate((A, A, B)):
        with pytest.raises(errors.ParameterError):
            await verb(router, f"INSERT INTO items VALUES (:n + {number})", tenant)
        alter = f"SET lock_timeout = '2s'; ALTER TABLE {tenant}.items ADD COLUMN c{number} INT"
        await asyncio.to_thread(place.run, alter)  # a stream's connection is closed meanwhile


@WAYS
async def test_a_schema_dropped_after_it_was_verified_is_missed(
    place: Place, more: dict[str, Any], trusted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error that says so; a table of that name in a schema of extensions is not read instead."""
    monkeypatch.setattr(postgresql_along, "TRUSTED", trusted)
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    place.run(
        "DROP TABLE IF EXISTS helpers.items; CREATE TABLE helpers.items (who TEXT);"
        "INSERT INTO helpers.items VALUES ('everybody'); GRANT SELECT ON helpers.items TO router_app"
    )
    sql, counted = "SELECT who FROM items", "SELECT who FROM items WHERE length(who) > :n"
    async with place.open(**more) as router:
        for tenant in TENANTS * 2:
            assert await router.fetch_value(sql, tenant=tenant) == tenant
            assert await router.fetch_value(counted, {"n": 1}, tenant=tenant) == tenant
        place.run(f"DROP SCHEMA {B} CASCADE")
        for text in (sql, sql, "SELECT who AS never_prepared FROM items"):
            with pytest.raises(errors.DatabaseNotFound, match=B):
                await router.fetch_value(text, tenant=B)
            assert await router.fetch_value(sql, tenant=A) == A
        async with asyncio.timeout(5):  # the server skips all until a Sync, and asyncpg has nothing to send
            with pytest.raises((errors.DatabaseNotFound, errors.ParameterError)):
                await router.fetch_value(counted, {"n": "no number"}, tenant=B)
        assert await router.fetch_value(sql, tenant=A) == A
        place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('new {s}')")
        for tenant in TENANTS:
            assert await router.fetch_value(sql, tenant=tenant) == f"new {tenant}"


async def test_a_cancelled_statement_costs_the_session(place: Place, router: Router) -> None:
    """Nobody can know how a session is bound whose statement was cancelled: it is closed."""
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    for tenant in TENANTS * 2:
        assert await router.fetch_value("SELECT who FROM items", tenant=tenant) == tenant
    for tenant in TENANTS:
        task = asyncio.create_task(router.fetch_value("SELECT 1 FROM pg_sleep(5)", tenant=tenant))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for other in TENANTS:
            assert await router.fetch_value("SELECT who FROM items", tenant=other) == other


def test_a_verified_binding_is_trusted_for_a_minute() -> None:
    """It is verified again after that, at once if in doubt, and where more is to be undone."""
    trust, binding = Trust(), Binding("acme")
    assert not trust.holds(binding, 0.0)
    trust.add(binding, {"search_path": '"acme"'}, 100.0)
    assert trust.holds(binding, 159.0)
    assert not trust.holds(binding, 160.0)
    assert trust.ahead(binding, {"search_path"}, 101.0) is not None
    assert trust.ahead(binding, {"role"}, 101.0) is None
    trust.drop(binding)
    assert not trust.holds(binding, 101.0)
