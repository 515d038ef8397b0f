"""The warning that the cache does little for a tenant: true, with the reason, and seldom."""

import logging

import pytest

from router.cache.advice import ADVICE
from router.cache.refusal import Bypass, Refusal, Unstored
from router.cache.serving import Refusal as Unserved
from router.cache.tally import Tally, add
from router.cache.worth import ABSENT, Verdict, Worth, judge, main_reason
from router.events import CacheNotWorthIt
from tests.engines import Engine, Recorder, only

ALL = {ABSENT, *Refusal, *Unstored, *Unserved, *Bypass}


def tally(*, hits: int, misses: int, saved: float = 1.0, waited: float = 0.0) -> Tally:
    """Return what was counted of so many look-ups."""
    made = Tally()
    made.hits, made.misses, made.saved, made.waited = hits, misses, saved, waited
    return made


def test_every_reason_has_words() -> None:
    """Each word that metrics have says what it means and what to do, in sentences that read on."""
    assert set(ADVICE) == ALL
    assert all(word == str(word) and word.isidentifier() for word in ALL)
    for fact, remedy in ADVICE.values():
        assert fact[0].islower() or fact.startswith("TABLESAMPLE")
        assert not (fact + remedy).endswith(".")


def test_a_cache_that_answers_enough_and_saves_time_is_worth_it() -> None:
    """A third answered is enough, if the database would have taken longer than all the rest costs."""
    assert judge(tally(hits=0, misses=0)) is None
    assert judge(tally(hits=500, misses=1000, saved=0.5)) is None
    assert judge(tally(hits=300, misses=1000, saved=5.0)) is not None
    assert judge(tally(hits=500, misses=1000, saved=0.02)) is not None
    assert judge(tally(hits=5000, misses=1000, saved=0.5, waited=0.6)) is not None


def test_reads_that_are_never_kept_count_as_unanswered() -> None:
    """Unless the caller has asked for the primary: then nobody expects an answer from memory."""
    made = tally(hits=1000, misses=0)
    made.bypasses.update(primary=50_000, strong=1, bound=1)
    assert judge(made) is None
    made.bypasses[Refusal.NOT_REPEATABLE] = 9_000
    assert judge(made) == Verdict(10_000, 0.1, 1.0, pytest.approx(0.27), Refusal.NOT_REPEATABLE)


def test_the_main_reason_is_that_of_most() -> None:
    """Entries that did not do, answers that were not kept, and what was not there at all are compared."""
    made = tally(hits=10, misses=100)
    assert main_reason(made) == ABSENT
    made.refused[Unserved.WRITTEN] = 51
    assert main_reason(made) == Unserved.WRITTEN
    made.unstored[Unstored.NOT_ADMITTED] = 49
    made.bypasses["primary"] = 1000
    assert main_reason(made) == Unserved.WRITTEN
    assert main_reason(tally(hits=3, misses=0)) is None


def test_it_is_told_once_an_hour_and_of_the_last_reads_only() -> None:
    """A bad hour is told once; after a good one the bad one of before does not count."""
    worth, made = Worth(), Tally()

    def reads(misses: int, hits: int, now: float) -> list[Verdict]:
        found = []
        made.hits += hits
        made.saved += hits
        for _ in range(misses):
            made.misses += 1
            found.append(worth.unanswered(made, now))
        return [each for each in found if each is not None]

    assert reads(999, 0, 0.0) == []
    (verdict,) = reads(1, 0, 0.0)
    assert (verdict.lookups, verdict.ratio, verdict.reason) == (1000, 0.0, ABSENT)
    assert reads(5000, 0, 3599.0) == []
    assert len(reads(1000, 0, 3600.0)) == 1
    assert reads(1000, 9000, 9000.0) == []
    (verdict,) = reads(1000, 10, 9001.0)
    assert (verdict.lookups, verdict.ratio) == (1010, 10 / 1010)


@only("sqlite")
async def test_the_event_says_why_and_what_to_do(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand reads that are never kept are told once, as an event, a log line and a metric."""
    sql = "SELECT name, random() FROM seldom"
    async with engine.open(cache={"broadcast": "alone"}) as router:
        heard = Recorder(router)
        await router.execute("CREATE TABLE seldom (name TEXT)", tenant="acme")
        session = router.session("acme", consistency="eventual")
        with caplog.at_level(logging.WARNING, "router.cache"):
            for _ in range(1001):
                await session.fetch_all(sql, cache=60)
        (event,) = heard.of(CacheNotWorthIt)
        assert (event.tenant, event.lookups, event.ratio) == ("acme", 1000, 0.0)
        assert (event.reason, event.saved) == ("not_repeatable", 0.0)
        assert event.remedy.startswith("it asks the clock, chance, the login or the session. Give the moment")
        (line,) = caplog.messages
        assert line.startswith("the cache answers 0 % of 1000 reads of acme and has saved 0.000 s for 0.0")
        assert b'router_cache_not_worth_it_total{reason="not_repeatable"} 1.0' in router.metrics.render()


def test_tallies_are_the_same_if_all_that_they_count_is() -> None:
    """Each number and each reason makes a difference."""
    assert tally(hits=1, misses=2).same(tally(hits=1, misses=2))
    for name in Tally.__slots__:
        one, two = Tally(), Tally()
        value = getattr(one, name)
        setattr(one, name, {"why": 1} if isinstance(value, dict) else value + 1)
        assert not one.same(two), name


def test_a_window_is_a_difference() -> None:
    """What was counted before is taken away, reason by reason."""
    before, after = tally(hits=1, misses=2), tally(hits=5, misses=9, waited=2.0)
    add(before.refused, "old")
    after.refused.update(old=4, written=1)
    window = after.since(before)
    assert (window.hits, window.misses, window.waited) == (4, 7, 2.0)
    assert window.refused == {"old": 3, "written": 1}
    assert after.refused == {"old": 4, "written": 1}
