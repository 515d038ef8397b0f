"""Live traffic on the tenants of the demonstration, served with metrics, health and the console.

Requests of all sorts, as an application would make them: reads and writes, cached ones, transactions, some
that are slow and some that fail.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router import demo, web
from router.context import acting
from router.errors import RouterError
from router.router import Router
from router.session import Session
from router.web import Served

_WORKERS: Final = {"acme": 6, "globex": 3, "initech": 2}  # how many do requests of a tenant at a time
_PAUSE: Final = 0.1  # mean seconds between the requests of one worker


@dataclass(frozen=True, slots=True)
class Shown:
    """Say where the demonstration is served, what its console asks for, and by which files it works."""

    served: Served
    token: str
    router: Router
    config: Path


async def _names(session: Session, rng: random.Random) -> None:
    await session.fetch_all(demo.NAMES)


async def _cached(session: Session, rng: random.Random) -> None:
    await session.fetch_all(demo.NAMES, cache=2)


async def _seats(session: Session, rng: random.Random) -> None:
    await session.fetch_value(demo.SEATS, {"name": _plan(session, rng)})


async def _add_seats(session: Session, rng: random.Random) -> None:
    await session.execute(demo.ADD_SEATS, {"name": _plan(session, rng), "more": 1})
    await _seats(session, rng)  # sees it, on a reader


async def _move_seats(session: Session, rng: random.Random) -> None:
    async with session.transaction() as tx:
        for more in (-1, 1):
            await tx.execute(demo.ADD_SEATS, {"name": _plan(session, rng), "more": more})


async def _count(session: Session, rng: random.Random) -> None:
    await session.fetch_value(demo.COUNT_UP, {"last": rng.randrange(20_000, demo.LAST)})


async def _duplicate(session: Session, rng: random.Random) -> None:
    await session.execute(demo.ADD_PLAN, {"name": _plan(session, rng), "seats": 1})


async def _missing(session: Session, rng: random.Random) -> None:
    await session.fetch_all("SELECT day, hits FROM visits")  # that table is in the schema analytics


def _plan(session: Session, rng: random.Random) -> str:
    return rng.choice(demo.PLANS[session.tenant])[0]


_MIX: Final[tuple[tuple[Callable[[Session, random.Random], Awaitable[None]], int], ...]] = (
    (_names, 30),
    (_cached, 40),
    (_seats, 30),
    (_add_seats, 15),
    (_move_seats, 5),
    (_count, 4),
    (_duplicate, 1),
    (_missing, 1),
)


@asynccontextmanager
async def served(port: int = 0) -> AsyncIterator[Shown]:
    """Serve the demonstration with live traffic while the block runs; port 0 takes a free one."""
    token = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="router-demo-") as name:
        folder = Path(name)
        demo.write_config(folder)
        async with Router.open(folder) as router:
            await _fill(router)
            async with (
                web.serve(router, port=port, console=True, token=token) as address,
                asyncio.TaskGroup() as group,
            ):
                tasks = [
                    group.create_task(_work(router, tenant, number), name=f"{tenant} worker {number}")
                    for tenant, workers in _WORKERS.items()
                    for number in range(1, workers + 1)
                ]
                yield Shown(address, token, router, folder)
                for task in tasks:
                    task.cancel()


async def _fill(router: Router) -> None:
    for tenant, plans in demo.PLANS.items():
        await router.execute(demo.CREATE_PLANS, tenant=tenant)
        await router.execute(demo.CREATE_VISITS, tenant=tenant, schema="analytics")
        rows = [{"name": name, "seats": seats} for name, seats in plans]
        await router.execute_many(demo.ADD_PLAN, rows, tenant=tenant)


async def _work(router: Router, tenant: str, number: int) -> None:
    rng = random.Random(f"{tenant} {number}")  # noqa: S311  # what is asked, guards nothing
    acts, weights = zip(*_MIX, strict=True)
    while True:
        await asyncio.sleep(rng.expovariate(1 / _PAUSE))
        (act,) = rng.choices(acts, weights)
        with acting(actor=f"user-{rng.randrange(100)}", context_id=f"{rng.randrange(16**8):08x}"):
            try:
                async with router.session(tenant) as session:
                    await act(session, rng)
            except RouterError:
                pass  # the application would tell its user; here the console shows it
