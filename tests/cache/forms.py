"""All the ways to write to a table, for the tests of what a write makes of cached answers."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router.session import Session
from tests.cache.looking import Stage
from tests.engines import POSTGRESQL, only

Form = Callable[[Stage, Session], Awaitable[None]]
forms: list[Any] = []


async def nothing(stage: Stage, session: Session) -> None:
    """Need no preparation."""


def form(*marks: pytest.MarkDecorator, ready: Form = nothing) -> Callable[[Form], Form]:
    """Have a function tested that changes the stage's table, after ``ready``."""

    def take(function: Form) -> Form:
        forms.append(pytest.param(ready, function, marks=marks, id=function.__name__))
        return function

    return take


# --- statements of their own -----------------------------------------------------------------------------


@form()
async def execute(stage: Stage, session: Session) -> None:
    await session.execute(stage.insert(10))


@form()
async def execute_many(stage: Stage, session: Session) -> None:
    sql = f"INSERT INTO {stage.table} (id, amount) VALUES (:n, :n)"
    await session.execute_many(sql, [{"n": 10}, {"n": 11}])


@form()
async def execute_raw(stage: Stage, session: Session) -> None:
    await session.execute_raw(f"{stage.insert(10)}; {stage.insert(11)}")


@form()
async def returning(stage: Stage, session: Session) -> None:
    assert await session.fetch_value(f"{stage.insert(10)} RETURNING id") == 10


@form()
async def returning_asked_to_be_cached(stage: Stage, session: Session) -> None:
    assert await session.fetch_value(f"{stage.insert(10)} RETURNING id", cache=60) == 10


@form()
async def prepared(stage: Stage, session: Session) -> None:
    await (await session.prepare(stage.insert(10))).execute()


@form()
async def streamed(stage: Stage, session: Session) -> None:
    async for row in session.stream(f"{stage.insert(10)} RETURNING id"):
        assert row.id == 10


@form()
async def update_through_an_alias(stage: Stage, session: Session) -> None:
    if stage.engine.dialect == "mysql":
        await session.execute(f"UPDATE {stage.table} AS x SET x.amount = 7")
    else:
        await session.execute(f"UPDATE {stage.table} AS x SET amount = 7")


@form()
async def insert_select(stage: Stage, session: Session) -> None:
    await session.execute(
        f"INSERT INTO {stage.table} (id, amount) SELECT id + 100, amount FROM {stage.beside}"
    )


@form(only("sqlite", "mariadb"))
async def replace(stage: Stage, session: Session) -> None:
    await session.execute(f"REPLACE INTO {stage.table} (id, amount) VALUES (1, 50)")


@form(POSTGRESQL)
async def merge(stage: Stage, session: Session) -> None:
    await session.execute(
        f"MERGE INTO {stage.table} AS t USING {stage.beside} AS b ON t.id = b.id "
        "WHEN MATCHED THEN UPDATE SET amount = 9"
    )


@form(POSTGRESQL)
async def writing_cte(stage: Stage, session: Session) -> None:
    await session.fetch_all(
        f"WITH gone AS (DELETE FROM {stage.table} RETURNING id) "
        f"SELECT * FROM {stage.beside} NATURAL JOIN gone"
    )


@form(only("sqlite", "postgresql", "postgresql-schema"))
async def cte_of_the_same_name(stage: Stage, session: Session) -> None:
    await session.execute(
        f"WITH {stage.table} AS (SELECT 10 AS id) "
        f"INSERT INTO {stage.table} (id, amount) SELECT 30 + id, 1 FROM {stage.beside}"
    )


@form(only("postgresql", "postgresql-schema", "mariadb"))
async def truncate(stage: Stage, session: Session) -> None:
    await session.execute(f"TRUNCATE TABLE {stage.table}")


@form()
async def ddl(stage: Stage, session: Session) -> None:
    await session.execute(f"ALTER TABLE {stage.table} RENAME TO {stage.table}_old")
    await session.execute(f"CREATE TABLE {stage.table} (id INT PRIMARY KEY, amount INT)")


# --- units of work ---------------------------------------------------------------------------------------


