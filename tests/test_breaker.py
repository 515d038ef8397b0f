"""Breaker: out at once for what speaks of the node, back only after its ban and a good probe."""

import random

from router.breaker import Breaker, lost, probed, tripped


class Middle(random.Random):
    """Draw the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


RNG = Middle()


def test_a_failure_of_the_node_bans_it_until_a_good_probe_after_the_ban() -> None:
    """Neither time nor a probe alone brings it back (breaker)."""
    out = tripped(Breaker(), "unreachable", 100.0, RNG)
    assert (out.banned, out.until, out.reason) == (True, 101.0, "unreachable")
    assert probed(out, 100.5).banned
    assert not probed(out, 101.0).banned


def test_bans_grow_while_it_keeps_failing_and_shrink_after_a_calm() -> None:
    """Doubled each time up to a minute; a minute without a failure is forgotten."""
    state, now, bans = Breaker(), 0.0, []
    for _ in range(9):
        state = tripped(state, "silent", now, RNG)
        bans.append(state.until - now)
        now = state.until
        state = probed(state, now)
    assert bans == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert tripped(state, "silent", now + 60, RNG).until == now + 61


def test_a_lost_connection_counts_only_with_others() -> None:
    """An administrator may end a session of a healthy server; three within ten seconds are the server."""
    state = Breaker()
    for now in (0.0, 9.0, 18.0, 27.0):
        state = lost(state, "losing", now, RNG)
    assert not state.banned
    state = lost(lost(state, "losing", 28.0, RNG), "losing", 29.0, RNG)
    assert state.banned and state.reason == "losing"


def test_a_banned_node_stays_as_it_is() -> None:
    """More failures do not make a ban longer: those requests were on their way already."""
    out = tripped(Breaker(), "unreachable", 0.0, RNG)
    assert tripped(out, "silent", 0.5, RNG) is out


def test_the_last_hope_need_not_sit_out_its_ban() -> None:
    """If nobody else is left a good probe is enough (fault case 19)."""
    out = tripped(Breaker(), "unreachable", 0.0, RNG)
    assert not probed(out, 0.1, needed=True).banned


def test_jitter_keeps_routers_from_coming_back_together() -> None:
    """Bans of many processes end at different moments."""
    rng = random.Random(1)
    ends = {round(tripped(Breaker(), "silent", 0.0, rng).until, 3) for _ in range(50)}
    assert len(ends) > 40 and min(ends) >= 0.8 and max(ends) <= 1.2
