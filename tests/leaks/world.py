"""One router over all isolation models, visited by many; and what the servers have in the end."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from router import Router
from router.belongings import Belongings
from router.config import Config, parse
from router.errors import CommitOutcomeUnknown, ConnectError, ConnectionLost
from router.leaks import LeakCheck
from router.visiting import Visitor
from tests.leaks import models, visitors
from tests.leaks.models import MOST, TABLE, Model
from tests.servers import MariadbCluster, PostgresqlCluster, RedisServer

#: what a request may end with when its session was ended on the server
CUT = (ConnectionLost, CommitOutcomeUnknown, ConnectError, DBAPIError)
_KILL = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN "
    "('router_app', 'router_ro') ORDER BY random() LIMIT 2",
    "mysql": "SELECT id FROM information_schema.processlist WHERE user IN ('router_app', 'router_ro') "
    "ORDER BY rand() LIMIT 1",
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Hold the servers that all models need."""

    postgresql: PostgresqlCluster
    mariadb: MariadbCluster
    redis: RedisServer


@contextlib.contextmanager
def started() -> Iterator[Servers]:
    """Start servers of our own."""
    with ExitStack() as stack:
        servers = Servers(PostgresqlCluster(1), MariadbCluster(1), RedisServer())
        for each in (servers.postgresql, servers.mariadb, servers.redis):
            stack.callback(each.close)
            each.start()
        yield servers


@contextlib.contextmanager
def places(folder: Path, servers: Servers, tenants: int) -> Iterator[tuple[Model, ...]]:
    """Create all models' places, and remove them in the end."""
    made = models.models(folder, servers.postgresql, servers.mariadb, tenants)
    with ThreadPoolExecutor(len(made)) as pool:
        try:
            list(pool.map(lambda model: model.create(), made))
            servers.postgresql.wait_for_replicas()
            servers.mariadb.wait_for_replicas()
            yield made
        finally:
            list(pool.map(lambda model: model.drop(), made))


def configured(
    folder: Path,
    servers: Servers,
    made: Sequence[Model],
    *,
    most: int = MOST,
    patience: str = "60s",
    own: Mapping[str, dict[str, Any]] | None = None,
) -> Config:
    """Return the configuration of a router over the models, with a cache in memory and one behind it.

    ``most`` bounds the connections to each node, ``patience`` how long a request waits; ``own`` is what
    single tenants set beside.
    """
    remote = {"url": servers.redis.dsn(), "key": "a key for the leak check only, of no other use"}
    cache = {"broadcast": "redis", "remote": remote}
    return parse(models.document(made, most, patience, own, cache=cache), folder)


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    servers: Servers,
    made: Sequence[Model],
    *,
    most: int = MOST,
    patience: str = "60s",
    often: Sequence[Visitor] = (),
) -> AsyncIterator[tuple[Router, LeakCheck]]:
    """Open a router of :func:`configured`, and a check of it to which some visitors come ``often``."""
    config = configured(folder, servers, made, most=most, patience=patience)
    async with Router.open(config) as router:
        check = LeakCheck(
            router,
            [tenant for model in made for tenant in model.tenants],
            table=TABLE,
            create=False,
            visitors=(*visitors.VISITORS, *often),
        )
        async with check.prepared():
            yield router, check


async def kill(servers: Servers, seconds: float, rng: random.Random) -> int:
    """End sessions on the servers every now and then, whatever they are doing; return how many times."""
    loop, times = asyncio.get_running_loop(), 0
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(rng.uniform(0.1, 0.4))
        if rng.random() < 0.6:
            await asyncio.to_thread(rng.choice(servers.postgresql.servers).run, _KILL["postgresql"])
        else:
            await asyncio.to_thread(_kill_mariadb, rng.choice(servers.mariadb.servers))
        times += 1
    return times


def _kill_mariadb(server: Any) -> None:
    for number in server.run(_KILL["mysql"]).split():
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            server.run(f"KILL {number}")


@dataclass(slots=True)
class Compared:
    """Count what a server has that it must not have, or has not that it must; in rows."""

    foreign: int = 0
    lost: int = 0
    undone: int = 0
    told: str = ""


def compare(made: Sequence[Model], owned: Mapping[str, Belongings]) -> Compared:
    """Compare what is in each place with the account of it."""
    result = Compared()
    for model in made:
        left = {tenant: dict(owned[tenant].certain) for tenant in model.tenants}
        for found in model.found():
            books = owned[found.place]
            expected = left[found.place].pop(found.mark, None) or books.possible.get(found.mark)
            if found.tenant != found.place:
                result.foreign += found.rows
                result.told = result.told or f"{found}"
            elif expected is None:
                result.undone += found.rows
                result.told = result.told or f"{found}"
            elif expected != found.rows:
                result.lost += abs(expected - found.rows)
                result.told = result.told or f"{found} of {expected}"
        for tenant, marks in left.items():
            if marks:
                result.lost += sum(marks.values())
                result.told = result.told or f"{tenant} lacks {marks}"
    return result
