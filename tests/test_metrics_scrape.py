"""The exposition: made off the event loop, shared by who asks at once, read by the parsers of Prometheus."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from router import acting
from router.dispatcher import Dispatcher
from router.events import RequestStarted
from router.metrics import Metrics
from router.metrics.merging import GAUGES
from router.metrics.reference import reference
from router.reasons import Reason
from router.waits import Waits
from tests.servers.binaries import ServerMissing
from tests.servers.prometheus import promtool
from tests.telling import PRIMARY, failed, finished

parse_openmetrics: Any = _parse_openmetrics  # has no types
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Setting:
    """Hold metrics with a clock that is set by hand, fed with requests."""

    def __init__(self, **given: Any) -> None:
        self.now = 1000.0
        self.dispatcher = Dispatcher(lambda: self.now)
        self.metrics = Metrics(clock=lambda: self.now, **given)
        self.metrics.attach(self.dispatcher)

    def ask(self, **given: Any) -> None:
        self.dispatcher.emit(finished(**given))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"router_{name}", labels)


@pytest.fixture
def setting() -> Setting:
    return Setting()


def filled(setting: Setting) -> Setting:
    """Give every counter something to tell, with what text formats must escape."""
    setting.ask(
        tenant='a"b\\c\nd', waits=Waits(queue=0.1, connect=0.2, bind=0.3, catch_up=0.4), token="waited"
    )
    setting.ask(node=PRIMARY, lookup=0.1, execute=0.2, fetch=0.3, total=0.6)
    setting.dispatcher.emit(failed(error="StaleReadError"))
    return setting


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_our_text_says_what_prometheus_client_would(setting: Setting, accept: str) -> None:
    """Each sample of our writer is that of the library's, which is slower."""
    metrics = filled(setting).metrics
    read = parse_openmetrics if accept else parse
    ours = {each.name: each for each in read(metrics.render(accept).decode())}
    theirs = {each.name: each for each in parse(generate_latest(metrics.registry).decode())}
    ours.pop("router_scrape_duration_seconds")
    theirs.pop("router_scrape_duration_seconds")
    assert {name: each.type for name, each in ours.items()} == {n: each.type for n, each in theirs.items()}
    for name, family in ours.items():
        assert family.documentation == theirs[name].documentation
        assert [each[:3] for each in family.samples] == [each[:3] for each in theirs[name].samples]


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    """As Prometheus does, with weights and other formats in the same header."""
    metrics = Metrics()
    accept = f"{OPENMETRICS};escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
    assert metrics.render(accept).endswith(b"\n# EOF\n")
    assert metrics.content_type(accept) == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    for other in ("", "*/*", "text/plain", "application/json"):
        assert not metrics.render(other).endswith(b"# EOF\n")
        assert metrics.content_type(other) == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_what_others_register_is_written_too(setting: Setting, accept: str) -> None:
    """An application may add metrics of its own to the registry."""
    Counter("orders", "Orders.", ["shop"], registry=setting.metrics.registry).labels("one").inc(3)
    Gauge("baskets", "Baskets.", registry=setting.metrics.registry).set(7)
    read = parse_openmetrics if accept else parse
    found = {each.name: each for each in read(setting.metrics.render(accept).decode())}
    assert found["baskets"].samples[0].value == 7
    assert [each.value for each in found["orders"].samples if each.name == "orders_total"] == [3]


def test_promtool_is_content(setting: Setting) -> None:
    """Names, units and help are as Prometheus wants them."""
    try:
        assert promtool("check", "metrics", text=filled(setting).metrics.render().decode()) == ""
    except ServerMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


# --- requests --------------------------------------------------------------------------------------------


def test_steps_and_waits_add_up(setting: Setting) -> None:
    """Each step of a request has its seconds, by cluster; waiting for a connection is a histogram too."""
    filled(setting)
    steps = {"lookup": 0.1, "queue": 0.1, "connect": 0.2, "bind": 0.3, "catch_up": 0.4, "execute": 0.2}
    for step, seconds in {**steps, "fetch": 0.3}.items():
        assert setting.value("request_step_seconds_total", cluster="main", step=step) == seconds
    place = {"cluster": "main", "role": "replica"}
    assert setting.value("pool_acquire_duration_seconds_sum", **place) == 1.0
    assert setting.value("pool_acquire_duration_seconds_bucket", **place, le="0.5") == 0
    assert setting.value("pool_acquire_duration_seconds_bucket", **place, le="1.0") == 1
    place = {"cluster": "main", "role": "primary"}
    assert setting.value("pool_acquire_duration_seconds_bucket", **place, le="0.0005") == 2
    assert setting.value("token_wait_duration_seconds_sum", cluster="main") == 0.4
    assert setting.value("tokens_total", cluster="main", outcome="waited") == 1


def test_stale_reads_that_were_avoided_are_counted_by_what_was_done(setting: Setting) -> None:
    """Going to the primary, waiting, asking first and refusing each keep a late replica from answering."""
    for reason in ("own_write", "wait_timed_out", "waited", "checked", "caught_up", "read"):
        setting.ask(reason=Reason(reason))
    setting.dispatcher.emit(failed(error="StaleReadError"))
    found = {
        action: setting.value("stale_avoided_total", cluster="main", action=action)
        for action in ("primary", "waited", "checked", "refused")
    }
    assert found == {"primary": 2, "waited": 1, "checked": 1, "refused": 1}


def test_a_commit_without_an_answer_is_unknown_whoever_made_it(setting: Setting) -> None:
    """A write that commits by itself counts as a transaction does."""
    setting.dispatcher.emit(failed(error="CommitOutcomeUnknown"))
    assert setting.value("commits_unknown_total", cluster="main") == 1