@form()
async def transaction(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        await tx.execute(stage.insert(10))


@form()
async def run(stage: Stage, session: Session) -> None:
    async def work(tx: Any) -> None:
        await tx.execute_many(
            f"INSERT INTO {stage.table} (id, amount) VALUES (:n, :n)", [{"n": 10}, {"n": 11}]
        )

    await session.run(work)


@form()
async def begin_and_commit(stage: Stage, session: Session) -> None:
    await session.begin()
    await session.execute(stage.insert(10))
    await session.commit()


@form()
async def savepoint_rolled_back(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        await tx.execute(stage.insert(10))
        with suppress(ZeroDivisionError):
            async with tx.savepoint():
                await tx.execute(stage.insert(11))
                raise ZeroDivisionError


@form(POSTGRESQL)
async def ddl_in_a_transaction(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        await tx.execute(f"DROP TABLE {stage.table}")
        await tx.execute(f"CREATE TABLE {stage.table} (id INT PRIMARY KEY, amount INT)")


@form()
async def orm_add(stage: Stage, session: Session) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = stage.table
        id: Mapped[int] = mapped_column(primary_key=True)
        amount: Mapped[int]

    async with session.orm() as orm:
        orm.add(Thing(id=10, amount=5))
        await orm.commit()
        orm.add(Thing(id=11, amount=5))


@form()
async def orm_in_a_transaction(stage: Stage, session: Session) -> None:
    async with session.transaction(), session.orm() as orm:
        await orm.execute(sa.text(stage.insert(10)))


@form()
async def core_insert(stage: Stage, session: Session) -> None:
    table = sa.table(stage.table, sa.column("id"), sa.column("amount"))
    await session.execute(sa.insert(table).values(id=10, amount=10))


@form()
async def core_insert_in_orm(stage: Stage, session: Session) -> None:
    table = sa.table(stage.table, sa.column("id"), sa.column("amount"))
    async with session.orm() as orm:
        await orm.execute(sa.insert(table), [{"id": 10, "amount": 1}, {"id": 11, "amount": 1}])


@form()
async def lent_connection(stage: Stage, session: Session) -> None:
    async with session.connection() as lease:
        driver = lease.connection.driver_connection
        if stage.engine.dialect == "mysql":
            async with driver.cursor() as cursor:
                await cursor.execute(stage.insert(10))
            await driver.commit()
        else:
            await driver.execute(stage.insert(10))
            if stage.engine.dialect == "sqlite":
                await driver.commit()


# --- code in the database --------------------------------------------------------------------------------


@form(POSTGRESQL)
async def do_block(stage: Stage, session: Session) -> None:
    await session.execute(f"DO $$BEGIN {stage.insert(10)}; END$$")


async def procedure(stage: Stage, session: Session) -> None:
    await session.execute(f"CREATE PROCEDURE p_{stage.table}() LANGUAGE sql AS $${stage.insert(10)}$$")


@form(POSTGRESQL, ready=procedure)
async def call(stage: Stage, session: Session) -> None:
    await session.execute(f"CALL p_{stage.table}()")


@form(POSTGRESQL, ready=procedure)
async def call_in_a_transaction(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        await tx.execute(f"CALL p_{stage.table}()")


async def function(stage: Stage, session: Session) -> None:
    await session.execute(
        f"CREATE FUNCTION f_{stage.table}() RETURNS int LANGUAGE plpgsql AS "
        f"$$BEGIN {stage.insert(10)}; RETURN 1; END$$"
    )


@form(POSTGRESQL, ready=function)
async def function_in_a_select(stage: Stage, session: Session) -> None:
    assert await session.fetch_value(f"SELECT f_{stage.table}()", cache=60) == 1


@form(POSTGRESQL, ready=function)
async def function_in_a_transaction(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        assert await tx.fetch_value(f"SELECT f_{stage.table}()") == 1


@form(POSTGRESQL, ready=function)
async def function_in_orm(stage: Stage, session: Session) -> None:
    async with session.orm() as orm:
        assert await orm.scalar(sa.text(f"SELECT f_{stage.table}()")) == 1


@form(POSTGRESQL, ready=function)
async def function_of_core_in_orm(stage: Stage, session: Session) -> None:
    async with session.orm() as orm:
        assert await orm.scalar(sa.select(getattr(sa.func, f"f_{stage.table}")())) == 1


@form(POSTGRESQL, ready=function)
async def function_of_core(stage: Stage, session: Session) -> None:
    assert await session.fetch_value(sa.select(getattr(sa.func, f"f_{stage.table}")())) == 1


TRIGGERED = only("sqlite", "postgresql", "postgresql-schema")  # MariaDB's app may not make any


async def trigger_by(stage: Stage, run: Callable[[str], Awaitable[Any]]) -> None:
    """Let a write of the table beside change the stage's table, which no text says."""
    body = f"INSERT INTO {stage.table} (id, amount) VALUES (NEW.id + 50, 1)"
    made = f"CREATE TRIGGER g_{stage.table} AFTER INSERT ON {stage.beside} FOR EACH ROW"
    if stage.engine.dialect == "sqlite":
        await run(f"{made} BEGIN {body}; END")
        return
    await run(
        f"CREATE FUNCTION g_{stage.table}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN {body}; RETURN NEW; END$$"
    )
    await run(f"{made} EXECUTE FUNCTION g_{stage.table}()")


async def trigger(stage: Stage, session: Session) -> None:
    await trigger_by(stage, session.execute)


async def trigger_of_a_transaction(stage: Stage, session: Session) -> None:
    async with session.transaction() as tx:
        await trigger_by(stage, tx.execute)


async def trigger_of_orm(stage: Stage, session: Session) -> None:
    async with session.orm() as orm:
        await trigger_by(stage, lambda text: orm.execute(sa.text(text)))


for ready in (trigger, trigger_of_a_transaction, trigger_of_orm):

    @form(TRIGGERED, ready=ready)
    async def write_beside(stage: Stage, session: Session) -> None:
        await session.execute(stage.insert(10, stage.beside))


async def view(stage: Stage, session: Session) -> None:
    name = f"v_{stage.table}"
    await session.execute(f"CREATE VIEW {name} AS SELECT id, amount FROM {stage.table}")
    if stage.engine.dialect == "sqlite":  # views there are written by triggers only
        await session.execute(
            f"CREATE TRIGGER w_{name} INSTEAD OF INSERT ON {name} BEGIN "
            f"INSERT INTO {stage.table} (id, amount) VALUES (NEW.id, NEW.amount); END"
        )


@form(ready=view)
async def through_a_view(stage: Stage, session: Session) -> None:
    await session.execute(stage.insert(10, f"v_{stage.table}"))
