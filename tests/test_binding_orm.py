"""SQLAlchemy's Core and ORM as tenants of all models, over one connection and through PgBouncer."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, update
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router import Router, errors
from tests.conftest import start_or_skip
from tests.isolation import MOODS, TENANTS, Pooled
from tests.servers import PostgresqlCluster

#: One type to the application; in each schema it has another value, and another number.
MOOD = ENUM(*MOODS.values(), name="mood", create_type=False)
OWNED = Table("owned", MetaData(), Column("tenant", Text), Column("n", Integer), Column("feels", MOOD))


class Base(DeclarativeBase):
    """Gather the tables."""


class Note(Base):
    """Map a table that each tenant has, or shares."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    text: Mapped[str]


@pytest.fixture(scope="module")
def isolated(postgresql: PostgresqlCluster) -> Iterator[Pooled]:
    """Make tenants of all models, each with a table of notes, or with a part of one."""
    made = start_or_skip(lambda: Pooled(postgresql, 1))
    columns = "id SERIAL PRIMARY KEY, tenant TEXT, text TEXT"
    for place in ("shared", "public"):
        made.run(
            f"CREATE TABLE {place}.note ({columns});"
            f"GRANT ALL ON {place}.note, {place}.note_id_seq TO router_app;"
            f"ALTER TABLE {place}.note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            f"CREATE POLICY own ON {place}.note"
            " USING (tenant = NULLIF(current_setting('app.tenant', true), ''))"
        )
    for place in MOODS:
        made.run(f"SET ROLE {made.roles.get(place, 'router_app')}; CREATE TABLE {place}.note ({columns})")
    yield made
    made.drop()


@pytest.fixture(params=["direct", "pooled"])
async def router(request: pytest.FixtureRequest, isolated: Pooled) -> AsyncIterator[Router]:
    """Open a router with one connection, or two that share one session of PgBouncer."""
    pooled = request.param == "pooled"
    config = isolated.config(
        connections=2 if pooled else 1, **({"cluster": isolated.through()} if pooled else {})
    )
    async with Router.open(config) as opened:
        yield opened


async def test_core_goes_where_the_tenant_is(router: Router, isolated: Pooled) -> None:
    """Constructs outside and inside of transactions, with a type of which each schema has its own."""
    for tenant in (*TENANTS, *reversed(TENANTS)):
        own, session = isolated.key(tenant), router.session(tenant)
        given: dict[str, Any] = {"n": 7}
        columns = [OWNED.c.tenant]
        if tenant in MOODS:
            given["feels"] = MOODS[tenant]
            columns.append(OWNED.c.feels)
        await session.execute(insert(OWNED).values(**given))
        await session.execute_many(insert(OWNED), [{"n": 8}, {"n": 9}])
        rows = await session.fetch_all(select(*columns).where(OWNED.c.n >= 7))
        assert {row.tenant for row in rows} == {own}
        assert {row.feels for row in rows if tenant in MOODS} <= {MOODS.get(tenant)}
        async with session.transaction() as tx:
            changed = await tx.execute(update(OWNED).where(OWNED.c.n == 8).values(n=10))
            assert changed.rowcount > 0
            assert {row.tenant for row in await tx.fetch_all(select(OWNED.c.tenant))} == {own}
            await tx.rollback()
        if tenant in MOODS:
            other = next(mood for mood in MOODS.values() if mood != MOODS[tenant])
            with pytest.raises(errors.DataError):  # the type is the schema's own
                await session.execute(insert(OWNED).values(n=1, feels=other))


async def test_the_orm_works_where_the_tenant_is(router: Router, isolated: Pooled) -> None:
    """Several commits, a rollback, an error and a joined transaction in one session: all is the tenant's."""
    for tenant in (*TENANTS, *reversed(TENANTS)):
        own, session = isolated.key(tenant), router.session(tenant)
        async with session.orm() as orm:
            note = Note(tenant=own, text="one")
            orm.add(note)
            await orm.commit()
            note.text, number = "two", note.id
            await orm.commit()
            orm.add(Note(tenant=own, text="undone"))
            await orm.flush()
            await orm.rollback()
            assert set(await orm.scalars(select(Note.tenant))) == {own}
            assert (await orm.get_one(Note, number)).text == "two"
        if tenant not in MOODS:
            with pytest.raises(Exception, match="row-level security"):
                async with session.orm() as orm:
                    orm.add(Note(tenant="row_c", text="another's"))
        async with session.transaction() as tx, session.orm() as orm:
            orm.add(Note(tenant=own, text="joined"))
            await orm.flush()
            assert set(await orm.scalars(select(Note.text))) >= {"joined", "two"}
            assert await tx.fetch_value("SELECT count(*) FROM note WHERE text = 'joined'") > 0
            await tx.rollback()
        async with session.orm(readonly=True) as orm:
            assert await orm.scalar(select(func.count()).where(Note.text == "undone")) == 0


async def test_statements_of_tenants_by_row_stay_prepared(isolated: Pooled) -> None:
    """Between two that share their tables SQLAlchemy prepares nothing anew; between schemas it must."""
    async with Router.open(isolated.config()) as router:

        async def prepared(tenant: str) -> list[int]:
            async with router.session(tenant).transaction() as tx:
                rows = await tx.fetch_all(select(OWNED.c.tenant))
                assert {row.tenant for row in rows} == {isolated.key(tenant)}
                kept = tx.unit.lease.connection.record.dbapi_connection._prepared_statement_cache
                return [id(each[0]) for each in kept.values()]

        first = await prepared("row_a")
        assert await prepared("row_b") == first
        assert await prepared("schema_a") != first
