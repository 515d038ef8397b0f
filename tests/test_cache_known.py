"""What catalogs said is kept for a while, for one schema, and not past a change of the schema."""

import asyncio
import tracemalloc
from collections.abc import Iterable
from typing import Any

from router.cache.known import Known
from router.cache.refusal import Refusal
from router.cache.relations import Relations
from router.errors import NoPrimary
from router.rows import Row
from router.statements import Dialect
from tests.test_pool import Clock

T = frozenset(("t",))


class Catalog:
    """Answer as SQLite's catalog would, when it is let, and count how often."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False

    async def __call__(self, sql: str) -> Iterable[Row]:
        self.asked += 1
        rows: Any = [("table", name, f"CREATE TABLE {name} (id)", None, None) for name in self.names]
        await self.open.wait()
        if self.broken:
            raise NoPrimary("gone")
        return rows


def known(clock: Clock | None = None) -> Known:
    return Known(Dialect.SQLITE, {}, clock or Clock())


def sees(relations: Relations | None) -> bool:
    assert relations is not None
    return relations.read(T) == {"main.t"}


async def test_an_answer_is_kept_for_one_schema_and_a_while() -> None:
    """Another schema may have other tables; and tables change."""
    clock = Clock()
    subject, catalog = known(clock), Catalog("t")
    assert subject.of("app", "a") is None
    assert sees(await subject.ask("app", "a", catalog))
    assert sees(subject.of("app", "a"))
    assert subject.of("app", "b") is None and subject.of("other", "a") is None
    clock.now += 299
    assert sees(subject.of("app", "a"))
    clock.now += 2
    assert subject.of("app", "a") is None


async def test_many_who_ask_at_once_share_one_question() -> None:
    """A thousand cold reads do not ask the catalog a thousand times."""
    subject, catalog = known(), Catalog("t")
    answers = await asyncio.gather(*(subject.ask("app", None, catalog) for _ in range(1000)))
    assert all(map(sees, answers))
    assert catalog.asked == 1


async def test_an_answer_from_before_a_change_is_not_kept() -> None:
    """What was asked before forget() may not know of the change; who asks after it gets what is new."""
    subject, catalog = known(), Catalog()
    catalog.open.clear()
    before = asyncio.create_task(subject.ask("app", None, catalog))
    await asyncio.sleep(0.01)
    subject.forget("app")
    catalog.names = ("t",)
    after = asyncio.create_task(subject.ask("app", None, catalog))
    await asyncio.sleep(0.01)
    catalog.open.set()
    assert not sees(await before)
    assert sees(await after)
    assert sees(subject.of("app", None))
    subject.forget("other")
    assert sees(subject.of("app", None))
    subject.forget("app")
    assert subject.of("app", None) is None


async def test_who_cannot_be_asked_knows_nothing_for_a_moment() -> None:
    """A catalog that fails is not asked again at once; until then nothing is cached, and a write is any."""
    clock = Clock()
    subject, catalog = known(clock), Catalog("t")
    catalog.broken = True
    relations = await subject.ask("app", None, catalog)
    assert relations.read(T) is Refusal.UNKNOWN_TABLE
    assert relations.written(T) is None
    assert subject.of("app", None) is relations
    clock.now += 6
    catalog.broken = False
    assert sees(await subject.ask("app", None, catalog))


async def test_a_caller_who_leaves_takes_nobody_with_him() -> None:
    """The others still get their answer."""
    subject, catalog = known(), Catalog("t")
    catalog.open.clear()
    first = asyncio.create_task(subject.ask("app", None, catalog))
    second = asyncio.create_task(subject.ask("app", None, catalog))
    await asyncio.sleep(0.01)
    first.cancel()
    catalog.open.set()
    assert sees(await second)


async def test_schemas_that_look_alike_share_their_memory() -> None:
    """A thousand tenants of one application need little more than one, and no more than so many are kept."""
    subject, catalog = known(), Catalog(*(f"table_{n}" for n in range(200)))
    kept = await subject.ask("app", "s0", catalog)
    tracemalloc.start()
    for number in range(1, 100):
        await subject.ask("app", f"s{number}", catalog)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown / 99 < 2048
    assert (await subject.ask("app", "s99", catalog)).shape is kept.shape
    for number in range(2100):
        await subject.ask("more", str(number), Catalog("t"))
    assert subject.of("app", "s0") is None
    assert subject.of("more", "99") is None and sees(subject.of("more", "100"))
