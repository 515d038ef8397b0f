"""SQLAlchemy over the same connections: the ORM's unit of work and Core constructs on every engine."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from router import Router, predicates
from router.errors import ConnectionLost, NotNullViolation, RouterError, UniqueViolation
from router.events import ConnectionOpened, RequestFailed, TransactionCommitted, TransactionRolledBack
from tests.engines import POSTGRESQL, Engine, Recorder, only


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.title")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(50))
    cover: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


AUTHORS: Any = Author.__table__


@pytest.fixture
async def library(router: Router, engine: Engine) -> Router:
    """Create the mapped tables for acme, empty, and have the replicas know them."""
    async with router.session("acme") as session:
        async with session.orm() as orm:
            connection = await orm.connection()
            await connection.run_sync(Base.metadata.create_all)
        await session.execute("DELETE FROM books")
        await session.execute("DELETE FROM authors")
    return router


async def author_names(router: Router) -> list[str]:
    """Return the committed names as text SQL sees them on the primary."""
    rows = await router.fetch_all("SELECT name FROM authors ORDER BY name", tenant="acme", primary=True)
    return [row.name for row in rows]


# --- the unit of work ------------------------------------------------------------------------------------


async def test_the_block_commits(library: Router, heard: Recorder) -> None:
    """Objects added in the block are there after it; keys are generated; one commit is told."""
    async with library.session("acme") as session:
        heard.clear()
        async with session.orm() as orm:
            assert isinstance(orm, AsyncSession)
            ann = Author(name="ann", books=[Book(title="b2", cover=bytes(range(256))), Book(title="b1")])
            orm.add(ann)
            await orm.flush()
            assert ann.id is not None
            assert await author_names_inside(orm) == ["ann"]
        assert len(heard.of(TransactionCommitted)) == 1
        assert ann.name == "ann"  # not expired: usable after the block
    assert await author_names(library) == ["ann"]
    assert await library.fetch_value(
        "SELECT cover FROM books WHERE title = 'b2'", tenant="acme", primary=True
    ) == (bytes(range(256)))


async def author_names_inside(orm: AsyncSession) -> list[str]:
    """Return the names that the unit of work itself sees."""
    return list(await orm.scalars(sa.select(Author.name).order_by(Author.name)))


async def test_an_error_rolls_the_block_back(library: Router, heard: Recorder) -> None:
    """An exception in the block leaves nothing behind."""
    async with library.session("acme") as session:
        with pytest.raises(ZeroDivisionError):
            async with session.orm() as orm:
                orm.add(Author(name="ann"))
                await orm.flush()
                _ = 1 / 0
    assert await author_names(library) == []
    assert heard.of(TransactionRolledBack)


async def test_several_commits_in_a_block(library: Router, heard: Recorder) -> None:
    """Each commit of the ORM's session is real; a rollback undoes only what came after the last."""
    async with library.session("acme") as session:
        heard.clear()
        async with session.orm() as orm:
            orm.add(Author(name="ann"))
            await orm.commit()
            assert await author_names_of_others(library) == ["ann"]
            orm.add(Author(name="bob"))
            await orm.flush()
            await orm.rollback()
            orm.add(Author(name="cid"))
            await orm.commit()
        assert (len(heard.of(TransactionCommitted)), len(heard.of(TransactionRolledBack))) == (2, 1)
    assert await author_names(library) == ["ann", "cid"]


async def author_names_of_others(router: Router) -> list[str]:
    """Return the committed names without the one writer of SQLite, which the block holds."""
    async with router.session("acme", consistency="eventual") as session:
        for _ in range(200):
            rows = await session.fetch_all("SELECT name FROM authors")
            if rows:
                break
    return [row.name for row in rows]


