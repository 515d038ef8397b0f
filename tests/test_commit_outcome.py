"""The answer to a COMMIT, or to a write, cut at every byte: what is reported is never wrong.

A call that returns means applied. CommitOutcomeUnknown means that nobody knows. Any other error means that
it was not applied and never will be. And whatever was reported, nothing is applied twice. The tests compare
what was reported with what is in the table, once no server works on it any more.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import text

from router import Router
from router.errors import CommitOutcomeUnknown, RouterError
from router.session import Session
from tests.engines import Engine, only
from tests.faults import Break, Cut, Direction
from tests.faults.cluster import Proxied
from tests.servers.process import wait_until

pytestmark = only("postgresql", "mariadb")


class Report(Enum):
    """What the caller was told."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


Arm = Callable[[], None]
Write = Callable[[Session, str, int, Arm], Awaitable[None]]


async def transaction(session: Session, table: str, number: int, arm: Arm) -> None:
    async with session.transaction() as tx:
        await tx.execute(f"INSERT INTO {table} (n) VALUES (:n)", {"n": number})
        arm()


async def function(session: Session, table: str, number: int, arm: Arm) -> None:
    async def work(tx: Any) -> None:
        await tx.execute(f"INSERT INTO {table} (n) VALUES (:n)", {"n": number})
        arm()

    await session.run(work)


async def autocommit(session: Session, table: str, number: int, arm: Arm) -> None:
    arm()
    await session.execute(f"INSERT INTO {table} (n) VALUES (:n)", {"n": number})


async def unprepared(session: Session, table: str, number: int, arm: Arm) -> None:
    """Write a text that the connection has not seen before, so that preparing it is cut too."""
    arm()
    await session.execute(f"INSERT INTO {table} (n) VALUES (:n) /* {number:05} */", {"n": number})


async def returning(session: Session, table: str, number: int, arm: Arm) -> None:
    arm()
    sql = f"INSERT INTO {table} (n) VALUES (:n) RETURNING n"
    assert await session.fetch_value(sql, {"n": number}) == number


async def many(session: Session, table: str, number: int, arm: Arm) -> None:
    arm()
    await session.execute_many(f"INSERT INTO {table} (n) VALUES (:n)", [{"n": number}, {"n": 0}])


async def raw(session: Session, table: str, number: int, arm: Arm) -> None:
    arm()
    await session.execute_raw(f"INSERT INTO {table} (n) VALUES ({number})")


async def orm(session: Session, table: str, number: int, arm: Arm) -> None:
    async with session.orm() as opened:
        await opened.execute(text(f"INSERT INTO {table} (n) VALUES (:n)"), {"n": number})
        arm()
        await opened.commit()


async def refused(session: Session, table: str, number: int, arm: Arm) -> None:
    """Commit what the server refuses at the commit."""
    async with session.transaction() as tx:
        await tx.execute(f"INSERT INTO {table} (n, other) VALUES (:n, -1)", {"n": number})
        arm()


IN_TRANSACTION: tuple[Write, ...] = (transaction, function, orm)
ALONE: tuple[Write, ...] = (autocommit, raw)
LONGER: tuple[Write, ...] = (unprepared, returning, many)  # cut at every ninth byte


_numbers = itertools.count(10_000)  # all of one length, for texts and answers that show them


class Ledger:
    """Write numbers through a faulty network, note what was reported of each, and compare in the end."""

    def __init__(self, proxied: Proxied, router: Router, table: str) -> None:
        self.proxy = proxied.primary
        self.engine = proxied.engine
        self.session = router.session("acme", timeout=20)
        self.table = table
        self.reports: dict[int, Report] = {}

    async def note(self, write: Write, arm: Arm) -> Report:
        """Write the next number and note what is reported."""
        number = next(_numbers)
        try:
            await write(self.session, self.table, number, arm)
            report = Report.APPLIED
        except CommitOutcomeUnknown:
            report = Report.UNKNOWN
        except RouterError:
            report = Report.NOT_APPLIED
        self.reports[number] = report
        return report

    async def warm(self) -> None:
        """Open a connection if there is none, so that only the write itself meets the fault."""
        await self.session.execute(f"INSERT INTO {self.table} (n) VALUES (:n)", {"n": -1})

    async def length(self, write: Write, direction: Direction) -> int:
        """Return how many bytes pass in a direction while this is written without any fault."""
        before = 0

        def passed() -> int:
            traffic = self.proxy.traffic
            return traffic.to_server if direction is Direction.TO_SERVER else traffic.to_client

        def arm() -> None:
            nonlocal before
            before = passed()

        await self.warm()
        await self.note(write, arm)
        return passed() - before

    async def cut(self, write: Write, after: int, how: Break, direction: Direction) -> Report:
        """Write once with the network cut after so many bytes."""
        await self.warm()
        cut = Cut(after, how, direction=direction, times=1)
        report = await self.note(write, lambda: self.proxy.add(cut) if not cut.fired else None)
        self.proxy.remove(cut)
        assert cut.fired or report is not Report.UNKNOWN
        return report

    async def compare(self) -> None:
        """Fail if anything was reported wrong."""
        await self._settled()
        rows = self.engine.server.run(
            f"SELECT n FROM {self.table} WHERE n > 0", self.engine.tenant("acme")["database"]
        )
        found = Counter(map(int, rows.split()))
        assert [number for number, count in found.items() if count > 1] == [], "applied twice"
        wrong = {
            number: report
            for number, report in self.reports.items()
            if report is not Report.UNKNOWN and (report is Report.APPLIED) != (number in found)
        }
        assert wrong == {}, "reported wrong"

    async def _settled(self) -> None:
        """Return when no session of the router's works on anything any more."""
        working = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'router_app' AND state <> 'idle'"
            if self.engine.dialect == "postgresql"
            else "SELECT count(*) FROM information_schema.processlist WHERE user = 'router_app' "
            "AND command NOT IN ('Sleep', 'Killed')"
        )
        server = self.engine.server
        await asyncio.to_thread(
            wait_until, lambda: server.run(working).strip() == "0", 20, lambda: "a session goes on working"
        )


