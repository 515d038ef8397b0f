"""Which request and trace an event belongs to: what the application says, and what is nobody's doing."""

import asyncio

import pytest

from router import Router, acting, events
from router.context import NOBODY, Context, current, trace_in
from router.pools import registry
from router.pools.reaper import Reaper
from router.sharing import Shared
from router.testing import record
from tests.doubles import Server, opened
from tests.replicating import READ, Cluster, config
from tests.replicating import cluster as cluster

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


# --- traceparent -----------------------------------------------------------------------------------------


def test_a_traceparent_names_trace_and_span() -> None:
    """Whoever has no OpenTelemetry passes the header on, and the events say which trace they are of."""
    with acting(traceparent=f"00-{TRACE}-{SPAN}-01", actor="ann") as context:
        assert context == Context(trace_id=TRACE, span_id=SPAN, actor="ann", sampled=True)
        assert current() is context
    assert current() is NOBODY


def test_a_trace_that_is_not_sampled_is_known_as_such() -> None:
    """Nothing should link to what nobody keeps; other flags mean nothing."""
    assert trace_in(f"00-{TRACE}-{SPAN}-00")["sampled"] is False
    assert trace_in(f"00-{TRACE}-{SPAN}-02")["sampled"] is False
    assert trace_in(f"00-{TRACE}-{SPAN}-03")["sampled"] is True


def test_a_later_version_may_say_more() -> None:
    """The specification asks to read of it what is known."""
    assert trace_in(f"01-{TRACE}-{SPAN}-01-more")["trace_id"] == TRACE
    assert trace_in(f" 01-{TRACE}-{SPAN}-01 ")["trace_id"] == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\nforged",
        f"\N{ARABIC-INDIC DIGIT ZERO}0-{TRACE}-{SPAN}-01",
        pytest.param("00-" + "9" * 1_000_000, id="long"),
    ],
)
def test_what_is_no_traceparent_says_nothing(header: str) -> None:
    """It comes from outside: it may be anything, and fails no request."""
    with acting(traceparent=header, context_id="r-1") as context:
        assert context == Context(context_id="r-1")


def test_what_is_given_by_name_goes_before_the_header() -> None:
    """The caller knows better."""
    with acting(traceparent=f"00-{TRACE}-{SPAN}-01", span_id="a" * 16) as context:
        assert (context.trace_id, context.span_id) == (TRACE, "a" * 16)


def test_another_trace_is_taken_to_be_kept() -> None:
    """What was known of the trace around it says nothing of it."""
    with acting(traceparent=f"00-{TRACE}-{SPAN}-00"), acting(actor="ann") as inside:
        assert not inside.sampled
        with acting(trace_id="a" * 32) as other:
            assert other.sampled


# --- what goes on without anybody ------------------------------------------------------------------------


async def test_what_is_swept_away_later_is_nobodys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that sweeps pools is made by the first request, and must not speak in its name for ever."""
    monkeypatch.setattr(registry, "_SWEEP", 0.01)
    async with opened(connections={"max": 4, "idle": "20ms"}) as router:
        with record(router) as recorded:
            with acting(actor="ann", context_id="first"):
                await router.fetch_all("SELECT 1", tenant="acme")
            await asyncio.sleep(0.1)
    (made,) = recorded.of(events.ConnectionOpened)
    (gone,) = recorded.of(events.ConnectionClosed)
    assert (made.context and made.context.actor, gone.context) == ("ann", NOBODY)


async def test_the_reaper_cleans_up_in_nobodys_name() -> None:
    """What outlives its request does not keep its context alive."""
    seen: list[Context] = []

    async def work() -> None:
        seen.append(current())

    with acting(actor="ann"):
        reaper = Reaper()
        reaper.submit(work, lambda: None)
    await asyncio.sleep(0.01)
    assert seen == [NOBODY]


async def test_what_many_wait_for_is_asked_in_nobodys_name() -> None:
    """The first who asks does not lend its name to an answer for all."""

    async def ask() -> Context:
        return current()

    with acting(actor="ann"):
        assert await Shared(ask).answer() is NOBODY


async def test_servers_are_watched_in_nobodys_name(cluster: Cluster) -> None:
    """A change of a replica that is seen hours later is not the doing of the first request."""
    quick = {"interval": "50ms", "timeout": "200ms"}
    async with Router(config(checks=quick)) as router:
        changed: asyncio.Future[events.ReplicaChanged] = asyncio.get_running_loop().create_future()
        with acting(actor="ann", context_id="first"):
            await router.fetch_all(READ, tenant="acme")
        router.dispatcher.subscribe(events.ReplicaChanged, changed.set_result)
        cluster.crash("r1", back=False)
        async with asyncio.timeout(5):
            assert (await changed).context is NOBODY
