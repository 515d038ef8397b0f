"""Mistakes that the router could make, put into it on purpose: the check must find every one of them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from router import Router, caching
from router.drivers.mysql import MysqlConnection
from router.drivers.postgresql import PostgresqlConnection
from router.drivers.sqlite import SqliteConnection
from router.leaks import LeakReport
from router.orm import Watcher
from router.pools.lease import Lease
from router.pools.pool import Pool
from router.session import Session
from router.statements import Dirt
from router.visitors import spoils, spoils_by_orm, spoils_raw
from tests.figures import Figure
from tests.leaks.effort import Effort
from tests.leaks.models import TABLE, Model, Rows
from tests.leaks.world import Servers, opened, places

_SLICE = 0.25  # seconds between two looks at what was found
_TASKS = 12
_CARELESS = (spoils, spoils_by_orm, spoils_raw)
_keys, _give, _session = caching.local_key, Pool.give, Router.session
Mutant = Callable[[ExitStack, Sequence[Model]], None]


@contextmanager
def without(rule: str, made: Sequence[Model]) -> Iterator[None]:
    """Break a rule, in this process or on the server; "" for none."""
    with ExitStack() as stack:
        if rule:
            MUTANTS[rule](stack, made)
        yield


async def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, and say that all went well."""


def _replace(name: str, value: Any, *owners: Any) -> Mutant:
    def change(stack: ExitStack, _: Sequence[Model]) -> None:
        for owner in owners:
            stack.enter_context(patch.object(owner, name, value))

    return change


def _clean(self: Pool, connection: Any) -> None:
    connection.dirt = Dirt.NONE
    _give(self, connection)


def _trusting(self: Lease) -> None:
    self.connection.in_transaction = False
    self.connection.dirt = Dirt.NONE
    _give(self.pool, self.connection)


def _confused(self: Router, tenant: str, schema: str | None = None, **given: Any) -> Session:
    """Take one tenant for another every tenth time."""
    if random.random() < 0.1:
        return _session(self, random.choice(list(self.config.tenants)), schema)
    return _session(self, tenant, schema, **given)


def _unprotected(stack: ExitStack, made: Sequence[Model]) -> None:
    rows = next(model for model in made if model.name == Rows.name)

    def say(word: str) -> None:
        rows.engine.server.run(f"ALTER TABLE {TABLE} {word} ROW LEVEL SECURITY", rows.engine.database(""))

    stack.callback(say, "ENABLE")
    say("DISABLE")


MUTANTS: dict[str, Mutant] = {
    "a connection is bound": _replace("bind", _nothing, PostgresqlConnection, MysqlConnection),
    "a changed session is reset": _replace("reset", _nothing, PostgresqlConnection, MysqlConnection),
    "changes of a session are noticed": _replace("give", _clean, Pool),
    "changes by an ORM session are noticed": _replace("_leave_behind", lambda *_: None, Watcher),
    "a transaction is rolled back": _replace(
        "rollback", _nothing, PostgresqlConnection, MysqlConnection, SqliteConnection
    ),
    "a broken connection is closed": _replace("release", _trusting, Lease),
    "an answer in memory has an owner": _replace("local_key", lambda _, *rest: _keys(None, *rest), caching),
    "a tenant is itself": _replace("session", _confused, Router),
    "tables that are shared have row security": _unprotected,
}


async def figures(
    folder: Path, servers: Servers, effort: Effort, say: Callable[[str], None]
) -> AsyncIterator[Figure]:
    """Yield how many mistakes are not found, and what an unbroken router shows under the same conditions."""
    missed = []
    with places(folder, servers, 16) as made:
        for rule in MUTANTS:
            say(f"without the rule that {rule}")
            report = await found(folder, servers, made, rule, effort.mutant)
            if not report.wrong:
                missed.append(rule)
        say("with all rules")
        report = await found(folder, servers, made, "", effort.mutant / 4)
    wrong = report.wrong + report.errors
    name = f"mistakes made on purpose that no row gave away, of {len(MUTANTS)}"
    yield Figure(name, len(missed), 0, note="; ".join(missed))
    yield Figure("rows and errors that were wrong without any", wrong, 0, note="; ".join(report.told[:3]))


async def found(
    folder: Path, servers: Servers, made: Sequence[Model], rule: str, seconds: float
) -> LeakReport:
    """Return what a check sees of a router that breaks a rule; it ends once a row gives that away."""
    patience = "1s" if rule else "60s"  # what is broken may keep others waiting for ever
    async with opened(folder, servers, made, most=1, patience=patience, often=_CARELESS) as (_, check):
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with without(rule, made):
            while not check.report().wrong and loop.time() < end:
                await check.run(seconds=_SLICE, tasks=_TASKS)
    return check.report()
