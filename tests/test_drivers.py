"""Drivers: every portable error class, provoked on every engine, with its context and without values."""

import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from router import Router, errors, predicates
from router.errors import RouterError, Sent
from router.events import ConnectionFailed, RequestFailed, RetryScheduled
from tests.engines import ENGINES, SERVED, Engine, Mariadb, Recorder, only
from tests.servers.process import free_port

CANARY = "bound-canary-7"


class Tables(NamedTuple):
    parent: str
    child: str


@pytest.fixture
async def tables(router: Router, engine: Engine) -> Tables:
    """Create a parent with every kind of constraint and a child that refers to it."""
    parent, child = engine.name(), engine.name()
    async with router.session("acme") as session:
        await session.execute(
            f"CREATE TABLE {parent} (id INTEGER PRIMARY KEY, name VARCHAR(20) UNIQUE, "
            "label VARCHAR(20) NOT NULL DEFAULT 'x', n INT CHECK (n > 0))"
        )
        await session.execute(
            f"CREATE TABLE {child} (id INTEGER PRIMARY KEY, parent INT, "
            f"FOREIGN KEY (parent) REFERENCES {parent} (id))"
        )
        await session.execute(f"INSERT INTO {parent} (id, name, n) VALUES (1, :name, 1)", {"name": CANARY})
        await session.execute(f"INSERT INTO {child} VALUES (1, 1)")
    return Tables(parent, child)


class Case(NamedTuple):
    sql: str
    params: dict[str, Any]
    error: type[RouterError]
    predicate: Callable[[BaseException], bool] | None
    codes: dict[str, set[str]]  # by dialect; an engine without the error is left out


CASES = {
    "unique": Case(
        "INSERT INTO {parent} (id, name) VALUES (:id, :name)",
        {"id": 2, "name": CANARY},
        errors.UniqueViolation,
        predicates.is_unique_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_UNIQUE"}, "postgresql": {"23505"}, "mysql": {"1062"}},
    ),
    "primary key": Case(
        "INSERT INTO {parent} (id, name) VALUES (:id, :name)",
        {"id": 1, "name": CANARY + "b"},
        errors.UniqueViolation,
        predicates.is_unique_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_PRIMARYKEY"}, "postgresql": {"23505"}, "mysql": {"1062"}},
    ),
    "missing parent": Case(
        "INSERT INTO {child} VALUES (:id, :parent)",
        {"id": 2, "parent": 4711},
        errors.ForeignKeyViolation,
        predicates.is_foreign_key_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_FOREIGNKEY"}, "postgresql": {"23503"}, "mysql": {"1452"}},
    ),
    "referenced parent": Case(
        "DELETE FROM {parent} WHERE name = :name",
        {"name": CANARY},
        errors.ForeignKeyViolation,
        predicates.is_foreign_key_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_FOREIGNKEY"}, "postgresql": {"23503"}, "mysql": {"1451"}},
    ),
    "not null": Case(
        "INSERT INTO {parent} (id, name, label) VALUES (2, :name, :label)",
        {"name": CANARY + "b", "label": None},
        errors.NotNullViolation,
        predicates.is_not_null_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_NOTNULL"}, "postgresql": {"23502"}, "mysql": {"1048"}},
    ),
    "check": Case(
        "UPDATE {parent} SET n = :n WHERE name = :name",
        {"n": -47114711, "name": CANARY},
        errors.CheckViolation,
        predicates.is_check_violation,
        {"sqlite": {"SQLITE_CONSTRAINT_CHECK"}, "postgresql": {"23514"}, "mysql": {"4025"}},
    ),
    "syntax": Case(
        "SELEKT :name FROM {parent}",
        {"name": CANARY},
        errors.InvalidStatement,
        None,
        {"sqlite": {"SQLITE_ERROR"}, "postgresql": {"42601"}, "mysql": {"1064"}},
    ),
    "unknown table": Case(
        "SELECT * FROM nowhere WHERE a = :a",
        {"a": CANARY},
        errors.InvalidStatement,
        None,
        {"sqlite": {"SQLITE_ERROR"}, "postgresql": {"42P01"}, "mysql": {"1146"}},
    ),
    "unknown column": Case(
        "UPDATE {parent} SET nope = :name",
        {"name": CANARY},
        errors.InvalidStatement,
        None,
        {"sqlite": {"SQLITE_ERROR"}, "postgresql": {"42703"}, "mysql": {"1054"}},
    ),
    "unknown function": Case(
        "SELECT no_such_function(:name)",
        {"name": CANARY},
        errors.InvalidStatement,
        None,
        {"sqlite": {"SQLITE_ERROR"}, "postgresql": {"42883"}, "mysql": {"1305"}},
    ),
    "too long": Case(
        "UPDATE {parent} SET name = :name",
        {"name": CANARY * 9},
        errors.DataError,
        None,
        {"postgresql": {"22001"}, "mysql": {"1406"}},
    ),
    "out of range": Case(
        "UPDATE {parent} SET n = n + 2147483647",
        {},
        errors.DataError,
        None,
        {"postgresql": {"22003"}, "mysql": {"1264"}},
    ),
    "wrong type": Case(
        "INSERT INTO {parent} (id) VALUES ('bound-canary-7')",
        {},
        errors.DataError,
        None,
        {"sqlite": {"SQLITE_MISMATCH"}, "postgresql": {"22P02"}, "mysql": {"1366"}},
    ),
    "permission": Case(
        "CREATE ROLE router_test_role",
        {},
        errors.PermissionDenied,
        None,
        {"postgresql": {"42501"}},
    ),
    "privilege": Case("FLUSH LOGS", {}, errors.PermissionDenied, None, {"mysql": {"1227"}}),
}
PREDICATES = (
    predicates.is_unique_violation,
    predicates.is_foreign_key_violation,
    predicates.is_not_null_violation,
    predicates.is_check_violation,
    predicates.is_deadlock,
    predicates.is_serialization_failure,
    predicates.is_timeout,
    predicates.is_connection_lost,
    predicates.is_read_only,
    predicates.is_retryable,
)


