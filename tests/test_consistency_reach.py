"""How a server is waited for: the engine's own wait where it has one, else questions, and never longer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from router.drivers.driver import Reading
from router.drivers.mysql import MysqlConnection
from router.drivers.postgresql import PostgresqlConnection
from router.positions import Lsn, MariadbGtid, MysqlGtids, Position
from tests.doubles import ScriptedConnection
from tests.engines import Engine
from tests.lateness import taking

SOURCE = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


class Postgres19:
    """Answer as the raw connection to a server of a version would."""

    def __init__(self, major: int, answer: str = "success", positions: tuple[int, ...] = ()) -> None:
        self.texts: list[str] = []
        self._major, self._answer = major, answer
        self._positions = list(positions)

    def get_server_version(self) -> Any:
        return SimpleNamespace(major=self._major)

    async def fetchval(self, text: str) -> str:
        self.texts.append(text)
        return self._answer

    async def fetchrow(self, text: str) -> tuple[Any, ...]:
        self.texts.append("probe")
        position = self._positions.pop(0) if len(self._positions) > 1 else self._positions[0]
        return True, position, [1], 7, 8192, 16 << 20


def postgresql(raw: Postgres19) -> PostgresqlConnection:
    made = object.__new__(PostgresqlConnection)
    made._raw = raw
    return made


@pytest.mark.parametrize(
    ("answer", "there"), [("success", True), ("timeout", False), ("not in recovery", False)]
)
async def test_postgresql_19_waits_by_itself(answer: str, there: bool) -> None:
    """One statement, which ends by itself and raises nothing; any answer but success is none."""
    raw = Postgres19(19, answer)
    assert await postgresql(raw).reach(Lsn(0x16_B374D848), 0.05) is there
    assert raw.texts == ["WAIT FOR LSN '16/B374D848' WITH (TIMEOUT '50ms', NO_THROW)"]


async def test_postgresql_19_is_never_told_to_wait_for_ever() -> None:
    """A timeout of 0 would mean that to it."""
    raw = Postgres19(19)
    await postgresql(raw).reach(Lsn(1), 0.0002)
    assert raw.texts == ["WAIT FOR LSN '0/1' WITH (TIMEOUT '1ms', NO_THROW)"]


async def test_an_older_postgresql_is_asked_again_and_again() -> None:
    """Until it is there."""
    raw = Postgres19(18, positions=(10, 20, 30))
    assert await postgresql(raw).reach(Lsn(30), 5.0)
    assert raw.texts == ["probe"] * 3


@pytest.mark.parametrize("goal", [MariadbGtid({0: 1}), MysqlGtids({SOURCE: ((1, 5),)})])
async def test_a_position_of_another_engine_is_not_reached(goal: Position) -> None:
    """Nor sent: it is no syntax of this server's."""
    raw = Postgres19(19, positions=(10,))
    assert not await postgresql(raw).reach(goal, 0.02)
    assert raw.texts == []


class Mysql:
    """Answer as the raw connection to MySQL or MariaDB would."""

    def __init__(self, version: str, answer: int | None) -> None:
        self.server_version = version
        self.texts: list[str] = []
        self._result = SimpleNamespace(rows=[(answer,)])

    async def query(self, text: str) -> None:
        self.texts.append(text)


def mysql(raw: Mysql) -> MysqlConnection:
    made = object.__new__(MysqlConnection)
    made._raw = raw
    return made


@pytest.mark.parametrize(("answer", "there"), [(0, True), (1, False), (-1, False), (None, False)])
async def test_mysql_and_mariadb_wait_by_themselves(answer: int | None, there: bool) -> None:
    """With the word that each has for it; only 0 means that it got there, NULL that it cannot tell."""
    mariadb, plain = Mysql("11.4.2-MariaDB-log", answer), Mysql("8.4.0", answer)
    assert await mysql(mariadb).reach(MariadbGtid({0: 270, 5: 7}), 0.05) is there
    assert mariadb.texts == ["SELECT MASTER_GTID_WAIT('0-0-270,5-0-7', 0.050)"]
    assert await mysql(plain).reach(MysqlGtids({SOURCE: ((1, 5), (7, 7))}), 0.05) is there
    assert plain.texts == [f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{SOURCE}:1-5:7', 0.050)"]


@pytest.mark.parametrize(("version", "goal"), [("11.4.2-MariaDB", Lsn(1)), ("8.4.0", MariadbGtid({0: 1}))])
async def test_mysql_is_asked_for_its_own_positions_only(version: str, goal: Position) -> None:
    """The text of another engine's would be an error, or mean something else."""
    raw = Mysql(version, 0)
    assert not await mysql(raw).reach(goal, 0.05)
    assert raw.texts == []


class Slow(ScriptedConnection):
    """Take its time for each question, and get nowhere."""

    asked = 0

    def __init__(self, takes: float, positions: tuple[int, ...]) -> None:
        self.takes, self.positions = takes, positions

    async def probe(self) -> Reading:
        await asyncio.sleep(self.takes)
        position = self.positions[min(self.asked, len(self.positions) - 1)]
        type(self).asked += 1
        return Reading(False, Lsn(position))


@pytest.mark.parametrize("takes", [0.0, 0.02, 0.1])
async def test_questions_count_for_the_time_of_a_wait(takes: float) -> None:
    """A server far away is waited for as long as one near by, but for one question."""
    async with taking(0.06 + takes + 0.05, least=0.05):
        assert not await Slow(takes, (1,)).reach(Lsn(2), 0.06)


async def test_a_replica_that_is_promoted_meanwhile_has_not_got_there() -> None:
    """What it writes itself takes it past the position, without what that stood for."""

    class Promoted(ScriptedConnection):
        def __init__(self) -> None:
            pass

        async def probe(self) -> Reading:
            return Reading(True, Lsn(9), 2, "cluster", "2")

    assert not await Promoted().reach(Lsn(5), 0.02)


async def test_no_time_is_no_question() -> None:
    """Nothing is asked where nothing may be waited for."""
    began = Slow.asked
    assert not await Slow(0.0, (2,)).reach(Lsn(2), 0.0)
    assert Slow.asked == began


async def test_the_wait_ends_when_the_server_is_there() -> None:
    """Soon after: the pauses stay short."""
    Slow.asked = 0
    async with taking(1.0):
        assert await Slow(0.0, (1, 1, 1, 2)).reach(Lsn(2), 5.0)


@pytest.mark.engines("mariadb", "postgresql")
async def test_a_real_server_is_waited_for(engine: Engine) -> None:
    """What is there is reached at once, on a replica; what never comes is not, in its time."""
    async with engine.open() as router:
        await router.fetch_all("SELECT 1", tenant="acme")
        health = router._backends["main"].health
        replica = health.snapshot().replicas[0]
        there = health.lineage.position
        assert there is not None
        beyond: Position = (
            Lsn(there.value + (1 << 40))
            if isinstance(there, Lsn)
            else MariadbGtid({domain: number + 1_000_000 for domain, number in there.last.items()})  # type: ignore[attr-defined]
        )
        target = router._executor.target("acme", None)  # type: ignore[union-attr]
        lease = await target.lease(replica, router._clock() + 5)
        try:
            assert await lease.connection.reach(there, 5.0)
            async with taking(1.0, least=0.09):
                assert not await lease.connection.reach(beyond, 0.1)
        finally:
            lease.release()