def test_buckets_may_be_others() -> None:
    """All histograms have the bounds that were given."""
    setting = Setting(buckets=(0.1, 1.0))
    setting.ask(total=0.5)
    labels = {"cluster": "main", "role": "replica", "kind": "read"}
    found = [
        setting.value("request_duration_seconds_bucket", **labels, le=le) for le in ("0.1", "1.0", "+Inf")
    ]
    assert found == [0, 1, 1]


def test_metrics_build_no_event_before_a_request(setting: Setting) -> None:
    """Counting what ended is enough: nobody pays for an announcement."""
    assert not setting.dispatcher.wants(RequestStarted)
    assert not setting.dispatcher.announces


# --- exemplars -------------------------------------------------------------------------------------------


def test_exemplars_lead_to_the_latest_trace_of_each_bucket(setting: Setting) -> None:
    """In OpenMetrics each bucket names a trace with its duration and time; the older format has none."""
    with acting(trace_id="0" * 31 + "1"):
        setting.ask(total=0.004, at=1.0)
    with acting(trace_id=TRACE):
        setting.ask(total=0.003, at=2.0)
        setting.ask(total=0.3, at=3.0, tenant="other", reason=Reason.DECLARED_READ)
    setting.ask(total=0.3, at=4.0)
    (family,) = (
        each
        for each in parse_openmetrics(setting.metrics.render(OPENMETRICS).decode())
        if each.name == "router_request_duration_seconds"
    )
    found = {
        each.labels["le"]: (
            each.exemplar.labels["trace_id"],
            each.exemplar.value,
            float(each.exemplar.timestamp),
        )
        for each in family.samples
        if each.exemplar
    }
    assert found == {"0.005": (TRACE, 0.003, 2.0), "0.5": (TRACE, 0.3, 3.0)}
    assert TRACE.encode() not in setting.metrics.render()


def test_without_traces_there_are_no_exemplars(setting: Setting) -> None:
    """Nothing is kept for what nobody traces."""
    setting.ask()
    (cell,) = setting.metrics._requests._cells()
    assert cell.exemplars is None


# --- off the loop ----------------------------------------------------------------------------------------


async def test_a_scrape_is_made_in_a_thread_and_shared(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks at once is given the same text, and no thread is the loop's."""
    made: list[int] = []
    families = setting.metrics.families

    def noted() -> Any:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return families()

    monkeypatch.setattr(setting.metrics, "families", noted)
    bodies = await asyncio.gather(*(setting.metrics.scrape() for _ in range(5)))
    assert len(set(map(id, bodies))) == 1
    assert len(made) == 1
    assert made[0] != threading.get_ident()


async def test_a_text_is_given_for_a_second(setting: Setting) -> None:
    """Two Prometheus servers cost as much as one; each format has its own text."""
    first = await setting.metrics.scrape()
    setting.ask()
    assert await setting.metrics.scrape() is first
    assert b'outcome="ok"' in await setting.metrics.scrape(OPENMETRICS)
    setting.now += 1.1
    assert b'outcome="ok"' in await setting.metrics.scrape()


async def test_who_goes_away_does_not_take_the_text_from_others(setting: Setting) -> None:
    """A scraper that gives up is no reason to begin anew."""
    impatient = asyncio.create_task(setting.metrics.scrape())
    await asyncio.sleep(0)
    patient = asyncio.create_task(setting.metrics.scrape())
    await asyncio.sleep(0)
    impatient.cancel()
    assert b"router_build_info" in await patient
    assert impatient.cancelled()


async def test_a_scrape_that_fails_fails_for_who_asked_and_no_other(setting: Setting) -> None:
    """The next one is made anew."""

    class Broken:
        def collect(self) -> Any:
            raise ValueError("broken")

    broken: Any = Broken()
    setting.metrics.registry.register(broken)
    with pytest.raises(ValueError, match="broken"):
        await setting.metrics.scrape()
    setting.metrics.registry.unregister(broken)
    assert b"router_build_info" in await setting.metrics.scrape()


async def test_the_loop_goes_on_while_a_large_text_is_made() -> None:
    """Thousands of series, and the loop has its turn again and again in the meantime."""
    setting = Setting(tenants=2000)
    for number in range(2000):
        setting.ask(tenant=f"t{number}")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    body = await setting.metrics.scrape()
    turning.cancel()
    assert body.count(b"\n") > 12_000
    assert turns > 20


async def test_the_loop_is_watched_while_somebody_scrapes(setting: Any) -> None:
    """How late it is shows from the second scrape on; nobody pays for it where nobody asks."""
    watch = setting.metrics._process.loop
    assert watch._handle is None
    await setting.metrics.scrape()
    assert watch._handle is not None
    await asyncio.sleep(0.01)
    assert watch.lag is not None
    await setting.metrics.close()
    assert watch._handle is None


async def test_the_watch_ends_when_nobody_scrapes_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after the last scrape there is no timer."""
    monkeypatch.setattr("router.metrics.process._WATCHED", 0.0)
    setting = Setting()
    await setting.metrics.scrape()
    await asyncio.sleep(0.01)
    assert setting.metrics._process.loop._handle is None


# --- all of them -----------------------------------------------------------------------------------------


def test_every_gauge_says_what_several_processes_are_together() -> None:
    """A gauge that has no rule could not be shown by one of many workers."""
    gauges = {each.name.removeprefix("router_") for each in reference() if each.type == "gauge"}
    assert gauges == set(GAUGES)


def test_names_say_their_unit_and_kind() -> None:
    """Seconds and bytes in full, no unit but those, and each metric once."""
    families = reference()
    assert len({each.name for each in families}) == len(families)
    for family in families:
        assert family.text
        assert not family.name.endswith(("_total", "_ms", "_millis", "_sum", "_count", "_bucket"))
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