def check_silent(error: BaseException, *values: str) -> None:
    """Assert that no value is in what an error shows, nor in what it is chained to."""
    seen: BaseException | None = error
    while seen is not None:
        for value in (CANARY, "canary", *values):
            # a fingerprint may have any digits
            assert value not in (str(seen) + repr(seen)).replace(str(getattr(seen, "fingerprint", "")), "")
        seen = seen.__cause__ or seen.__context__


def _engines(case: Case) -> list[str]:
    return [name for name in ENGINES if (Mariadb.dialect if name == "mariadb" else name[:10]) in case.codes]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=only(*_engines(case))) for name, case in CASES.items()]
)
async def test_an_error_of_the_server(
    router: Router, engine: Engine, heard: Recorder, tables: Tables, name: str
) -> None:
    """The class, the code, exactly one predicate, the context, the event; and no value in any of them."""
    case = CASES[name]
    sql = case.sql.format(**tables._asdict())
    heard.clear()
    with pytest.raises(case.error) as caught:
        await router.execute(sql, case.params, tenant="acme", primary=True)
    error = caught.value
    assert error.code in case.codes[engine.dialect]
    assert [each for each in PREDICATES if each(error)] == ([case.predicate] if case.predicate else [])
    assert (error.tenant, error.cluster, error.node, error.schema) == ("acme", "main", "primary", None)
    assert (error.sent, error.attempts, bool(error.fingerprint)) == (Sent.ANSWERED, (), True)
    check_silent(error, "4711")
    (told,) = heard.of(RequestFailed)
    assert (told.error, told.code, told.fingerprint) == (case.error.__name__, error.code, error.fingerprint)
    assert CANARY not in repr(told).replace(told.sql, "")
    assert heard.of(RetryScheduled) == []
    assert await router.fetch_value(f"SELECT count(*) FROM {tables.parent}", tenant="acme", primary=True) == 1


