"""Prove that tenants are apart: many tasks, few connections, every abuse, and each answer is looked at."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from router.belongings import BASE, Belongings
from router.errors import TransactionConflict, UsageError
from router.router import Router
from router.session import Session
from router.visiting import Account, Place, Visit, Visitor
from router.visitors import VISITORS

_ROWS = 3  # of each tenant that are always there
_OWN = 5  # how often a visitor of the user's comes beside the others
_FILLING = 8  # tenants prepared at once
_SMOOTH = 0.02  # share of the latest visit in the pace


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Say what a leak check has seen; :attr:`ok` if nothing that must not be.

    ``foreign`` are rows of another tenant, ``missing`` own rows that an answer lacked or had twice,
    ``undone`` rows that were never committed, ``errors`` requests that failed and should not have.
    ``refused`` counts the errors that belong to the check, ``told`` is what went wrong first, in words.
    """

    seed: int
    tasks: int
    reads: int
    rows: int
    foreign: int
    missing: int
    undone: int
    errors: int
    visits: Mapping[str, int]
    refused: Mapping[str, int]
    told: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Tell whether every answer was the tenant's own, in full, and nothing failed."""
        return self.reads > 0 and not self.wrong and not self.errors

    @property
    def wrong(self) -> int:
        """Return how many rows were seen that must not be, or were not that must."""
        return self.foreign + self.missing + self.undone

    def __str__(self) -> str:
        counts = (
            f"{self.reads:,} reads of {self.rows:,} rows by {self.tasks:,} tasks: {self.foreign} rows of "
            f"another tenant, {self.missing} missing, {self.undone} not committed, {self.errors} errors"
        )
        return "\n  ".join([f"{counts} (seed {self.seed})", *self.told])


