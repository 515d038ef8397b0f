"""The demonstration: three tenants on SQLite, step by step; every step checks that it did what it says.

It knows nothing of terminals: what happens is told to a :class:`Teller`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router.capture import Failure, capture
from router.errors import InvalidStatement, RouterError, UnknownSchema, UnknownTenant
from router.events import RequestFailed, RequestFinished, RetryScheduled
from router.metrics import Summary
from router.predicates import is_unique_violation
from router.reasons import Reason
from router.router import Router
from router.status import Explanation, Status
from router.topology import Role
from router.transaction import Transaction

ROUTER_YAML = """\
version: 1
clusters:
  demo:
    engine: sqlite
    primary: {path: data}
    readers: 2
    balancing: round_robin   # readers take turns, so that both are seen
    options: {timeout: 0.05} # SQLite waits 50 ms for a lock; what follows is the router's
defaults:
  slow_query: 10s            # nothing is slow, but for the tenant that says otherwise
  retries: {attempts: 6, min_wait: 20ms, max_wait: 100ms}
"""

TENANT_YAML = """\
tenant: {tenant}
cluster: demo
isolation: database
database: {tenant}
schemas: {{analytics: {tenant}_analytics}}
"""

PLANS = {
    "acme": (("basic", 5), ("pro", 20), ("team", 50)),
    "globex": (("starter", 1), ("growth", 10)),
    "initech": (("flat", 100),),
}
"""The rows of each tenant's table ``plans``: name and seats."""

CREATE_PLANS = (
    "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, seats INTEGER NOT NULL)"
)
CREATE_VISITS = "CREATE TABLE visits (day TEXT PRIMARY KEY, hits INTEGER NOT NULL)"
ADD_PLAN = "INSERT INTO plans (name, seats) VALUES (:name, :seats)"
NAMES = "SELECT name FROM plans ORDER BY id"
SEATS = "SELECT seats FROM plans WHERE name = :name"
ADD_SEATS = "UPDATE plans SET seats = seats + :more WHERE name = :name"
COUNT_UP = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT max(i) FROM n"
)
LAST = 400_000  # rows that COUNT_UP makes: some tens of milliseconds, far over the threshold of 5 ms

Told = RequestFinished | RequestFailed


class Teller(Protocol):
    """Show what the demonstration does."""

    def step(self, number: int, title: str, text: str) -> None:
        """Begin a step."""

    def request(self, event: Told) -> None:
        """Show a request."""

    def retry(self, event: RetryScheduled) -> None:
        """Show that an attempt failed and another follows."""

    def explained(self, sql: str, found: Explanation) -> None:
        """Show where a statement would go."""

    def note(self, text: str) -> None:
        """Show what else there is to see."""

    def checked(self, fact: str, holds: bool) -> None:
        """Show that a fact was checked, and whether it holds."""

    def summary(self, totals: Summary, status: Status) -> None:
        """Show the totals and the pools."""


@dataclass(slots=True)
class Stage:
    """Hold the router, what it has told, and the facts that did not hold."""

    router: Router
    folder: Path
    teller: Teller
    requests: list[Told] = field(default_factory=list)  # of the whole demonstration
    told: list[Told] = field(default_factory=list)  # of the present step
    retries: list[RetryScheduled] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, fact: str, holds: bool) -> None:
        """Check one fact."""
        self.teller.checked(fact, holds)
        if not holds:
            self.broken.append(fact)

    def went(self, role: Role, reason: Reason) -> bool:
        """Tell whether every request of this step, and at least one, went to ``role`` for that reason."""
        return {(event.role, event.reason) for event in self.told} == {(role, reason)}

    def listen(self) -> None:
        """Subscribe to what is shown."""
        dispatcher = self.router.dispatcher
        dispatcher.subscribe(RequestFinished, self._on_request)
        dispatcher.subscribe(RequestFailed, self._on_request)
        dispatcher.subscribe(RetryScheduled, self._on_retry)

    def _on_request(self, event: Told) -> None:
        self.told.append(event)
        self.requests.append(event)
        self.teller.request(event)

    def _on_retry(self, event: RetryScheduled) -> None:
        self.retries.append(event)
        self.teller.retry(event)