async def test_violations_name_what_they_violate(router: Router, engine: Engine, tables: Tables) -> None:
    """constraint or column is set where the server names it."""
    found = {}
    for name in ("unique", "missing parent", "not null", "check"):
        case = CASES[name]
        with pytest.raises(errors.IntegrityError) as caught:
            await router.execute(case.sql.format(**tables._asdict()), case.params, tenant="acme")
        found[name] = (caught.value.constraint, caught.value.column)
    if engine.dialect != "sqlite":  # there a foreign key has no name in the message
        assert found["missing parent"][0] is not None
    assert "name" in str(found["unique"])
    assert found["not null"][1] == "label"
    assert found["check"][0] is not None


@SERVED
async def test_a_lock_that_is_held(router: Router, tables: Tables) -> None:
    """NOWAIT on a locked row is LockTimeout: a timeout, and worth another try of the whole transaction."""
    lock = f"SELECT id FROM {tables.parent} WHERE id = 1 FOR UPDATE"
    async with router.session("acme") as one, router.session("acme") as two, one.transaction() as holder:
        await holder.fetch_all(lock)
        with pytest.raises(errors.LockTimeout) as caught:
            async with two.transaction() as waiter:
                await waiter.fetch_all(f"{lock} NOWAIT")
    assert predicates.is_timeout(caught.value)
    assert predicates.is_retryable(caught.value)


# --- connecting ------------------------------------------------------------------------------------------


def broken(engine: Engine, **change: Any) -> dict[str, Any]:
    """Return the cluster with its primary changed, and no replicas."""
    section = engine.cluster()
    return {"primary": {**section["primary"], **change}, "replicas": []}


async def refused(
    engine: Engine, cluster: dict[str, Any], kind: type[RouterError]
) -> tuple[RouterError, Recorder]:
    """Return how a request fails on a changed cluster; check what holds for every failed connect."""
    async with engine.open(cluster=cluster) as router:
        heard = Recorder(router)
        with pytest.raises(kind) as caught:
            await router.execute("INSERT INTO t VALUES (1)", tenant="acme")
        assert type(caught.value) is kind
        assert caught.value.sent is Sent.NO
        assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
        assert heard.of(ConnectionFailed)[-1].error == kind.__name__
        check_silent(caught.value, engine.server.primary.password("router_app"), "wrong-password")
        assert not any(pool.size for pool in router.status().pools)
        return caught.value, heard


@SERVED
async def test_a_wrong_password(engine: Engine) -> None:
    """AuthenticationFailed, at the first try, naming user and address and no password."""
    login = {"username": "router_app", "password": "wrong-password"}
    error, heard = await refused(
        engine, {**broken(engine), "credentials": {"writer": login}}, errors.AuthenticationFailed
    )
    assert error.code in ("28P01", "1045")
    assert "router_app" in str(error)
    assert predicates.is_connection_lost(error)
    assert heard.of(RetryScheduled) == []


@SERVED
async def test_an_unreachable_server(engine: Engine) -> None:
    """NoPrimary at once: no primary was ever seen, so the address is rather wrong than the server down."""
    port = free_port()
    async with engine.open(cluster=broken(engine, port=port)) as router:
        heard = Recorder(router)
        with pytest.raises(errors.NoPrimary) as caught:
            await router.execute("INSERT INTO t VALUES (1)", tenant="acme")
    assert str(port) in str(caught.value)
    assert predicates.is_connection_lost(caught.value)
    assert (caught.value.sent, caught.value.tenant, caught.value.cluster) == (Sent.NO, "acme", "main")
    check_silent(caught.value, engine.server.primary.password("router_app"))
    assert heard.of(RetryScheduled) == []


@SERVED  # SQLite creates a missing file
async def test_a_missing_database(engine: Engine) -> None:
    """DatabaseNotFound for a tenant whose place was never created; the tenants beside it are served."""
    tenant = f"nobody{secrets.token_hex(2)}"
    async with engine.open(tenants=("acme", tenant)) as router:
        with pytest.raises(errors.DatabaseNotFound) as caught:
            await router.fetch_all("SELECT 1", tenant=tenant, readonly=True)
        assert predicates.is_connection_lost(caught.value)
        assert caught.value.tenant == tenant
        assert await router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