class LeakCheck:
    """Keep many visitors of many tenants busy, and account for what each tenant has.

    ``expected`` are errors that are part of the game, as where a test ends sessions on the server meanwhile.
    """

    def __init__(
        self,
        router: Router,
        tenants: Iterable[str],
        *,
        table: str = "leak_check",
        create: bool = True,
        visitors: Sequence[Visitor] = (),
        expected: tuple[type[Exception], ...] = (),
        seed: int | None = None,
    ) -> None:
        self.router = router
        self.tenants = tuple(tenants)
        if not self.tenants:
            raise UsageError("there is nobody to check. Name two tenants or more")
        if not table.isidentifier():
            raise UsageError(f"table is {table!r}, but must be a plain name. It is the visitors' own")
        self.account = Account()
        self.owned: dict[str, Belongings] = {}
        self.busy: Counter[str] = Counter()  # visits under way of each tenant
        self._table = table
        self._create = create
        self._visitors = VISITORS | dict.fromkeys(visitors, _OWN)
        self.expected: tuple[type[Exception], ...] = (
            TransactionConflict,
            *expected,
        )  # may be changed between two runs
        self._seed = random.randrange(1 << 32) if seed is None else seed  # noqa: S311  # to repeat a run
        self._rng = random.Random(self._seed)  # noqa: S311
        self._places: dict[str, Place] = {}
        self._neighbours: dict[str, list[Place]] = {}  # on each cluster
        self._filled: dict[str, Session] = {}  # what each tenant's readers must see

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """Give each tenant its rows, in a table of its own unless there is one, which goes at the end."""
        await self._each(self._fill)
        try:
            yield
        finally:
            if self._create:
                await self._each(self._drop)

    async def run(self, *, seconds: float | None = None, reads: int | None = None, tasks: int = 100) -> None:
        """Let ``tasks`` visitors come and go for so many seconds, or until so many answers were looked at."""
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        goal = None if reads is None else self.account.reads + reads

        async def come_and_go(rng: random.Random) -> None:
            while (end is None or loop.time() < end) and (goal is None or self.account.reads < goal):
                # a task of its own, as each request of an application has
                await asyncio.create_task(self._visit(rng))

        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(come_and_go(random.Random(self._rng.random())))  # noqa: S311

    async def look_again(self) -> None:
        """Look at all rows of every tenant, when nobody writes any more."""

        async def look(tenant: str) -> None:
            visit = self._made(tenant, self._rng)
            async with visit.session:
                await visit.read(primary=True)

        await self._each(look)

    def report(self) -> LeakReport:
        """Return what was seen so far."""
        account = self.account
        return LeakReport(
            self._seed,
            account.visits.total(),
            account.reads,
            account.rows,
            account.foreign,
            account.missing,
            account.undone,
            account.errors,
            dict(account.visits),
            dict(account.refused),
            tuple(account.told),
        )

    # --- one visit ---------------------------------------------------------------------------------------

    async def _visit(self, rng: random.Random) -> None:
        visitor = rng.choices(list(self._visitors), list(self._visitors.values()))[0]
        tenant, account = rng.choice(self.tenants), self.account
        clock = asyncio.get_running_loop().time
        began = clock()
        self.busy[tenant] += 1
        try:
            visit = self._made(tenant, rng)
            async with visit.session:
                await visitor(visit)
        except self.expected as error:
            account.refused[type(error).__name__] += 1
        except Exception as error:  # whatever it is: an application's request would have failed
            account.errors += 1
            account.tell(f"{tenant}: {visitor.__name__} failed: {error!r}")
        finally:
            self.busy[tenant] -= 1
        account.visits[visitor.__name__] += 1
        account.pace += _SMOOTH * (clock() - began - account.pace)

    def _made(self, tenant: str, rng: random.Random) -> Visit:
        place = self._places[tenant]
        return Visit(
            tenant,
            self.router.session(tenant, after=self._filled[tenant]),
            rng,
            place,
            self.owned[tenant],
            self.account,
            rng.choice(self._neighbours[place.home]),
            lambda: self._made(tenant, rng),
        )

    # --- before and after --------------------------------------------------------------------------------

    async def _each(self, work: Callable[[str], Awaitable[None]]) -> None:
        waiting = iter(self.tenants)

        async def some() -> None:
            for tenant in waiting:
                await work(tenant)

        async with asyncio.TaskGroup() as group:
            for _ in range(_FILLING):
                group.create_task(some())

    async def _fill(self, tenant: str) -> None:
        async with self.router.session(tenant) as session:  # a tenant may have to be looked up first
            place = self._places[tenant] = Place.of(session, self._table)
            self._neighbours.setdefault(place.home, []).append(place)
            if self._create:
                await session.execute(place.create)
            await session.execute(place.clear)
            owned = self.owned[tenant] = Belongings()
            rows = [{"tenant": tenant, "mark": BASE, "n": number} for number in range(_ROWS)]
            owned.attempt(BASE, _ROWS)
            await session.execute_many(place.insert, rows)
            owned.keep(BASE)
            self._filled[tenant] = session

    async def _drop(self, tenant: str) -> None:
        await self.router.execute(self._places[tenant].drop, tenant=tenant)


async def leak_check(
    router: Router,
    tenants: Iterable[str],
    *,
    seconds: float | None = 5.0,
    reads: int | None = None,
    tasks: int = 100,
    table: str = "leak_check",
    create: bool = True,
    visitors: Sequence[Visitor] = (),
    expected: tuple[type[Exception], ...] = (),
    seed: int | None = None,
) -> LeakReport:
    """Let many tasks do to their connections whatever an application may, and look at each row that they see.

    It ends after so many seconds, or once ``reads`` answers were looked at. Visitors write to ``table``,
    which is created for each tenant and dropped at the end; with ``create=False`` it is yours, with columns
    ``tenant``, ``mark`` and ``n``, and what a tenant has in it is deleted first. ``visitors`` are readers of
    your own, see :class:`Visit`; ``expected`` are errors that are no fault.

    Raises:
        UsageError: no tenants, or a table whose name is no plain word.
        RouterError: the visitors' tables could not be prepared.
    """
    check = LeakCheck(
        router, tenants, table=table, create=create, visitors=visitors, expected=expected, seed=seed
    )
    async with check.prepared():
        await check.run(seconds=seconds, reads=reads, tasks=tasks)
        await check.look_again()
    return check.report()
