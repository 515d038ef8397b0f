"""The answer to a COMMIT, or to a write, cut at every byte: what is reported is never wrong.

A call that returns means applied. CommitOutcomeUnknown means that nobody knows. Any other error means that
it was not applied and never will be. And whatever was reported, nothing is applied twice. The tests compare
what was reported with what is in the table, once no server works on it any more.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import pytest

from router import Router
from router.errors import CommitOutcomeUnknown, RouterError
from router.session import Session
from tests.engines import Engine, only
from tests.faults import Break, Cut, Direction
from tests.faults.cluster import Proxied

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


async def refused(session: Session, table: str, number: int, arm: Arm) -> None:
    """Commit what the server refuses at the commit: a deferred constraint."""
    async with session.transaction() as tx:
        await tx.execute(f"INSERT INTO {table} (n, other) VALUES (:n, -1)", {"n": number})
        arm()


WRITES: dict[str, Write] = {"transaction": transaction, "function": function, "autocommit": autocommit}


class Ledger:
    """Write numbers through a faulty network, note what was reported of each, and compare in the end."""

    def __init__(self, proxied: Proxied, router: Router, table: str) -> None:
        self.proxy = proxied.primary
        self.engine = proxied.engine
        self.session = router.session("acme", timeout=20)
        self.table = table
        self.reports: dict[int, Report] = {}
        self.errors: Counter[str] = Counter()

    async def length(self, write: Write, direction: Direction) -> int:
        """Return how many bytes pass in a direction while this is written without any fault."""
        before = 0

        def passed() -> int:
            traffic = self.proxy.traffic
            return traffic.to_server if direction is Direction.TO_SERVER else traffic.to_client

        def arm() -> None:
            nonlocal before
            before = passed()

        # twice: the first may find a connection without the prepared statement
        await self.note(write, arm)
        await self.note(write, arm)
        return passed() - before

    async def note(self, write: Write, arm: Arm) -> Report:
        number = len(self.reports) + 1
        try:
            await write(self.session, self.table, number, arm)
            report = Report.APPLIED
        except CommitOutcomeUnknown:
            report = Report.UNKNOWN
        except RouterError as error:
            self.errors[type(error).__name__] += 1
            report = Report.NOT_APPLIED
        self.reports[number] = report
        return report

    async def cut(self, write: Write, after: int, how: Break, direction: Direction) -> Report:
        """Write once with the network cut after so many bytes; the connection was good until then."""
        await self.session.execute(f"INSERT INTO {self.table} (n) VALUES (:n)", {"n": -1})
        cut = Cut(after, how, direction=direction, times=1)
        report = await self.note(write, lambda: self.proxy.add(cut) if not cut.fired else None)
        self.proxy.remove(cut)
        assert cut.fired == 1
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
        text = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'router_app' AND state <> 'idle'"
            if self.engine.dialect == "postgresql"
            else "SELECT count(*) FROM information_schema.processlist WHERE user = 'router_app' "
            "AND command NOT IN ('Sleep', 'Killed')"
        )
        async with asyncio.timeout(20):
            while self.engine.server.run(text).strip() != "0":
                await asyncio.sleep(0.02)


@pytest.fixture
async def table(router: Router, engine: Engine) -> str:
    """Create a table that takes a number twice, so that a write that was repeated shows."""
    name = engine.name()
    await router.execute(f"CREATE TABLE {name} (n INT, other INT)", tenant="acme")
    return name


async def every_byte(ledger: Ledger, write: Write, how: Break, direction: Direction) -> Counter[Report]:
    length = await ledger.length(write, direction)
    assert length > 10
    seen = Counter([await ledger.cut(write, after, how, direction) for after in range(length + 1)])
    await ledger.compare()
    return seen


@pytest.mark.parametrize("how", [Break.RESET, Break.CLOSE])
@pytest.mark.parametrize("write", WRITES)
async def test_the_answer_cut_at_every_byte(proxied: Proxied, table: str, write: str, how: Break) -> None:
    """The server has applied it: reported as applied or as unknown, never as failed (fault cases 3, 4)."""
    async with proxied.engine.open() as router:
        ledger = Ledger(proxied, router, table)
        seen = await every_byte(ledger, WRITES[write], how, Direction.TO_CLIENT)
        assert seen[Report.NOT_APPLIED] == 0, ledger.errors
        assert seen[Report.APPLIED] > 0  # the answer was complete, at the latest with its last byte


@pytest.mark.parametrize("write", WRITES)
async def test_the_request_cut_at_every_byte(proxied: Proxied, table: str, write: str) -> None:
    """Half a COMMIT is none: reported as unknown or as not applied, and never repeated (fault cases 3, 4)."""
    async with proxied.engine.open() as router:
        ledger = Ledger(proxied, router, table)
        seen = await every_byte(ledger, WRITES[write], Break.RESET, Direction.TO_SERVER)
        assert seen[Report.UNKNOWN] + seen[Report.NOT_APPLIED] > 0
