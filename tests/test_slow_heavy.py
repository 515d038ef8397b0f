"""The table of heavy keys: what it promises of any stream, and what it finds in long ones."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from router.heavy import HeavyHitters, Held

KEYS = st.sampled_from([f"k{n}" for n in range(30)])
WEIGHTS = st.floats(0.0, 1e6)


def table(capacity: int) -> HeavyHitters[Held]:
    return HeavyHitters(capacity, Held)


def near(weight: float) -> float:
    """Allow for what adding floats loses."""
    return 1e-9 * (1.0 + weight)


def check(held: HeavyHitters[Held], exact: dict[str, float], capacity: int) -> None:
    total = sum(exact.values())
    slack = near(total)
    for each in held:
        assert each.counted - slack <= exact[each.key] <= each.weight + slack
        assert each.error <= total / capacity + slack
    for key, weight in exact.items():
        assert weight <= total / capacity + slack or key in held.held
    assert len(held) <= capacity


@given(st.lists(st.tuples(KEYS, WEIGHTS)), st.integers(1, 12))
def test_what_it_promises_of_any_stream(stream: list[tuple[str, float]], capacity: int) -> None:
    """Weights are right within ``error``, no error is above total / capacity, and what is above is held."""
    held, exact = table(capacity), Counter[str]()
    for key, weight in stream:
        exact[key] += weight  # type: ignore[assignment]
        found = held.add(key, weight)
        assert (found is None) == (key not in held.held)
        check(held, dict(exact), capacity)


@given(st.lists(st.tuples(KEYS, st.floats(0.0, 10.0), st.floats(0.01, 100.0))), st.integers(1, 12))
def test_what_it_promises_holds_in_any_measure(stream: list[tuple[str, float, float]], capacity: int) -> None:
    """Weights may all be multiplied at any time, as they are to let old ones fade."""
    held, exact = table(capacity), dict[str, float]()
    for key, weight, factor in stream:
        held.add(key, weight)
        exact[key] = exact.get(key, 0.0) + weight
        held.scale(factor)
        exact = {name: each * factor for name, each in exact.items()}
        check(held, exact, capacity)


def test_with_room_for_all_it_counts_exactly() -> None:
    """As long as the table is not full, nothing is missed."""
    held = table(30)
    for n in range(1000):
        held.add(f"k{n % 30}", 1.0 + n % 7)
    assert all(each.error == 0.0 for each in held)
    assert sum(each.weight for each in held) == sum(1.0 + n % 7 for n in range(1000))


def test_a_held_key_may_be_added_to_by_hand() -> None:
    """Who finds a key in ``held`` adds to its weight, and the lightest is found all the same."""
    held = table(3)
    for key in "abc":
        held.add(key, 1.0)
    held.held["a"].weight += 10.0
    held.held["b"].weight += 5.0
    held.add("d", 2.0)
    assert set(held.held) == {"a", "b", "d"}


def test_light_keys_do_not_push_one_another_through_the_table() -> None:
    """A hundred thousand keys seen once each leave those that are held for longer where they are."""
    held = table(100)
    for n in range(100):
        held.add(f"steady {n}", 50.0)
    came = sum(held.add(f"once {n}", 0.1) is not None for n in range(100_000))
    assert came < 200
    assert sum(key.startswith("steady") for key in held.held) > 50


def test_the_heaviest_of_a_long_stream_are_found() -> None:
    """Of 20,000 keys by Zipf's law, a table of 250 has the 50 heaviest, in the right order but for ties."""
    rng = random.Random(7)
    keys = rng.choices(range(20_000), weights=[1 / (n + 1) for n in range(20_000)], k=100_000)
    held, exact = table(250), Counter[str]()
    for key in keys:
        held.add(str(key), 1.0)
        exact[str(key)] += 1
    heaviest = {key for key, _ in exact.most_common(50)}
    shown = sorted(held, key=lambda each: each.counted, reverse=True)[:50]
    assert len(heaviest & {each.key for each in shown}) >= 48
