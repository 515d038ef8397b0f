"""One random program of a session gives the same rows and the same error classes on every engine."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from router import Router, RouterError
from router.queries import Queries
from router.session import Session
from router.transaction import Transaction
from tests.engines import ENGINES, TENANTS, Engine, make

STEPS = 60
SEEDS = (*range(6), "new")  # the last one is another program at each run
WORDS = ("ant", "bee", "cat", "dog", "eel", "fox")


class Undo(Exception):
    """Leave a block on purpose."""


@dataclass
class Program:
    """Run random steps and write down what each of them gave.

    All choices come from ``rng`` and from what the steps themselves have done, never from an answer: so the
    same seed makes the same program on every engine, and traces can be compared line by line. A statement
    breaks one rule at most, since servers check several in different orders.
    """

    table: str
    rng: random.Random
    trace: list[Any] = field(default_factory=list)
    fresh: int = 10

    async def run(self, session: Session) -> None:
        """Run the whole program in one session."""
        await self.set_up(session)
        for _ in range(STEPS):
            if self.rng.random() < 0.25:
                await self.transaction(session)
            else:
                await self.step(session, may_fail=True)
            await self.look(session)

    async def set_up(self, session: Session) -> None:
        """Create the tables and two parents."""
        await session.execute(
            f"CREATE TABLE {self.table} (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE, "
            "n INT NOT NULL DEFAULT 0 CHECK (n >= 0))"
        )
        await session.execute(
            f"CREATE TABLE {self.table}_c (id INT PRIMARY KEY, parent INT NOT NULL, word VARCHAR(20), "
            f"FOREIGN KEY (parent) REFERENCES {self.table} (id))"
        )
        for number in (1, 2):
            await session.execute(
                f"INSERT INTO {self.table} VALUES (:i, :n, 0)", {"i": number, "n": f"p{number}"}
            )

    # --- blocks -----------------------------------------------------------------------------------------

    async def transaction(self, session: Session) -> None:
        """Run some steps in a transaction that ends in one of four ways."""
        end = self.rng.choice(["commit", "rollback", "error", "block"])
        try:
            async with session.transaction() as tx:
                await self.inside(tx, depth=0)
                if end == "commit":
                    await tx.commit()
                elif end == "rollback":
                    await tx.rollback()
                elif end == "error":
                    raise Undo
        except Undo:
            pass
        self.trace.append(("transaction", end))

    async def inside(self, tx: Transaction, depth: int) -> None:
        """Run steps in a transaction; what may fail runs in a savepoint, as PostgreSQL demands."""
        for _ in range(self.rng.randint(1, 4)):
            roll = self.rng.random()
            if roll < 0.3 and depth < 2:
                await self.savepoint(tx, depth)
            elif roll < 0.5:
                await self.failing_savepoint(tx)
            else:
                await self.step(tx, may_fail=False)
        await self.look(tx)

    async def savepoint(self, tx: Transaction, depth: int) -> None:
        undo = self.rng.random() < 0.5
        try:
            async with tx.savepoint():
                await self.inside(tx, depth + 1)
                if undo:
                    raise Undo
        except Undo:
            pass
        self.trace.append(("savepoint", undo))

    async def failing_savepoint(self, tx: Transaction) -> None:
        sql, params = self.fault()
        try:
            async with tx.savepoint():
                await self.step(tx, may_fail=False)
                await tx.execute(sql, params)
            self.trace.append((sql, "no error"))
        except RouterError as error:
            self.trace.append((sql, type(error).__name__))

    # --- statements -------------------------------------------------------------------------------------

    async def step(self, on: Queries, *, may_fail: bool) -> None:
        """Run one statement and note what it gave."""
        if may_fail and self.rng.random() < 0.35:
            sql, params = self.fault()
            await self.note(on, "execute", sql, params)
        elif self.rng.random() < 0.2:
            rows = [{"i": self.next(), "p": self.rng.choice([1, 2]), "w": word} for word in WORDS[:3]]
            if may_fail and self.rng.random() < 0.4:
                rows.insert(1, {"i": rows[0]["i"], "p": 1, "w": "twice"})
            await self.note_many(on, rows)
        else:
            sql, params = self.change()
            await self.note(on, "execute", sql, params)

    def next(self) -> int:
        """Return an id that was never used."""
        self.fresh += 1
        return self.fresh

    def change(self) -> tuple[str, dict[str, Any]]:
        """Return a statement that breaks no rule."""
        number, some = self.next(), self.rng.randint(1, 40)
        return self.rng.choice(
            [
                (
                    f"INSERT INTO {self.table} (id, name, n) VALUES (:id, :name, :n)",
                    {"id": number, "name": f"n{number}", "n": some},
                ),
                (
                    f"INSERT INTO {self.table}_c VALUES (:id, :parent, :word)",
                    {
                        "id": number,
                        "parent": self.rng.choice([1, 2]),
                        "word": self.rng.choice([*WORDS, None]),
                    },
                ),
                (f"UPDATE {self.table} SET n = n + :k WHERE id >= :some", {"k": 3, "some": some}),
                (f"UPDATE {self.table}_c SET word = :word WHERE id < :some", {"word": "new", "some": some}),
                (f"UPDATE {self.table} SET n = n WHERE id = :some", {"some": some}),
                (f"DELETE FROM {self.table}_c WHERE id = :some", {"some": some}),
                (f"DELETE FROM {self.table} WHERE id > 2 AND id = :some", {"some": some}),
            ]
        )

    def fault(self) -> tuple[str, dict[str, Any]]:
        """Return a statement that breaks exactly one rule."""
        number = self.next()
        insert = f"INSERT INTO {self.table} (id, name, n) VALUES (:id, :name, :n)"
        return self.rng.choice(
            [
                (insert, {"id": 1, "name": f"n{number}", "n": 1}),
                (insert, {"id": number, "name": "p1", "n": 1}),
                (insert, {"id": number, "name": None, "n": 1}),
                (insert, {"id": number, "name": f"n{number}", "n": -1}),
                (f"INSERT INTO {self.table}_c VALUES (:id, :p, 'x')", {"id": number, "p": 100_000}),
                (f"UPDATE {self.table} SET n = -5 WHERE id = 1", {}),
                (f"UPDATE {self.table} SET name = 'p2' WHERE id = 1", {}),
                (f"UPDATE {self.table}_c SET nope = 1", {}),
                (f"INSERT INTO {self.table}_none VALUES (1)", {}),
                (f"SELEKT * FROM {self.table}", {}),
            ]
        )

    async def note(self, on: Queries, verb: str, sql: str, params: dict[str, Any]) -> None:
        try:
            result = await getattr(on, verb)(sql, params)
            self.trace.append((sql, result.rowcount, len(result), result.columns))
        except RouterError as error:
            self.trace.append((sql, type(error).__name__))

    async def note_many(self, on: Queries, rows: list[dict[str, Any]]) -> None:
        try:
            await on.execute_many(f"INSERT INTO {self.table}_c VALUES (:i, :p, :w)", rows)
            self.trace.append(("many", len(rows)))
        except RouterError as error:
            self.trace.append(("many", type(error).__name__))

    async def look(self, on: Queries) -> None:
        """Read in several ways and note the rows."""
        joined = (
            f"SELECT p.id, p.name, count(c.id) AS many, coalesce(max(c.word), '-') AS word "
            f"FROM {self.table} p LEFT JOIN {self.table}_c c ON c.parent = p.id "
            "GROUP BY p.id, p.name ORDER BY p.id"
        )
        self.trace.append([tuple(row) for row in await on.fetch_all(joined)])
        self.trace.append(await on.fetch_value(f"SELECT sum(n) FROM {self.table} WHERE id > :i", {"i": 1}))
        one = await on.fetch_one(f"SELECT * FROM {self.table}_c ORDER BY id DESC LIMIT 1")
        self.trace.append(None if one is None else dict(one.items()))
        if self.rng.random() < 0.2:
            words = f"SELECT word FROM {self.table}_c WHERE word IS NOT NULL ORDER BY id"
            self.trace.append([row.word async for row in on.stream(words, batch=2)])
            prepared = await on.prepare(f"SELECT name FROM {self.table} WHERE id = :id")
            self.trace.append([await prepared.fetch_value({"id": number}) for number in (1, 2, -1)])


@pytest.fixture(scope="module")
def everywhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Engine]]:
    """Give all engines at once."""
    made = [make(name, tmp_path_factory.mktemp(name), request) for name in ENGINES]
    for each in made:
        each.create(*TENANTS)
    yield made
    for each in made:
        each.drop()


@pytest.fixture
async def routers(everywhere: list[Engine]) -> AsyncIterator[list[Router]]:
    """Open a router on each engine."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(each.open()) for each in everywhere]


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_same_program_gives_the_same_everywhere(
    everywhere: list[Engine], routers: list[Router], seed: int | str
) -> None:
    """Rows, row counts, columns of writes and error classes are equal, step by step."""
    number = random.randrange(10**6) if seed == "new" else int(seed)
    name = everywhere[0].name()
    traces = []
    for router in routers:
        program = Program(name, random.Random(number))
        async with router.session("acme") as session:
            await program.run(session)
        traces.append(program.trace)
    first, *others = traces
    assert len(first) > STEPS
    for engine, trace in zip(everywhere[1:], others, strict=True):
        for step, (here, there) in enumerate(zip(first, trace, strict=True)):
            assert here == there, f"seed {number}, step {step}: {everywhere[0].id} and {engine.id} differ"


async def test_programs_reach_what_they_are_for(everywhere: list[Engine], routers: list[Router]) -> None:
    """The programs of the fixed seeds provoke every error class and every end of a transaction."""
    seen: set[Any] = set()
    for seed in SEEDS[:-1]:
        program = Program(everywhere[0].name(), random.Random(seed))
        async with routers[0].session("acme") as session:
            await program.run(session)
        seen |= {entry[1] for entry in program.trace if isinstance(entry, tuple)}
    assert seen >= {
        "UniqueViolation", "ForeignKeyViolation", "NotNullViolation", "CheckViolation", "InvalidStatement",
        "commit", "rollback", "error", "block", True, False,
    }  # fmt: skip