async def test_it_joins_an_open_transaction(library: Router) -> None:
    """In a transaction the ORM's commit flushes, and the transaction decides."""
    async with library.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute("INSERT INTO authors (name) VALUES ('text')")
            async with session.orm() as orm:
                assert await author_names_inside(orm) == ["text"]
                orm.add(Author(name="orm"))
                await orm.commit()
            assert await tx.fetch_value("SELECT count(*) FROM authors") == 2
            await tx.rollback()
        assert await author_names(library) == []
        async with session.transaction() as tx:
            async with session.orm() as orm:
                orm.add(Author(name="orm"))
            await tx.execute("INSERT INTO authors (name) VALUES ('text')")
    assert await author_names(library) == ["orm", "text"]


@pytest.mark.parametrize("core", [False, True], ids=["orm", "core"])
async def test_what_was_open_before_stays_open(engine: Engine, items: str, core: bool) -> None:
    """SQLAlchemy sets up a connection that it has never seen; that must not commit what is open on it."""
    async with engine.open() as fresh:
        session = fresh.session("acme")
        with pytest.raises(ZeroDivisionError):
            async with session.transaction() as tx:
                await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('text', 1)")
                if core:
                    await tx.execute(sa.insert(sa.table(items, sa.column("name"))).values(name="core"))
                else:
                    async with session.orm() as orm:
                        await orm.execute(sa.text(f"INSERT INTO {items} (name, amount) VALUES ('orm', 1)"))
                raise ZeroDivisionError
        assert await session.fetch_value(f"SELECT count(*) FROM {items}", primary=True) == 0


async def test_savepoints_of_the_orm(library: Router) -> None:
    """begin_nested() is a savepoint: a violation inside undoes only that."""
    async with library.session("acme") as session, session.orm() as orm:
        orm.add(Author(name="ann"))
        await orm.flush()
        with pytest.raises(IntegrityError):
            async with orm.begin_nested():
                orm.add(Author(name="ann"))
        orm.add(Author(name="bob"))
    assert await author_names(library) == ["ann", "bob"]


async def test_readonly_uses_a_replica(library: Router, engine: Engine, heard: Recorder) -> None:
    """readonly=True reads on one replica, and the database itself refuses a write there."""
    async with library.session("acme") as session, session.orm() as orm:
        orm.add(Author(name="ann"))
    await engine.settle()
    async with library.session("acme") as session:
        async with session.orm(readonly=True) as orm:
            assert await author_names_inside(orm) == ["ann"]
        assert heard.route == ("replica", "read_transaction")
        assert heard.last.node is not None
        assert heard.last.node.name in engine.replicas
        with pytest.raises(SQLAlchemyError) as caught:
            async with session.orm(readonly=True) as orm:
                orm.add(Author(name="bob"))
    assert predicates.is_read_only(caught.value)
    assert await author_names(library) == ["ann"]


async def test_relationships_load(library: Router) -> None:
    """Eager loading and explicit refresh work as in any AsyncSession."""
    async with library.session("acme") as session:
        async with session.orm() as orm:
            orm.add(Author(name="ann", books=[Book(title="b"), Book(title="a")]))
        async with session.orm() as orm:
            ann = (await orm.scalars(sa.select(Author).options(selectinload(Author.books)))).one()
            assert [book.title for book in ann.books] == ["a", "b"]
            book = (await orm.scalars(sa.select(Book).limit(1))).one()
            await orm.refresh(book, ["author"])
            assert book.author is ann


async def test_the_orm_s_errors_answer_to_our_predicates(library: Router, heard: Recorder) -> None:
    """SQLAlchemy raises its IntegrityError; our predicates and the failure event know what it is."""
    async with library.session("acme") as session:
        with pytest.raises(IntegrityError) as caught:
            async with session.orm() as orm:
                orm.add_all([Author(name="bound-canary"), Author(name="bound-canary")])
        assert predicates.is_unique_violation(caught.value)
        assert not predicates.is_foreign_key_violation(caught.value)
        failed = heard.of(RequestFailed)[-1]
        assert (failed.error, failed.tenant, failed.role.value) == ("UniqueViolation", "acme", "primary")
        assert "bound-canary" not in repr(failed)
        with pytest.raises(IntegrityError) as caught:
            async with session.orm() as orm:
                orm.add(Book(title="x", author_id=4711))
        assert predicates.is_foreign_key_violation(caught.value)
        with pytest.raises(IntegrityError) as caught:
            async with session.orm() as orm:
                await orm.execute(sa.insert(Author).values(id=1, name=None))
        assert predicates.is_not_null_violation(caught.value)
    assert await author_names(library) == []


