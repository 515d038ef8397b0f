"""Function volatility: the database is asked once, believed for a while, and never in doubt."""

from collections.abc import Iterable
from typing import Any

import pytest

from router.reasons import Reason
from router.rows import Row
from router.statements import Dialect, Statement, parse
from router.volatility import Volatility
from tests.doubles import Server, opened
from tests.engines import Engine, Recorder
from tests.test_pool import Clock

SQL = "SELECT mine(1)"


def statement(sql: str = SQL) -> Statement:
    return parse(sql, Dialect.POSTGRESQL)


class Answer:
    """Answer as pg_proc would, and count how often."""

    def __init__(self, **volatile: bool) -> None:
        self.volatile = volatile
        self.asked = 0

    async def __call__(self, names: tuple[str, ...]) -> Iterable[Row]:
        self.asked += 1
        rows: Any = list(self.volatile.items())
        return rows


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(mine=False), Reason.READ),
        (Answer(mine=True), Reason.VOLATILE_FUNCTION),
        (Answer(other=False), Reason.UNKNOWN_FUNCTION),
    ],
    ids=["stable", "volatile", "unknown"],
)
async def test_the_database_decides(answer: Answer, verdict: Reason) -> None:
    """A read only if the database says that no function of that name is volatile."""
    volatility = Volatility(Clock())
    assert volatility.known(statement(), "app") is None
    assert await volatility.ask(statement(), "app", answer) is verdict
    assert volatility.known(statement(), "app") is verdict


async def test_an_answer_is_kept_for_one_database_and_a_while() -> None:
    """Another database may have another function of that name; and functions change."""
    clock = Clock()
    volatility = Volatility(clock)
    await volatility.ask(statement(), "app", Answer(mine=False))
    assert volatility.known(statement(), "other") is None
    clock.now += 299
    assert volatility.known(statement(), "app") is Reason.READ
    clock.now += 2
    assert volatility.known(statement(), "app") is None


async def test_what_may_change_functions_makes_it_ask_again() -> None:
    """After forget() nothing is believed of that database."""
    volatility = Volatility(Clock())
    await volatility.ask(statement(), "app", Answer(mine=False))
    volatility.forget("app")
    assert volatility.known(statement(), "app") is None


async def test_a_name_not_asked_about_yet_is_asked_about() -> None:
    """What is known of one function proves nothing about another in the same text."""
    volatility = Volatility(Clock())
    await volatility.ask(statement(), "app", Answer(mine=False))
    both = statement("SELECT mine(1), yours(2)")
    assert volatility.known(both, "app") is None
    assert await volatility.ask(both, "app", Answer(mine=False, yours=True)) is Reason.VOLATILE_FUNCTION


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True, scope="module")
async def test_real_functions_go_where_their_volatility_says(engine: Engine) -> None:
    """STABLE may run on a replica, VOLATILE may not; a function that becomes volatile is noticed."""
    name = engine.name()
    async with engine.open() as router:
        heard = Recorder(router)
        text = f"CREATE OR REPLACE FUNCTION {name}() RETURNS int LANGUAGE sql"
        await router.execute(f"{text} STABLE AS 'SELECT 1'", tenant="acme")
        await engine.settle()
        await router.fetch_value(f"SELECT {name}()", tenant="acme")
        assert heard.route == ("replica", "read")
        await router.execute(f"{text} VOLATILE AS 'SELECT 1'", tenant="acme")
        await router.fetch_value(f"SELECT {name}()", tenant="acme")
        assert heard.route == ("primary", "volatile_function")


@pytest.mark.parametrize(
    ("losses", "route"), [(2, ("replica", "read")), (3, ("primary", "unknown_function"))], ids=["few", "many"]
)
async def test_a_lost_connection_makes_no_write_of_a_read(
    server: Server, losses: int, route: tuple[str, str]
) -> None:
    """The question is asked again, on another connection: a write that breaks off is not repeated."""
    async with opened() as router:
        server.fail("fetch_all", ConnectionResetError(), node="primary", breaks=True, times=losses)
        heard = Recorder(router)
        await router.fetch_one("SELECT count(*) FROM plans", tenant="acme")
        assert heard.route == route and not server.faults
