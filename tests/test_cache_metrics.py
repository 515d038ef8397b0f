"""The cache in metrics: every look-up once, few series, sums that never go back, and no cost for a hit."""

import re
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from time import monotonic
from types import FrameType
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from router import Router
from router.cache.metrics import OTHER, CacheMetrics, Chosen
from router.cache.tally import Tally, add
from tests.engines import Engine, only

pytestmark = only("sqlite")
READ = "SELECT name FROM seen WHERE id = :id"


@pytest.fixture
async def opened(engine: Engine) -> AsyncIterator[Router]:
    """Open a router whose tenants have the table."""
    async with engine.open(cache={"broadcast": "alone"}) as router:
        for tenant in ("acme", "globex"):
            await router.execute("CREATE TABLE IF NOT EXISTS seen (id INTEGER, name TEXT)", tenant=tenant)
        yield router


def samples(router: Router) -> dict[tuple[str, ...], float]:
    """Return what is exported of the cache: values by name and labels, the tenant first."""
    return {
        (sample.name.removeprefix("router_cache_"), *_values(sample.labels)): sample.value
        for family in parse(router.metrics.render().decode())
        for sample in family.samples
        if sample.name.startswith("router_cache_")
    }


def _values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels, reverse=True)]


async def test_every_read_is_in_one_result(opened: Router) -> None:
    """Hits, misses and bypasses with their reasons are counted for each tenant, beside what they saved."""
    for _ in range(3):
        await opened.fetch_one(READ, {"id": 1}, tenant="acme", cache=60)
    await opened.fetch_one(READ, {"id": 1}, tenant="acme", cache=60, primary=True)
    await opened.fetch_value("SELECT random() FROM seen", tenant="globex", cache=60)
    await opened.fetch_one("SELECT random() FROM seen", tenant="globex", cache=60)
    await opened.execute("INSERT INTO seen VALUES (1, 'a')", tenant="acme")
    await opened.fetch_one(READ, {"id": 1}, tenant="acme", cache=60)
    seen = samples(opened)
    assert {each: seen["requests_total", "acme", each] for each in ("hit", "miss", "bypass")} == {
        "hit": 2,
        "miss": 2,
        "bypass": 1,
    }
    assert seen["bypasses_total", "acme", "primary"] == 1
    assert seen["bypasses_total", "globex", "not_repeatable"] == seen["requests_total", "globex", "bypass"]
    assert seen["refusals_total", "acme", "written"] == 1
    assert seen["saved_seconds_total", "acme"] > 0
    assert (seen["entries",], seen["evictions_total",]) == (1, 0)
    assert seen["bytes",] > 0
    status = opened.status().cache
    assert status is not None
    assert (status.entries, status.tenants["acme"].hits, status.ratio) == (1, 2, 0.5)


def fared(**lookups: int) -> list[tuple[str, Tally]]:
    """Return tallies of tenants by how often each was looked up."""
    made = []
    for tenant, hits in lookups.items():
        tally = Tally()
        tally.hits = hits
        made.append((tenant, tally))
    return made


def test_no_sum_ever_goes_back() -> None:
    """Who has series keeps them though others overtake it; who came too late stays among the others."""
    chosen = Chosen(2)
    assert set(chosen.split(fared(a=1))) == {"a"}
    first = chosen.split(fared(a=1, b=5, c=9, d=7))
    assert {name: tally.hits for name, tally in first.items()} == {"a": 1, "c": 9, OTHER: 12}
    second = chosen.split(fared(a=2, b=500, c=9, d=7, e=1))
    assert {name: tally.hits for name, tally in second.items()} == {"a": 2, "c": 9, OTHER: 508}
    assert sum(tally.hits for tally in second.values()) == 519


async def test_a_thousand_tenants_are_a_hundred_series_and_one(
    opened: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tenants and reasons there are, the number of samples has a bound."""
    counted = fared(**{f"t{number}": number for number in range(1000)})
    for _, tally in counted:
        add(tally.bypasses, "primary")
    monkeypatch.setattr("router.cache.metrics.tallies", lambda _: counted)
    requests, bypasses, *_ = CacheMetrics(opened._running().cache, monotonic).collect()
    assert len(requests.samples) == 101 * 5
    assert len(bypasses.samples) == 101
    assert sum(sample.value for sample in requests.samples if sample.labels["result"] == "hit") == 499_500
    assert all(re.fullmatch(r"t\d{3}|_other", str(sample.labels["tenant"])) for sample in requests.samples)


async def test_metrics_may_be_read_in_a_thread(opened: Router) -> None:
    """A server of metrics runs in its own thread, while the loop counts."""
    problems: list[BaseException] = []
    ended = threading.Event()

    def scrape() -> None:
        try:
            while not ended.is_set():
                opened.metrics.render()
        except BaseException as exc:
            problems.append(exc)

    thread = threading.Thread(target=scrape)
    thread.start()
    tally = opened._running().scope(opened._running().target("acme", None)).tally
    for number in range(20_000):
        add(tally.bypasses, f"r{number % 50}")
        if number % 50 == 49:
            tally.bypasses.clear()
    ended.set()
    thread.join(5)
    assert problems == []


# --- cost ------------------------------------------------------------------------------------------------


class _Calls:
    """Count the calls of Python functions, by their file's name."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.files[frame.f_code.co_filename.rpartition("/router/")[2]] += 1


async def test_a_hit_runs_nothing_of_what_shows_it(opened: Router) -> None:
    """Neither metrics nor status nor the warning are called for a hit, and metrics hear of no event."""
    session = opened.session("acme")
    for _ in range(3):
        await session.fetch_one(READ, {"id": 1}, cache=60)
    opened.metrics.render()
    calls = _Calls()
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        await session.fetch_one(READ, {"id": 1}, cache=60)
    finally:
        sys.setprofile(before)
    status = opened.status().cache
    assert status is not None
    assert status.tenants["acme"].hits == 3
    shown = {"cache/metrics.py", "cache/status.py", "cache/tally.py", "cache/worth.py", "cache/advice.py"}
    assert calls.files.keys() & shown == set()