class Step(NamedTuple):
    """Name a step, say what it shows, and how."""

    title: str
    text: str
    act: Callable[[Stage], Awaitable[None]]


async def _create(stage: Stage) -> None:
    for tenant in PLANS:
        await stage.router.execute(CREATE_PLANS, tenant=tenant)
        await stage.router.execute(CREATE_VISITS, tenant=tenant, schema="analytics")
    created = len(stage.told) == 6 and stage.went(Role.PRIMARY, Reason.DDL)
    stage.expect("6 tables created, all through the primary", created)
    files = sorted(path.name for path in (stage.folder / "data").glob("*.db"))
    stage.expect("each (tenant, schema) is a file of its own: 6 files", len(files) == 6)


async def _write(stage: Stage) -> None:
    keys, changed = [], 0
    for tenant, plans in PLANS.items():
        async with stage.router.session(tenant) as session:
            for name, seats in plans:
                keys.append((await session.execute(ADD_PLAN, {"name": name, "seats": seats})).lastrowid)
        days = [{"day": f"2025-01-0{day}", "hits": 100 * day} for day in range(1, len(plans) + 2)]
        changed += await stage.router.execute_many(
            "INSERT INTO visits (day, hits) VALUES (:day, :hits)", days, tenant=tenant, schema="analytics"
        )
    stage.expect("every INSERT went to the primary", stage.went(Role.PRIMARY, Reason.WRITE))
    stage.expect(
        "generated keys came back, and 9 rows in 3 batches", keys == [1, 2, 3, 1, 2, 1] and changed == 9
    )


async def _read(stage: Stage) -> None:
    faithful = True
    for _ in range(2):
        for tenant, plans in PLANS.items():
            async with stage.router.session(tenant) as session:
                names = [row.name for row in await session.fetch_all(NAMES)]
                count = await session.fetch_value("SELECT count(*) FROM plans")
            first, second = (event.node for event in stage.told[-2:])
            faithful &= first is second and names == [name for name, _ in plans] and count == len(plans)
    nodes = {event.node.name for event in stage.told if event.node}
    stage.expect("every read went to a reader", stage.went(Role.REPLICA, Reason.READ))
    stage.expect("both readers took part", nodes == {"reader-1", "reader-2"})
    stage.expect("each session read the right rows, and stayed on one reader", faithful)


async def _own_write(stage: Stage) -> None:
    async with stage.router.session("acme") as session:
        before = await session.fetch_value(SEATS, {"name": "basic"})
        await session.execute(ADD_SEATS, {"name": "basic", "more": 2})
        after = await session.fetch_value(SEATS, {"name": "basic"})
        strong = await session.fetch_value(SEATS, {"name": "basic"}, consistency="strong")
    stage.expect("the session saw its own write: 5, then 7", (before, after, strong) == (5, 7, 7))
    route = [event.role.value for event in stage.told]
    stage.expect(
        "a reader over WAL shows every commit, so it went on reading there; consistency='strong' did not",
        route == ["replica", "primary", "replica", "primary"] and stage.told[-1].reason is Reason.STRONG,
    )


async def _isolation(stage: Stage) -> None:
    seen = {}
    for tenant in PLANS:
        rows = await stage.router.fetch_all(NAMES, tenant=tenant)
        seen[tenant] = {row.name for row in rows}
    own = {tenant: {name for name, _ in plans} for tenant, plans in PLANS.items()}
    stage.expect("each tenant sees its own rows and nobody else's", seen == own)
    missed = await capture(stage.router.fetch_all(NAMES, tenant="acme", schema="analytics"))
    stage.expect(
        "the table is not there under another schema: InvalidStatement",
        isinstance(missed, Failure) and isinstance(missed.error, InvalidStatement),
    )


