"""Balancing, tested by distribution: shares follow the policy within the noise of chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from router.balancing import LATENCY_FLOOR, Load, Policy, choose
from router.topology import Node, Role

DRAWS = 10_000
# Quantiles of chi square at p = 0.0001 by degrees of freedom: a right sampler fails one seed in 10,000, and
# the seed is fixed.
LIMIT = {1: 15.1, 2: 18.4, 3: 21.1, 4: 23.5}


def nodes(*weights: float) -> list[Node]:
    return [
        Node(f"r{i}", "main", Role.REPLICA, "db", 5432, weight=weight) for i, weight in enumerate(weights)
    ]


def draw(policy: Policy, candidates: list[Node], load: Mapping[Node, Load] | None = None) -> list[int]:
    """Count how often each candidate was chosen in DRAWS choices."""
    rng = random.Random(1)
    counts = Counter(choose(policy, candidates, load or {}, rng, i) for i in range(DRAWS))
    assert set(counts) <= set(candidates)
    return [counts[node] for node in candidates]


def chi_square(counts: list[int], shares: list[float]) -> float:
    expected = [DRAWS * share / sum(shares) for share in shares]
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


@pytest.mark.parametrize(
    "weights", [(1, 1), (9, 1), (1, 9), (1, 2, 3), (5, 1, 1, 3), (0.1, 0.2, 0.3, 0.2, 0.2)]
)
@pytest.mark.parametrize("policy", [Policy.WEIGHTED_RANDOM, Policy.LEAST_IN_FLIGHT])
def test_shares_follow_the_weights(policy: Policy, weights: tuple[float, ...]) -> None:
    """Weighted chance gives each node its share; least in flight does so while all are idle."""
    counts = draw(policy, nodes(*weights))
    assert chi_square(counts, list(weights)) < LIMIT[len(weights) - 1], counts


def test_round_robin_takes_strict_turns() -> None:
    """The counter alone decides, whatever the weights."""
    candidates = nodes(1, 5, 1)
    rng = random.Random(1)
    chosen = [choose(Policy.ROUND_ROBIN, candidates, {}, rng, counter) for counter in range(6)]
    assert chosen == candidates * 2


def test_least_in_flight_takes_the_idle_node() -> None:
    """Fewer running requests win always; a tie is shared."""
    a, b, c = candidates = nodes(1, 1, 1)
    load = {a: Load(in_flight=3), b: Load(in_flight=1), c: Load(in_flight=1)}
    counts = draw(Policy.LEAST_IN_FLIGHT, candidates, load)
    assert counts[0] == 0
    assert chi_square(counts[1:], [1, 1]) < LIMIT[1]


def test_power_of_two_draws_both_of_its_two_by_weight() -> None:
    """With equal costs the first drawn wins, so the shares are those of the weights."""
    candidates = nodes(1, 1, 1, 1)
    assert chi_square(draw(Policy.POWER_OF_TWO, candidates), [1, 1, 1, 1]) < LIMIT[3]


def test_power_of_two_compares_two_distinct_nodes() -> None:
    """The slowest of all is never chosen, because it always meets a faster one."""
    candidates = nodes(1, 1, 1)
    load = {node: Load(latency=latency) for node, latency in zip(candidates, (0.01, 0.02, 0.5), strict=True)}
    counts = draw(Policy.POWER_OF_TWO, candidates, load)
    assert counts[2] == 0
    assert chi_square(counts[:2], [2, 1]) < LIMIT[1], "the fastest wins two of the three pairs"


def test_latency_and_queue_both_steer_power_of_two() -> None:
    """A fast node with a long queue loses to a slower idle one."""
    fast, slow = candidates = nodes(1, 1)
    load = {fast: Load(in_flight=0, latency=0.010), slow: Load(in_flight=0, latency=0.050)}
    assert draw(Policy.POWER_OF_TWO, candidates, load) == [DRAWS, 0]
    load[fast].in_flight = 9
    assert draw(Policy.POWER_OF_TWO, candidates, load) == [0, DRAWS]


def test_weight_scales_the_cost_in_power_of_two() -> None:
    """A node of weight 9 is taken until it has nine times the requests in flight."""
    big, small = candidates = nodes(9, 1)
    load = {big: Load(in_flight=7), small: Load(in_flight=0)}
    assert draw(Policy.POWER_OF_TWO, candidates, load)[1] == 0
    load[big].in_flight = 9
    assert draw(Policy.POWER_OF_TWO, candidates, load)[0] == 0


def test_an_unknown_node_is_tried_but_not_flooded() -> None:
    """Without a known latency a node counts as fast until its requests in flight say otherwise."""
    known, fresh = candidates = nodes(1, 1)
    load = {known: Load(latency=10 * LATENCY_FLOOR)}
    assert draw(Policy.POWER_OF_TWO, candidates, load) == [0, DRAWS]
    load[fresh] = Load(in_flight=10, latency=0.0)
    assert draw(Policy.POWER_OF_TWO, candidates, load) == [DRAWS, 0]


def test_differences_below_the_floor_are_noise() -> None:
    """Two nodes faster than the floor share evenly."""
    a, b = candidates = nodes(1, 1)
    load = {a: Load(latency=LATENCY_FLOOR / 10), b: Load(latency=LATENCY_FLOOR / 2)}
    assert chi_square(draw(Policy.POWER_OF_TWO, candidates, load), [1, 1]) < LIMIT[1]


@pytest.mark.parametrize("policy", Policy)
def test_weight_zero_is_never_chosen_while_another_is_there(policy: Policy) -> None:
    """Weight 0 takes a node out, for every policy and whatever its load."""
    off, a, b = candidates = nodes(0, 1, 1)
    load = {a: Load(in_flight=50, latency=1.0), b: Load(in_flight=50, latency=1.0)}
    counts = draw(policy, candidates, load)
    assert counts[candidates.index(off)] == 0
    assert min(counts[1:]) > 0


@pytest.mark.parametrize("policy", Policy)
def test_all_zero_weights_share_evenly(policy: Policy) -> None:
    """If nothing else is left, nodes of weight 0 serve, with equal shares."""
    assert chi_square(draw(policy, nodes(0, 0)), [1, 1]) < LIMIT[1]


@pytest.mark.parametrize("policy", Policy)
def test_a_single_candidate_needs_no_chance(policy: Policy) -> None:
    """One candidate is returned without a draw, even with weight 0."""
    (only,) = candidates = nodes(0)
    rng = random.Random(3)
    before = rng.getstate()
    assert choose(policy, candidates, {}, rng, 5) is only
    assert rng.getstate() == before