@pytest.fixture
async def table(router: Router, engine: Engine) -> str:
    """Create a table that takes a number twice, so that a write that was repeated shows."""
    name = engine.name()
    deferred = f"REFERENCES {name} (id) DEFERRABLE INITIALLY DEFERRED" if engine.id == "postgresql" else ""
    await router.execute(f"CREATE TABLE {name} (id {engine.key}, n INT, other INT {deferred})", tenant="acme")
    return name


async def length(proxied: Proxied, table: str, write: Write, direction: Direction) -> int:
    """Return the bytes of one write; a router of its own begins as a connection after a cut does."""
    async with proxied.engine.open() as router:
        found = await Ledger(proxied, router, table).length(write, direction)
    assert found > 10
    return found


async def every_byte(
    proxied: Proxied, table: str, write: Write, how: Break, direction: Direction, step: int = 1
) -> Counter[Report]:
    """Cut a write after every number of bytes; return how often each outcome was reported, all of it true."""
    count = await length(proxied, table, write, direction)
    async with proxied.engine.open() as router:
        ledger = Ledger(proxied, router, table)
        found = Counter([await ledger.cut(write, n, how, direction) for n in range(0, count + 1, step)])
        await ledger.compare()
    return found


def named(value: object) -> str:
    """Return the name of a parameter, for the test's id."""
    return getattr(value, "__name__", None) or getattr(value, "name", str(value)).lower()


HOW = pytest.mark.parametrize("how", [Break.RESET, Break.CLOSE], ids=named)


@HOW
@pytest.mark.parametrize("write", IN_TRANSACTION, ids=named)
async def test_the_answer_to_a_commit_cut_at_every_byte(
    proxied: Proxied, table: str, write: Write, how: Break
) -> None:
    """The server has committed: reported as applied or as unknown, never as failed (fault case 3)."""
    seen = await every_byte(proxied, table, write, how, Direction.TO_CLIENT)
    assert seen[Report.NOT_APPLIED] == 0
    assert seen[Report.APPLIED] > 0  # the answer was complete, at the latest with its last byte


@pytest.mark.parametrize("write", [*ALONE, *LONGER], ids=named)
async def test_the_answer_to_a_write_cut_at_every_byte(proxied: Proxied, table: str, write: Write) -> None:
    """An autocommit write is its own commit: whatever byte is lost, the report is true (fault case 4)."""
    step = 9 if write in LONGER else 1
    seen = await every_byte(proxied, table, write, Break.CLOSE, Direction.TO_CLIENT, step)
    assert seen[Report.APPLIED] + seen[Report.UNKNOWN] > 0


async def test_the_answer_to_a_write_reset_at_every_byte(proxied: Proxied, table: str) -> None:
    """Drivers tell a reset apart from an end; it means the same (fault case 4)."""
    seen = await every_byte(proxied, table, autocommit, Break.RESET, Direction.TO_CLIENT)
    assert seen[Report.NOT_APPLIED] == 0


@pytest.mark.parametrize("write", [*IN_TRANSACTION, *ALONE, *LONGER], ids=named)
async def test_the_request_cut_at_every_byte(proxied: Proxied, table: str, write: Write) -> None:
    """Half a COMMIT is none: reported as unknown or as not applied, never repeated (fault cases 3, 4)."""
    step = 9 if write in LONGER else 1
    seen = await every_byte(proxied, table, write, Break.RESET, Direction.TO_SERVER, step)
    assert seen[Report.UNKNOWN] + seen[Report.NOT_APPLIED] > 0


@only("postgresql")
async def test_a_refused_commit_cut_at_many_bytes(proxied: Proxied, table: str) -> None:
    """A commit that the server refuses is never reported as applied, whatever is lost (fault case 3)."""
    seen = await every_byte(proxied, table, refused, Break.CLOSE, Direction.TO_CLIENT, step=7)
    assert seen[Report.APPLIED] == 0
    assert seen[Report.NOT_APPLIED] > 0


@pytest.mark.parametrize(
    ("write", "direction"),
    [(transaction, Direction.TO_CLIENT), (autocommit, Direction.TO_SERVER)],
    ids=named,
)
async def test_no_answer_at_all(proxied: Proxied, table: str, write: Write, direction: Direction) -> None:
    """A network that goes silent ends with the timeout, and the report is true (fault cases 3, 4)."""
    half = await length(proxied, table, write, direction) // 2
    async with proxied.engine.open(defaults={"timeouts": {"statement": "400ms"}}) as router:
        ledger = Ledger(proxied, router, table)
        assert await ledger.cut(write, half, Break.SILENCE, direction) is not Report.APPLIED
        proxied.heal()
        await ledger.compare()