async def _transaction(stage: Stage) -> None:
    duplicate = False
    async with stage.router.session("globex") as session:
        async with session.transaction() as tx:
            await tx.execute(ADD_PLAN, {"name": "scale", "seats": 40})
            try:
                async with tx.savepoint():
                    await tx.execute(ADD_SEATS, {"name": "scale", "more": 1000})
                    await tx.execute(ADD_PLAN, {"name": "starter", "seats": 2})
            except RouterError as error:
                duplicate = is_unique_violation(error)
            inside = await session.fetch_value(SEATS, {"name": "scale"})
        stage.expect("one connection of the primary served it", stage.went(Role.PRIMARY, Reason.TRANSACTION))
        after = await session.fetch_value(SEATS, {"name": "scale"})
    stage.expect("the duplicate is a portable error: is_unique_violation(error)", duplicate)
    stage.expect("the savepoint undid its part only: 40 seats, committed", (inside, after) == (40, 40))


class _Base(DeclarativeBase):
    """Base of the demonstration's mapped class."""


class Plan(_Base):
    """Map the table ``plans``."""

    __tablename__ = "plans"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    seats: Mapped[int]


async def _sqlalchemy(stage: Stage) -> None:
    async with stage.router.session("initech") as session:
        total = await session.fetch_value(select(func.sum(Plan.seats)))
        core = stage.told[-1]
        async with session.orm() as orm:
            orm.add(Plan(name="open", seats=3))
        orm_events = stage.told[1:]
        names = [row.name for row in await session.fetch_all(NAMES)]
    stage.expect("a Core SELECT was routed to a reader like text", total == 100 and core.role is Role.REPLICA)
    stage.expect(
        "the ORM wrote through the same pools, on the primary",
        names == ["flat", "open"] and bool(orm_events) and all(e.role is Role.PRIMARY for e in orm_events),
    )


def _hold_lock(file: Path, taken: threading.Event, release: threading.Event) -> None:
    """Be another program: take the write lock, hold it until released, add a seat, commit."""
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("UPDATE plans SET seats = seats + 1 WHERE name = 'pro'")
        taken.set()
        release.wait(10)
        raw.execute("COMMIT")


async def _add_seats(tx: Transaction, name: str, more: int) -> int:
    await tx.execute(ADD_SEATS, {"name": name, "more": more})
    return int(await tx.fetch_value(SEATS, {"name": name}))


async def _busy(stage: Stage) -> None:
    taken, release = threading.Event(), threading.Event()
    freed = stage.router.dispatcher.subscribe(RetryScheduled, lambda event: release.set())
    other = asyncio.create_task(asyncio.to_thread(_hold_lock, stage.folder / "data/acme.db", taken, release))
    try:
        await asyncio.to_thread(taken.wait, 10)
        stage.teller.note("another program holds the write lock of acme.db until the first retry")
        async with stage.router.session("acme") as session:
            seats = await session.run(_add_seats, "pro", 10)
    finally:
        release.set()
        freed.cancel()
        await other
    busy = {event.error for event in stage.retries} == {"LockTimeout"}
    stage.expect(f"the file was busy (LockTimeout), and was tried again: {len(stage.retries)}x", busy)
    stage.expect("both changes are there: 20 + 1 of the other program + 10 = 31", seats == 31)


async def _slow(stage: Stage) -> None:
    made = await stage.router.fetch_value(COUNT_UP, {"last": LAST}, tenant="initech")
    known = stage.router.explain(COUNT_UP, tenant="initech").fingerprint
    found = [each for each in stage.router.slowlog.digests() if each.slow and each.fingerprint == known]
    for digest in found:
        stage.teller.note(f"slow-query log: {digest.maximum * 1e3:.1f} ms on {', '.join(digest.nodes)}")
    told = [list(digest.tenants) for digest in found] == [["initech"]]
    stage.expect("the query was reported, over this tenant's own threshold of 5 ms", made == LAST and told)


async def _explain(stage: Stage) -> None:
    for sql, role, reason in (
        ("SELECT * FROM plans WHERE seats > 10", Role.REPLICA, Reason.READ),
        ("UPDATE plans SET seats = 0", Role.PRIMARY, Reason.WRITE),
        ("WITH d AS (DELETE FROM plans RETURNING *) SELECT * FROM d", Role.PRIMARY, Reason.WRITING_CTE),
        ("SELECT charge_customer(7)", Role.PRIMARY, Reason.UNKNOWN_FUNCTION),
        ("SELECT 1; DROP TABLE plans", Role.PRIMARY, Reason.MULTIPLE_STATEMENTS),
    ):
        found = stage.router.explain(sql, tenant="acme")
        stage.teller.explained(sql, found)
        if (found.role, found.reason) != (role, reason):
            stage.expect(f"{sql!r} goes to the {role} ({reason})", False)
    stage.expect("every doubt ended at the primary, and nothing was run", not stage.told)


