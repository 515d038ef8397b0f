"""Standing: who is the primary, and which replicas may be read, from nothing but their answers."""

import math

import pytest

from router.positions import Lsn, MariadbGtid
from router.standing import (
    History,
    Lag,
    Leadership,
    Limits,
    Observation,
    Out,
    Standing,
    late,
    leadership,
    standing,
)

LIMITS = Limits(10.0, 1000)
GOOD = Standing(None, Lag(0.0, 0, known=True))


def history(*seen: tuple[float, int]) -> History:
    made = History()
    for at, position in seen:
        made.add(at, Lsn(position))
    return made


def replica(position: int, at: float) -> Observation:
    return Observation(at, False, Lsn(position))


def claim(timeline: int | None, at: float = 0.0) -> Observation:
    return Observation(at, True, Lsn(1), timeline)


def led(claims: dict[str, Observation], newest: int = 0, **more: object) -> Leadership:
    given = {"superseded": (), "expected": None, **more}
    return leadership(claims, newest=newest, **given)  # type: ignore[arg-type]


# --- lag -------------------------------------------------------------------------------------------------


def test_lag_is_how_long_a_replica_has_lacked_what_the_primary_had() -> None:
    """Counted from the first position that it has not reached, by our own clock."""
    primary = history((100, 1000), (102, 2000), (104, 3000))
    assert primary.lag(Lsn(3000), 105) == Lag(0.0, 0, known=True)
    assert primary.lag(Lsn(2500), 105) == Lag(1.0, 500, known=True)
    assert primary.lag(Lsn(1000), 105) == Lag(3.0, 2000, known=True)


def test_the_order_of_probes_makes_nobody_late() -> None:
    """What the primary wrote after a replica was asked does not count against that answer."""
    primary = history((100, 1000), (102, 2000))
    assert primary.lag(Lsn(1000), 101) == Lag(0.0, 0, known=True)


def test_an_idle_primary_makes_nobody_late() -> None:
    """Hours without a write leave a replica that has everything current (fault case 21)."""
    primary = history((0, 1000), (3600, 1000), (7200, 1000))
    assert primary.lag(Lsn(1000), 7200) == Lag(0.0, 0, known=True)


def test_what_an_idle_primary_wrote_last_is_lacking_since_then() -> None:
    """That it has stood there for long makes a replica that lacks it later, not earlier."""
    primary = history((100, 1000), (102, 2000), (110, 2000), (120, 2000))
    assert primary.lag(Lsn(1000), 121) == Lag(19.0, 1000, known=True)
    assert primary.asked == 120


def test_lag_is_unknown_until_the_replica_has_reached_anything_that_was_seen() -> None:
    """Then a lower bound is known, and the bytes decide, where they are counted."""
    primary = history((100, 5000))
    unknown = primary.lag(Lsn(4500), 101)
    assert unknown == Lag(1.0, 500)
    assert not unknown.over(LIMITS)
    assert primary.lag(Lsn(1000), 101).over(LIMITS)
    assert primary.lag(Lsn(4500), 111).over(LIMITS)  # for so long at least
    assert History().lag(Lsn(1), 1) == Lag(math.inf, None)
    gtids = History()
    gtids.add(100, MariadbGtid({0: 7}))
    assert gtids.lag(MariadbGtid({0: 6}), 101).over(LIMITS)  # no bytes: unknown counts as late


def test_memory_is_bounded() -> None:
    """A primary that writes all the time is remembered for two minutes and not longer."""
    primary = history(*((float(second), second) for second in range(10_000)))
    assert len(primary._seen) <= 121


def test_a_late_replica_must_get_well_under_the_limit_to_be_read_again() -> None:
    """At the limit it would go in and out with each probe (fault case 11)."""
    at = {seconds: Lag(seconds, 0, known=True) for seconds in (4.0, 9.0, 11.0)}
    assert late(at[11.0], LIMITS, was_late=False)
    assert late(at[9.0], LIMITS, was_late=True)
    assert not late(at[9.0], LIMITS, was_late=False)
    assert not late(at[4.0], LIMITS, was_late=True)


