"""The figures that are to be reached, each beside its limit."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.results import Cell, Results, short


@dataclass(frozen=True)
class Figure:
    """Hold one figure: at least ``limit`` if ``least``, else under it."""

    name: str
    value: float
    limit: float
    least: bool = True

    @property
    def ok(self) -> bool:
        """Tell whether the figure is reached."""
        return self.value >= self.limit if self.least else self.value < self.limit

    def json(self) -> dict[str, Any]:
        """Return the figure as one object."""
        return {"name": self.name, "value": short(self.value), "limit": self.limit, "ok": self.ok}


_RATIOS = (
    ("point_read", "router", "bare_asyncpg", 0.80),
    ("point_read", "router", "asyncpg_pool", 2.0),
    ("point_read", "router", "sqlalchemy_text", 5.0),
    ("point_read", "router", "hasql", 4.0),
    ("point_read", "router_orm", "sqlalchemy_session", 0.95),
    ("write", "router", "bare_asyncpg", 0.80),
    ("transaction", "router", "bare_asyncpg", 0.85),
    ("rows_10000", "router", "bare_asyncpg", 0.85),
    ("point_read", "router_mysql", "bare_aiomysql", 0.90),
    ("point_read", "router_sqlite", "bare_aiosqlite", 0.85),
)
_ADDED = (("uvloop", 25.0), ("asyncio", 35.0))  # µs of CPU a request over the bare driver, 1 task
_TENANTS = (  # key of the line with the most tenants, limit, whether at least
    ("vs_one_tenant", 0.95, True),
    ("bytes_per_tenant", 2048.0, False),
    ("load_10000_files_s", 4.0, False),
)
_DECISION = (("cpu_us", "statement cached", 4.0), ("cold_us", "cold classification", 400.0))
_GROWTH = 1.25  # peak memory of a stream of ten times the rows


def figures(results: Results) -> Iterator[Figure]:
    """Yield those figures that were measured in this run."""
    for workload, mine, other, limit in _RATIOS:
        ratio = results.ratio(Cell(workload, mine, 16, "uvloop"), Cell(workload, other, 16, "uvloop"))
        if ratio is not None:
            yield Figure(f"{workload}: {mine} vs {other}, throughput", ratio, limit)
    for loop, limit in _ADDED:
        pairs = results.compare(
            Cell("point_read", "router", 1, loop), Cell("point_read", "bare_asyncpg", 1, loop), "cpu_us"
        )
        if pairs:
            added = median(mine - bare for mine, bare in pairs)
            yield Figure(f"point_read: added CPU a request, 1 task, {loop}, µs", added, limit, least=False)
    yield from _alone(results)
    streamed = results.extra.get(Cell("stream", "router", 1, "uvloop"), {})
    if streamed:
        growth = streamed["peak_kib"] / streamed["peak_kib_of_a_tenth"]
        yield Figure("stream: peak memory of 100,000 rows vs 10,000", growth, _GROWTH, least=False)


def _alone(results: Results) -> Iterator[Figure]:
    for line in results.lines:
        known = line.json()
        if line.cell.workload == "decision":
            for key, what, limit in _DECISION:
                yield Figure(f"decision: {what}, µs", known[key], limit, least=False)
        elif "bytes_per_tenant" in known:
            for key, limit, least in _TENANTS:
                yield Figure(f"tenants: {key}", known[key], limit, least)