async def test_statements_of_the_orm_are_told(library: Router, heard: Recorder) -> None:
    """Each statement is an event with text, kind, node and time, as any other."""
    async with library.session("acme", context_id="req-9") as session:
        heard.clear()
        async with session.orm() as orm:
            orm.add(Author(name="bound-canary"))
            await orm.flush()
            await orm.scalars(sa.select(Author.name).where(Author.name == "bound-canary"))
    written, read = heard.requests
    assert (written.kind, read.kind) == ("write", "read")
    assert written.sql.startswith("INSERT INTO authors")
    assert {event.context_id for event in heard.requests} == {"req-9"}
    assert all(event.fingerprint and event.total >= 0 and event.node for event in heard.requests)
    assert "bound-canary" not in repr(heard.requests)


# --- one set of connections ------------------------------------------------------------------------------


async def test_text_and_orm_share_the_physical_connections(engine: Engine) -> None:
    """With one connection per pool both paths use the very same one, and no other is opened."""
    async with engine.open(connections=1) as router:
        heard = Recorder(router)
        async with router.session("acme") as session:
            async with session.transaction() as tx:
                ours = tx.unit.lease.connection.driver_connection
            for _ in range(3):
                async with session.orm() as orm:
                    # not by get_raw_connection(): what that gives away is closed afterwards
                    shared = (await orm.connection()).sync_connection
                    assert shared is not None and shared.connection.driver_connection is ours
                assert await session.fetch_value("SELECT 1", primary=True) == 1
                core = await session.fetch_value(sa.select(sa.literal(5)), primary=True)
                assert core == 5
        opened = [event for event in heard.of(ConnectionOpened) if event.node.role == "primary"]
        assert len(opened) == 1


async def test_many_orm_blocks_at_once_stay_within_the_pool(engine: Engine) -> None:
    """SQLAlchemy never takes a connection that the pool did not lend, also under concurrency."""
    async with engine.open(connections=2) as router:
        name = engine.name()
        for tenant in ("acme", "globex"):
            await router.execute(f"CREATE TABLE {name} (who VARCHAR(20))", tenant=tenant)
        table = sa.table(name, sa.column("who"))

        async def work(tenant: str) -> None:
            async with router.session(tenant) as session, session.orm() as orm:
                await orm.execute(sa.insert(table).values(who=tenant))
                assert set(await orm.scalars(sa.select(table.c.who))) == {tenant}

        await asyncio.gather(*(work(("acme", "globex")[n % 2]) for n in range(20)))
        assert all(pool.size <= pool.max and not pool.in_use for pool in router.status().pools)
        for tenant in ("acme", "globex"):
            rows = await router.fetch_all(f"SELECT who FROM {name}", tenant=tenant, primary=True)
            assert [row.who for row in rows] == [tenant] * 10


@only("mariadb")
async def test_a_connection_that_is_closed_between_two_packets_is_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the router gives up on a server: SQLAlchemy's error and ours, not what aiomysql trips over."""
    import aiomysql

    send = aiomysql.Connection._execute_command
    async with engine.open(connections=1) as router:

        async def cut(raw: Any, command: int, sql: str | bytes) -> None:
            await send(raw, command, sql)
            if b"SELECT 7" in (sql if isinstance(sql, bytes) else sql.encode()):
                assert router._pools is not None
                router._pools.abort(router._backends["main"].cluster.primary)

        for use in (_by_orm, _by_core):
            assert await use(router, "SELECT 6") == 6
            monkeypatch.setattr(aiomysql.Connection, "_execute_command", cut)
            with pytest.raises((SQLAlchemyError, RouterError)) as caught:
                await use(router, "SELECT 7")
            assert isinstance(predicates.router_error(caught.value), ConnectionLost)
            monkeypatch.undo()
            assert await use(router, "SELECT 8") == 8


