"""Choose one of the nodes that may serve a request. Pure: load, chance and counter come in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from router.topology import Node

LATENCY_FLOOR = 0.001
"""Seconds; differences below it are noise on a network.

A node whose latency is not known counts as this fast, so that it gets tried; its requests in flight bound
how much it gets before it has answered once.
"""


class Policy(StrEnum):
    """Name a way to choose among several nodes; a node of weight 0 is chosen only if all have weight 0."""

    WEIGHTED_RANDOM = "weighted_random"  # shares in proportion to the weights
    ROUND_ROBIN = "round_robin"  # strictly in turn; weights other than 0 do not count
    LEAST_IN_FLIGHT = "least_in_flight"  # fewest running requests; ties by weighted chance
    POWER_OF_TWO = "power_of_two"  # of two by weighted chance, the one that will likely answer sooner


# Looking a member up on its enum costs 70 ns on CPython 3.11; every read passes here.
_POWER_OF_TWO = Policy.POWER_OF_TWO


@dataclass(slots=True)
class Load:
    """Hold how busy a node is: requests ``in_flight``, mean ``latency`` in seconds (0.0: not known yet).

    ``waiting`` are the reads that hold a connection until the node has caught up.
    """

    in_flight: int = 0
    latency: float = 0.0
    waiting: int = 0


_IDLE = Load()


def choose(
    policy: Policy,
    candidates: Sequence[Node],
    load: Mapping[Node, Load],
    rng: random.Random,
    counter: int,
) -> Node:
    """Return the node to use among ``candidates`` (at least one).

    ``counter`` is the number of choices made before for this cluster; only round robin looks at it. A node
    that is not in ``load`` counts as idle.
    """
    if len(candidates) == 1:
        return candidates[0]
    nodes, even = _eligible(tuple(candidates))
    if len(nodes) == 1:
        return nodes[0]
    if policy is _POWER_OF_TWO:
        return _cheaper_of_two(nodes, even, load, rng)
    if policy is Policy.ROUND_ROBIN:
        return nodes[counter % len(nodes)]
    if policy is Policy.LEAST_IN_FLIGHT:
        fewest = min(load.get(node, _IDLE).in_flight for node in nodes)
        return _draw([node for node in nodes if load.get(node, _IDLE).in_flight == fewest], rng)
    return _draw(nodes, rng)


def _cheaper_of_two(
    nodes: tuple[Node, ...], even: bool, load: Mapping[Node, Load], rng: random.Random
) -> Node:
    """Draw two nodes and return the one that will likely answer sooner."""
    if even and len(nodes) == 2:  # the most common cluster: both are drawn, so nothing needs to be
        one, two = load.get(nodes[0], _IDLE), load.get(nodes[1], _IDLE)
        first_cost = (one.in_flight + 1) * (one.latency if one.latency > LATENCY_FLOOR else LATENCY_FLOOR)
        second_cost = (two.in_flight + 1) * (two.latency if two.latency > LATENCY_FLOOR else LATENCY_FLOOR)
        if first_cost == second_cost:
            return nodes[rng.random() < 0.5]
        return nodes[first_cost > second_cost]
    if even:
        picked = int(rng.random() * len(nodes))
        first, second = nodes[picked], nodes[picked - 1 - int(rng.random() * (len(nodes) - 1))]
    else:
        first = _draw(nodes, rng)
        second = _draw([node for node in nodes if node is not first], rng)
    return first if _cost(first, load) <= _cost(second, load) else second


@lru_cache(maxsize=1024)
def _eligible(candidates: tuple[Node, ...]) -> tuple[tuple[Node, ...], bool]:
    """Return the nodes that may be chosen, and whether all have the same weight."""
    nodes = tuple(node for node in candidates if node.weight > 0.0) or candidates
    return nodes, len({node.weight for node in nodes}) == 1


def _cost(node: Node, load: Mapping[Node, Load]) -> float:
    """Estimate how long a request would take on ``node``, in seconds per unit of weight."""
    state = load.get(node, _IDLE)
    latency = state.latency
    return (
        (state.in_flight + 1) * (latency if latency > LATENCY_FLOOR else LATENCY_FLOOR) / (node.weight or 1.0)
    )


def _draw(nodes: Sequence[Node], rng: random.Random) -> Node:
    """Draw a node with a chance in proportion to its weight; with equal chances if all weigh 0."""
    total = sum(node.weight for node in nodes)
    if total <= 0.0:
        return nodes[rng.randrange(len(nodes))]
    point = rng.random() * total
    for node in nodes:
        point -= node.weight
        if point < 0.0:
            return node
    return nodes[-1]  # rounding can leave a point just at the end of the last share