# --- replicas --------------------------------------------------------------------------------------------


def test_a_replica_that_goes_back_is_quarantined_until_it_has_caught_up() -> None:
    """As after a restore from an old backup: its readers would go back in time (fault case 18)."""
    primary = history((100, 2000))
    now = standing(replica(1500, 101), replica(2000, 99), primary, LIMITS, GOOD)
    assert (now.out, now.quarantine) == (Out.WENT_BACK, Out.WENT_BACK)
    still = standing(replica(1900, 102), replica(1500, 101), primary, LIMITS, now)
    assert still.out is Out.WENT_BACK
    assert standing(replica(2000, 103), replica(1900, 102), primary, LIMITS, still).out is None


def test_a_replica_that_has_what_the_primary_does_not_have_is_left_out() -> None:
    """It followed the old primary further than the one that was promoted; its rows are nobody's."""
    primary = history((100, 2000))
    assert standing(replica(2500, 99), None, primary, LIMITS, GOOD).out is Out.DIVERGED
    # asked after the primary, it may well have more
    assert standing(replica(2500, 101), None, primary, LIMITS, GOOD).out is None


# --- the primary -----------------------------------------------------------------------------------------


def test_the_one_that_takes_writes_is_the_primary() -> None:
    """It is found by asking; the configuration is not asked."""
    assert led({"r1": claim(2)}, 2).primary == "r1"
    assert led({"a": claim(None)}).primary == "a"


def test_of_two_the_newer_timeline_wins_and_the_older_is_out() -> None:
    """An old primary that comes back as one gets no writes (fault case 9)."""
    found = led({"old": claim(1), "new": claim(2)}, 2)
    assert found.primary == "new"
    assert found.out == {"old": Out.OBSOLETE}


def test_an_old_primary_stays_out_while_the_new_one_is_away() -> None:
    """A timeline once seen is not forgotten: writes wait rather than go where they would be lost."""
    found = led({"old": claim(1)}, 2)
    assert found.primary is None
    assert "another server was promoted after it" in found.problem


def test_two_of_the_same_standing_stop_all_writes() -> None:
    """Nobody can say which one to believe; both are named (fault case 9)."""
    for timeline in (3, None):
        found = led({"a": claim(timeline), "b": claim(timeline)}, 3 if timeline else 0)
        assert found.primary is None
        assert "a and b both take writes" in found.problem
        assert found.out == {"a": Out.RIVAL, "b": Out.RIVAL}


def test_without_timelines_who_was_replaced_stays_replaced() -> None:
    """MariaDB counts no promotions: the old primary must be seen as a replica before it may lead again."""
    assert led({"old": claim(None), "new": claim(None)}, superseded={"old"}).primary == "new"
    assert led({"old": claim(None)}, superseded={"old"}).primary is None
    assert led({"old": claim(2)}, 2, superseded={"old"}).primary == "old"  # a timeline says more


def test_a_promotion_can_be_left_to_the_configuration() -> None:
    """With follow off only the configured server ever takes writes (fault case 15)."""
    found = led({"r1": claim(2)}, 2, expected="primary")
    assert (found.primary, found.out) == (None, {"r1": Out.RIVAL})
    # whoever was promoted meanwhile: the configuration decides, and says so
    assert led({"primary": claim(1), "r1": claim(2)}, 2, expected="primary").primary == "primary"


def test_nobody() -> None:
    """A cluster of replicas has no primary, and the problem is said."""
    found = led({})
    assert found.primary is None
    assert found.problem == "no server of it takes writes"


@pytest.mark.parametrize("seconds", [0.0, 9.9])
def test_under_the_limit_is_in(seconds: float) -> None:
    """A replica under the limit is read, whatever the bytes: a bulk load of a second is no reason."""
    primary = History()
    primary.add(100.0 - seconds - 1, Lsn(1))
    primary.add(100.0 - seconds, Lsn(50_000))
    assert standing(replica(1, 100.0), None, primary, LIMITS, GOOD).out is None