async def _by_orm(router: Router, sql: str) -> object:
    async with router.session("acme").orm() as orm:
        return (await orm.execute(sa.text(sql))).scalar()


async def _by_core(router: Router, sql: str) -> object:
    async with router.session("acme").transaction() as tx:
        return await tx.fetch_value(sa.text(sql))


# --- Core ------------------------------------------------------------------------------------------------


@POSTGRESQL
async def test_a_lost_connection_costs_the_orm_no_other(engine: Engine) -> None:
    """SQLAlchemy distrusts its whole pool after a loss; the connections that the ORM has met stay usable."""

    async def use(router: Router, sql: str) -> object:
        async with router.session("acme").orm() as orm:
            return (await orm.execute(sa.text(sql))).scalar()

    async with engine.open(connections=2) as router:
        await asyncio.gather(*(use(router, "SELECT 1 FROM pg_sleep(0.1)") for _ in range(2)))
        with pytest.raises(SQLAlchemyError) as caught:
            await use(router, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert isinstance(predicates.router_error(caught.value), ConnectionLost)
        assert [await use(router, "SELECT 1") for _ in range(3)] == [1, 1, 1]


async def test_core_constructs_run_as_text_does(library: Router, heard: Recorder) -> None:
    """insert, update, delete and select go where their text would go, with the same results."""
    async with library.session("acme") as session:
        result = await session.execute(sa.insert(AUTHORS).values(name="ann"))
        assert heard.route == ("primary", "write")
        assert (result.rowcount, isinstance(result.lastrowid, int)) == (1, True)
        await session.execute_many(sa.insert(AUTHORS), [{"name": "bob"}, {"name": "cid"}])
        updated = await session.execute(sa.update(AUTHORS).values(name="dan").where(AUTHORS.c.name == "cid"))
        removed = await session.execute(sa.delete(AUTHORS).where(AUTHORS.c.name == "bob"))
        assert (updated.rowcount, removed.rowcount) == (1, 1)
        rows = await session.fetch_all(
            sa.select(AUTHORS.c.id, AUTHORS.c.name).order_by(AUTHORS.c.name), primary=True
        )
        assert [row.name for row in rows] == ["ann", "dan"]
        assert (rows[0]["name"], rows[0][1], rows[0].id) == ("ann", "ann", result.lastrowid)


async def test_core_reads(library: Router, engine: Engine, heard: Recorder) -> None:
    """IN lists, bound parameters, labels and fetch forms; a select goes to a replica."""
    await library.execute_many(sa.insert(AUTHORS), [{"name": name} for name in "abcd"], tenant="acme")
    await engine.settle()
    async with library.session("acme") as session:
        some = sa.select(AUTHORS.c.name.label("who")).where(AUTHORS.c.name.in_(["a", "c", "x"]))
        rows = await session.fetch_all(some.order_by("who"))
        assert heard.route == ("replica", "read")
        assert [row.who for row in rows] == ["a", "c"]
        assert await session.fetch_all(sa.select(AUTHORS).where(AUTHORS.c.name.in_([]))) == []
        named = sa.select(AUTHORS.c.name).where(AUTHORS.c.name == sa.bindparam("n"))
        assert await session.fetch_value(named, {"n": "d"}) == "d"
        assert await session.fetch_one(named, {"n": "z"}) is None
        assert await session.fetch_value(sa.select(sa.func.count()).select_from(AUTHORS)) == 4
        summary = await session.execute(sa.select(AUTHORS.c.id, AUTHORS.c.name))
        assert ([column.name for column in summary.columns], len(summary)) == (["id", "name"], 4)


@only("sqlite", "postgresql", "postgresql-schema")
async def test_core_returning(library: Router, heard: Recorder) -> None:
    """RETURNING gives rows, and the statement is a write."""
    async with library.session("acme") as session:
        row = await session.fetch_one(
            sa.insert(AUTHORS).values(name="ann").returning(AUTHORS.c.id, AUTHORS.c.name)
        )
        assert row is not None
        assert row.name == "ann"
        assert heard.route == ("primary", "write")
        many = await session.fetch_all(
            sa.insert(AUTHORS).values([{"name": "b"}, {"name": "c"}]).returning(AUTHORS.c.name)
        )
        assert sorted(each.name for each in many) == ["b", "c"]
        assert await session.fetch_value(sa.select(sa.func.count()).select_from(AUTHORS), primary=True) == 3


async def test_core_in_a_transaction(library: Router) -> None:
    """A construct in a transaction is part of it."""
    async with library.session("acme") as session, session.transaction() as tx:
        await tx.execute(sa.insert(AUTHORS).values(name="ann"))
        assert await tx.fetch_value(sa.select(AUTHORS.c.name)) == "ann"
        await tx.rollback()
    assert await author_names(library) == []


async def test_core_errors_are_ours(library: Router) -> None:
    """Outside of the ORM a construct's failure is our error, with context and without values."""
    async with library.session("acme") as session:
        await session.execute(sa.insert(AUTHORS).values(name="bound-canary"))
        with pytest.raises(UniqueViolation) as caught:
            await session.execute(sa.insert(AUTHORS).values(name="bound-canary"))
        error = caught.value
        assert (error.tenant, error.node, bool(error.code), bool(error.fingerprint)) == (
            "acme", "primary", True, True,
        )  # fmt: skip
        assert "bound-canary" not in str(error) + repr(error)
        with pytest.raises(NotNullViolation):
            await session.execute(sa.insert(AUTHORS).values(id=5, name=None))
        with pytest.raises(RouterError):
            await session.fetch_all(sa.select(sa.column("nope")).select_from(AUTHORS))
        assert await session.fetch_value("SELECT count(*) FROM authors", primary=True) == 1


# --- another tenant's types ------------------------------------------------------------------------------


@POSTGRESQL
async def test_an_enum_of_the_same_name_in_each_schema(engine: Engine) -> None:
    """One connection serves schemas that each have an enum type and a table of the same name."""

    name = engine.name()
    # values in another order and number: a type or plan of the other schema would show
    values = {None: "'red', 'blue'", "analytics": "'pink', 'blue', 'red'"}
    kind: Any = sa.Enum("red", "blue", "pink", name=f"{name}_color", native_enum=True, create_type=False)
    table = sa.table(name, sa.column("id", sa.Integer), sa.column("color", kind))
    async with engine.open(connections=1) as router:
        for schema, words in values.items():
            async with router.session("acme", schema) as session:
                await session.execute(f"CREATE TYPE {name}_color AS ENUM ({words})")
                await session.execute(f"CREATE TABLE {name} (id INT, color {name}_color, place TEXT)")
                await session.execute(
                    f"INSERT INTO {name} (id, color, place) VALUES (1, 'blue', :p)", {"p": str(schema)}
                )
        for round_ in range(3):
            for schema in values:
                async with router.session("acme", schema) as session:
                    # first, and in a transaction: there a stale prepared statement cannot be made anew
                    async with session.transaction() as tx:
                        again = await tx.fetch_value(f"SELECT color FROM {name} WHERE id = 1")
                    assert again == "blue"
                    seen = await session.fetch_one(
                        f"SELECT color, place FROM {name} WHERE id = 1", primary=True
                    )
                    assert seen is not None
                    assert tuple(seen) == ("blue", str(schema))
                    prepared = await session.execute(f"SELECT color, place FROM {name}", primary=True)
                    assert prepared.rows[0].place == str(schema)
                    stored = await session.fetch_value(
                        sa.select(table.c.color).where(table.c.color == "blue"), primary=True
                    )
                    assert stored == "blue"
                    async with session.orm() as orm:
                        await orm.execute(sa.insert(table).values(id=10 + round_, color="red"))
                        reds = sa.select(sa.func.count()).select_from(table).where(table.c.color == "red")
                        assert await orm.scalar(reds) == round_ + 1
