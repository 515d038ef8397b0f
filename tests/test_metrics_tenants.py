"""Tenants in metrics: few have series of their own, and no request is lost or counted twice for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from router.dispatcher import Dispatcher
from router.events import SlowRequest
from router.metrics import OTHER, Metrics
from router.metrics.ledger import Ledger
from router.metrics.tenants import Cell, Tenants
from router.waits import Waits
from tests.telling import failed, finished


@dataclass
class World:
    """Hold metrics, a clock that is set by hand, and who is configured."""

    most: int = 3
    always: tuple[str, ...] = ()
    now: float = 1000.0
    dispatcher: Dispatcher = field(default_factory=Dispatcher)

    def __post_init__(self) -> None:
        self.metrics = Metrics(tenants=self.most, always=self.always, clock=lambda: self.now)
        self.metrics.attach(self.dispatcher)

    def ask(self, tenant: str, times: int = 1) -> None:
        for _ in range(times):
            self.dispatcher.emit(finished(tenant=tenant, total=0.5, rows=2, waits=Waits(queue=0.25)))

    def configure(self, *tenants: str) -> None:
        self.metrics._tenants.configured(dict.fromkeys(tenants))

    def rows(self, name: str = "requests") -> dict[str, float]:
        """Return what is exported by tenant, outcomes added up."""
        found: dict[str, float] = {}
        for family in self.metrics.families():
            if family.name == f"router_tenant_{name}":
                for sample in family.samples:
                    tenant = sample.labels["tenant"]
                    found[tenant] = found.get(tenant, 0) + sample.value
        return found

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"router_{name}")


def test_all_have_series_while_there_is_room() -> None:
    """Up to the bound every tenant is shown, from its first request on."""
    world = World()
    for tenant in ("a", "b", "c"):
        world.ask(tenant, 2)
        assert world.rows()[tenant] == 2
    assert OTHER not in world.rows()
    assert world.gauge("tenants_folded") == 0


def test_what_is_told_of_a_tenant() -> None:
    """Requests by outcome, seconds, waits, rows and slow requests are counted."""
    world = World()
    world.ask("a", 3)
    world.dispatcher.emit(failed(tenant="a", total=1.0))
    world.dispatcher.emit(SlowRequest(1.0, finished(tenant="a"), 0.1))
    value = world.metrics.registry.get_sample_value
    assert value("router_tenant_requests_total", {"tenant": "a", "outcome": "ok"}) == 3
    assert value("router_tenant_requests_total", {"tenant": "a", "outcome": "error"}) == 1
    assert world.rows("request_seconds") == {"a": 2.5}
    assert world.rows("wait_seconds") == {"a": 0.75}
    assert world.rows("rows") == {"a": 6}
    assert world.rows("slow_requests") == {"a": 1}


def test_those_that_ask_most_are_shown_the_rest_together() -> None:
    """Who is too many is counted as _other, and how many that are is told."""
    world = World()
    for times, tenant in enumerate("abcdefg", 1):
        world.ask(tenant, times)
    assert world.rows() == {"g": 7, "f": 6, "e": 5, OTHER: 1 + 2 + 3 + 4}
    assert world.gauge("tenants_folded") == 4


def test_whoever_is_always_shown_needs_no_traffic() -> None:
    """Configured tenants have series beside those that ask most."""
    world = World(always=("a",))
    for times, tenant in enumerate("abcdefg", 1):
        world.ask(tenant, times)
    assert world.rows() == {"a": 1, "g": 7, "f": 6, "e": 5, OTHER: 2 + 3 + 4}


def test_none_but_the_named_are_shown_where_that_is_wanted() -> None:
    """With room for none, all but those that are always shown are counted together."""
    world = World(most=0, always=("a",))
    world.ask("a")
    world.ask("b", 9)
    assert world.rows() == {"a": 1, OTHER: 9}


def test_who_overtakes_gets_series_and_begins_at_none() -> None:
    """After a minute the order is looked at anew; what a tenant had before stays where it was counted."""
    world = World(most=1)
    world.ask("a", 10)
    world.ask("b", 5)
    assert world.rows() == {"a": 10, OTHER: 5}
    world.ask("b", 300)
    assert world.rows() == {"a": 10, OTHER: 305}
    world.now += 61
    assert world.rows() == {"b": 0, OTHER: 315}  # what first appears at more is no increase to Prometheus
    world.ask("b", 3)
    world.ask("a", 1)
    assert world.rows() == {"b": 3, OTHER: 316}


def test_series_do_not_change_hands_for_little() -> None:
    """Two that ask about as much do not take turns: series that come and go are worth nothing."""
    world = World(most=1)
    world.ask("a", 10)
    world.ask("b", 9)
    for _ in range(20):
        world.rows()
        world.ask("a", 10)
        world.ask("b", 15)
        world.now += 61
        assert "a" in world.rows()
        assert "b" not in world.rows()


def test_the_series_of_who_is_not_configured_any_more_end() -> None:
    """What it asked stays with the others; its memory is given up."""
    world = World()
    world.configure("a", "b")
    world.ask("a", 4)
    world.ask("b", 2)
    assert world.rows() == {"a": 4, "b": 2}
    world.configure("b")
    assert world.rows() == {"b": 2, OTHER: 4}
    assert set(world.metrics._tenants.cells) == {"b"}
    world.configure("a", "b")
    world.ask("a")
    assert world.rows() == {"a": 1, "b": 2, OTHER: 4}


def test_the_series_of_who_is_silent_for_an_hour_end() -> None:
    """And come back with its next request; what it asked before stays with the others."""
    world = World()
    world.ask("a", 4)
    world.ask("b", 2)
    world.rows()
    for _ in range(60):
        world.now += 61
        world.ask("b")
        world.rows()
    assert world.rows() == {"b": 62, OTHER: 4}
    world.ask("a", 2)
    world.now += 61
    assert world.rows() == {"b": 62, "a": 2, OTHER: 4}


def test_who_is_always_shown_goes_with_the_configuration() -> None:
    """A name that is shown always is not shown for ever: the configuration decides who there is."""
    world = World(always=("a",))
    world.configure("a", "b")
    world.ask("a", 4)
    assert world.rows() == {"a": 4}
    world.configure("b")
    assert world.rows() == {OTHER: 4}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abcdefgh"), st.integers(1, 20)),
        st.tuples(st.just("fail"), st.sampled_from("abcdefgh"), st.integers(1, 3)),
        st.tuples(st.just("pass"), st.just(""), st.sampled_from([1, 30, 61, 4000])),
        st.tuples(st.just("configure"), st.text("abcdefgh", max_size=8), st.just(0)),
        st.tuples(st.just("scrape"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, most=st.integers(0, 4), always=st.sets(st.sampled_from("abc"), max_size=2))
def test_sums_only_grow_whoever_comes_and_goes(
    steps: list[tuple[str, str, int]], most: int, always: set[str]
) -> None:
    """The total is that of all requests, no series goes back while it is there, and there are few of them."""
    world = World(most=most, always=tuple(always))
    asked = 0
    before: dict[str, float] = {}
    for step, tenant, number in [*steps, ("scrape", "", 0)]:
        if step == "ask":
            world.ask(tenant, number)
            asked += number
        elif step == "fail":
            for _ in range(number):
                world.dispatcher.emit(failed(tenant=tenant))
            asked += number
        elif step == "pass":
            world.now += number
        elif step == "configure":
            world.configure(*tenant)
        else:
            rows = world.rows()
            assert sum(rows.values()) == asked
            assert len(rows) <= most + len(always) + 1
            assert all(rows[name] >= count for name, count in before.items() if name in rows)
            assert rows.get(OTHER, 0) >= before.get(OTHER, 0)
            before = rows


def test_processes_that_share_their_metrics_choose_the_same() -> None:
    """Each knows the configuration only: everybody is shown or, of too many, who always is."""
    for most, expected in ((3, {"a": 1, "b": 2}), (1, {"a": 1, OTHER: 2})):
        tenants = Tenants(lambda: 0.0, most, ("a",), alone=False)
        tenants.configured({"a": 1, "b": 2})
        for name, count in (("a", 1), ("b", 2)):
            cell = tenants.cells[name] = Cell()
            cell.ok = count
        rows = Ledger(Cell).fold(tenants.cells, tenants.choose())
        assert {name: cell.ok for name, cell in rows.items()} == expected
