"""The cache in metrics: every look-up once, few series, sums that never go back, and no cost for a hit."""

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
from router.cache.tally import Tally, add
from router.metrics import OTHER, Metrics, Parts
from tests.engines import Engine, only
from tests.telling import finished

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


async def test_the_same_tenants_have_series_as_for_requests(engine: Engine) -> None:
    """However many tenants and reasons there are, the number of samples has a bound, and no sum goes back."""
    async with engine.open(cache={"broadcast": "alone"}) as router:
        metrics = Metrics(tenants=2, always=("t7",))
        metrics.attach(router.dispatcher)
        cache = router._running().cache
        metrics.watch(
            Parts(
                {},
                router._pools,
                cache,
                dict.fromkeys(f"t{n}" for n in range(9)),
                lambda most: (),
                monotonic,
                lambda: (),
            )
        )
        for number in range(9):
            tally = cache.tallies[f"t{number}"] = Tally()
            tally.hits = 1 if number == 7 else 10 + number
            add(tally.bypasses, "primary")
            for _ in range(tally.hits):
                router.dispatcher.emit(finished(tenant=f"t{number}"))
        families = {family.name: family for family in metrics.families()}
        hits = {
            sample.labels["tenant"]: sample.value
            for sample in families["router_cache_requests"].samples
            if sample.labels["result"] == "hit"
        }
        assert hits == {"t8": 18, "t6": 16, "t7": 1, OTHER: 75}
        bypasses = {
            sample.labels["tenant"]: sample.value for sample in families["router_cache_bypasses"].samples
        }
        assert bypasses == {"t8": 1, "t6": 1, "t7": 1, OTHER: 6}


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
    shown = {"metrics/cache.py", "cache/status.py", "cache/tally.py", "cache/worth.py", "cache/advice.py"}
    assert calls.files.keys() & shown == set()