async def _refuse(stage: Stage) -> None:
    refused = True
    for tenant, schema, kind in (("nobody", None, UnknownTenant), ("acme", "billing", UnknownSchema)):
        outcome = await capture(stage.router.fetch_all("SELECT 1", tenant=tenant, schema=schema))
        if isinstance(outcome, Failure):
            stage.teller.note(f"{type(outcome.error).__name__}: {outcome.error}")
        refused &= isinstance(outcome, Failure) and isinstance(outcome.error, kind)
    stage.expect("an unknown tenant and an unknown schema are errors, never a default", refused)
    stage.expect("no request was made for them", not stage.told)


async def _sum_up(stage: Stage) -> None:
    totals, status = stage.router.metrics.summary(), stage.router.status()
    stage.teller.summary(totals, status)
    failed = sum(isinstance(event, RequestFailed) for event in stage.requests)
    stage.expect(
        f"the metrics counted what was shown: {len(stage.requests)} requests, {failed} failed",
        sum(totals["requests"].values()) == len(stage.requests)
        and totals["outcomes"].get("error") == failed == 2,
    )
    stage.expect("no connection is still in use", all(pool.in_use == 0 for pool in status.pools))


STEPS = (
    Step("Tables", "Three tenants, each with main and analytics. DDL goes to the primary.", _create),
    Step("Writes", "Parameters are :name on every engine. Writes go to the primary.", _write),
    Step("Reads", "A statement that is proven to change nothing goes to a reader.", _read),
    Step("Own writes", "A session sees what it wrote, wherever it reads.", _own_write),
    Step("Isolation", "The same statement, for each tenant.", _isolation),
    Step(
        "Transaction",
        "A savepoint undoes a part; a duplicate key is the same error everywhere.",
        _transaction,
    ),
    Step("SQLAlchemy", "Core constructs and the ORM use the same routes and the same pools.", _sqlalchemy),
    Step("Busy", "A conflict undoes the transaction; session.run() runs it whole again.", _busy),
    Step("Slow query", "Each tenant has a threshold; what takes longer is told.", _slow),
    Step("Explain", "Where would it go? Asked without running it.", _explain),
    Step("Refusals", "What is not configured does not exist.", _refuse),
    Step("Summary", "The same events, as metrics.", _sum_up),
)


async def run(teller: Teller) -> str | None:
    """Run the demonstration in a temporary folder; return ``None``, or which step failed and how."""
    logging.getLogger("router.slow").addHandler(logging.NullHandler())  # its line would cross the rows
    with tempfile.TemporaryDirectory(prefix="router-demo-") as name:
        folder = Path(name)
        write_config(folder)
        async with Router.open(folder) as router:
            stage = Stage(router, folder, teller)
            stage.listen()
            for number, step in enumerate(STEPS, 1):
                failed = await _run_step(stage, number, step)
                if failed is not None:
                    return f"{number} {step.title}: {failed}"
    return None


def write_config(folder: Path) -> None:
    """Write the configuration of the demonstration as the files that a user would write."""
    (folder / "router.yaml").write_text(ROUTER_YAML)
    (folder / "tenants").mkdir()
    for tenant in PLANS:
        own = "slow_query: 5ms\n" if tenant == "initech" else ""
        (folder / "tenants" / f"{tenant}.yaml").write_text(TENANT_YAML.format(tenant=tenant) + own)


async def _run_step(stage: Stage, number: int, step: Step) -> str | None:
    stage.told.clear()
    stage.teller.step(number, step.title, step.text)
    try:
        await step.act(stage)
    except Exception as exc:  # whatever stops a step is the demonstration's result
        what = str(exc) if isinstance(exc, RouterError) else ""
        stage.expect(f"stopped by {type(exc).__name__} {what}".rstrip(), False)
    return stage.broken[0] if stage.broken else None
