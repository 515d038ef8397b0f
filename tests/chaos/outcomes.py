"""The answer to a COMMIT cut at every byte: what was told of the write must be what became of it."""

from collections.abc import AsyncIterator

from router import Router
from tests.engines import Engine
from tests.faults import Break, Direction
from tests.faults.cluster import Proxied, behind_proxies
from tests.figures import Figure
from tests.test_commit_outcome import Ledger, Report, length, transaction


async def commits_cut(name: str, engine: Engine, step: int) -> AsyncIterator[Figure]:
    """Cut the answer after every ``step``-th byte, by a reset and by an orderly end."""
    told: list[Report] = []
    wrong = 0
    with behind_proxies(engine) as proxied:
        async with engine.open() as router:
            table = engine.name()
            await router.execute(f"CREATE TABLE {table} (id {engine.key}, n INT, other INT)", tenant="acme")
        for how in (Break.RESET, Break.CLOSE):
            count = await length(proxied, table, transaction, Direction.TO_CLIENT)
            async with proxied.engine.open() as router:
                wrong += await _cut(proxied, router, table, how, range(0, count + 1, step), told)
    unknown = sum(report is Report.UNKNOWN for report in told)
    note = f"{len(told)} cuts, {unknown} told as unknown"
    yield Figure(f"{name}: COMMIT reply cut: wrong outcome reported", wrong, 0, note=note)


async def _cut(
    proxied: Proxied, router: Router, table: str, how: Break, places: range, told: list[Report]
) -> int:
    ledger = Ledger(proxied, router, table)
    told += [await ledger.cut(transaction, place, how, Direction.TO_CLIENT) for place in places]
    try:
        await ledger.compare()
    except AssertionError:
        return 1
    return 0
