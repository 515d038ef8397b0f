"""The store in process: never over its bounds, what was put last, and rather what is asked for often."""

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.cache.frequency import COUNTERS, MOST, Frequency
from router.cache.memory import OVERHEAD, Memory, footprint
from tests.cache import costs
from tests.cache.lru import Lru
from tests.cache.traces import hit_ratio, present, scan, uneven, zipf

KEYS = 40_000
CAPACITY = KEYS // 100
ROOMY = 1 << 40


def store(entries: int) -> Memory[Any]:
    """Return a store that is bounded by its entries."""
    return Memory(ROOMY, entries)


# --- what is there ---------------------------------------------------------------------------------------

keys = strategies.integers(0, 30)


class Stored(RuleBasedStateMachine):
    """Do anything to a small store and to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, tuple[int, int]] = {}  # (number of the put, size) by key
        self.dead: set[int] = set()
        self.gone = self.refused = self.puts = 0
        self.memory: Memory[tuple[int, int]] = Memory(32 * 1_200, 20, self.evicted, self.is_dead)

    def evicted(self, value: tuple[int, int]) -> None:
        key, _ = value
        del self.there[key]
        self.gone += 1

    def is_dead(self, value: tuple[int, int]) -> bool:
        return value[1] in self.dead

    @rule(key=keys, size=strategies.integers(0, 1_000))
    def put(self, key: int, size: int) -> None:
        self.puts += 1
        before = dict(self.there)
        self.there[key] = self.puts, size
        if not self.memory.put(key, (key, self.puts), size):
            assert footprint(size) > 1_200 or key in before
            del self.there[key]
            self.refused += 1

    @rule(key=keys, times=strategies.integers(1, 9))
    def get(self, key: int, times: int) -> None:
        expected = (key, self.there[key][0]) if key in self.there else None
        assert [self.memory.get(key) for _ in range(times)] == [expected] * times

    @precondition(lambda self: self.there)
    @rule(data=strategies.data())
    def die(self, data: strategies.DataObject) -> None:
        self.dead.add(self.there[data.draw(strategies.sampled_from(sorted(self.there)))][0])

    @rule(key=keys)
    def drop(self, key: int) -> None:
        assert self.memory.drop(key) is (self.there.pop(key, None) is not None)

    @rule()
    def clear(self) -> None:
        self.memory.clear()
        self.there.clear()

    @invariant()
    def bounds_are_kept(self) -> None:
        assert len(self.memory) == len(self.there) <= 20
        assert self.memory.bytes == sum(footprint(size) for _, size in self.there.values()) <= 32 * 1_200
        assert (self.memory.evictions, self.memory.refused) == (self.gone, self.refused)

    def teardown(self) -> None:
        found = {key: self.memory.get(key) for key in range(31)}
        assert found == {key: (key, self.there[key][0]) if key in self.there else None for key in range(31)}


TestStored = Stored.TestCase
TestStored.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)


@pytest.mark.parametrize("entries", [0, 1, 2, 3])
def test_a_store_of_few_entries_holds_no_more(entries: int) -> None:
    """The bound holds where a window and a main ring hardly fit in."""
    memory = store(entries)
    for number in range(50):
        memory.put(number, number, 1)
        assert memory.get(number) == (number if entries else None)
        assert len(memory) <= entries
    assert len(memory) == entries


def test_what_was_just_put_is_there_even_in_a_full_store() -> None:
    """A new key passes through the window: it is there for those who ask again at once."""
    memory = store(100)
    hit_ratio(memory, zipf(100, 0.5, 5_000, seed=1))
    assert memory.put("new", "value", 10) and memory.get("new") == "value"


def test_an_entry_that_would_push_out_too_many_is_refused() -> None:
    """An entry takes at most one part in 32 of the bytes, and what was under its key is not left behind."""
    memory: Memory[str] = Memory(32 * footprint(1_600), 100)
    assert memory.put("key", "old", 1_600)
    assert not memory.put("key", "new", 1_601)
    assert memory.get("key") is None and memory.bytes == 0 and memory.refused == 1


def test_what_can_no_longer_be_used_goes_however_often_it_was_asked_for() -> None:
    """A dead entry goes when it comes up for eviction; one that lives and is in use stays."""
    dead: set[int] = set()
    memory: Memory[int] = Memory(ROOMY, 100, dead=dead.__contains__)
    for number in range(100):
        memory.put(number, number, 1)
    for _ in range(20):
        present(memory, range(100))
    dead.update(range(0, 95, 2))
    for number in range(200, 300):  # each seen once
        memory.put(number, number, 1)
    there = present(memory, range(300))
    assert not there & dead
    assert there > set(range(1, 95, 2))


@pytest.mark.parametrize("entries", [20, 100])  # with 20 the window is one entry, linked to itself
def test_a_store_leaves_nothing_to_the_garbage_collector(entries: int) -> None:
    """What goes is freed at once, memory that waits for a collection would be beyond the bound."""
    gc.collect()
    gc.disable()
    try:
        memory = store(entries)
        hit_ratio(memory, zipf(1_000, 0.9, 20_000, seed=1))
        memory.drop(next(iter(present(memory, range(1_000)))))
        memory.clear()
        assert gc.collect() == 0
    finally:
        gc.enable()


# --- which are kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "more"), [(0.8, 0.07), (0.9, 0.07), (1.0, 0.06), (1.1, 0.05), (1.2, 0.03)])
def test_more_is_hit_than_where_the_least_recently_used_go(alpha: float, more: float) -> None:
    """With room for one key in a hundred, whatever the skew: hits of all requests, beside those of an LRU."""
    trace = zipf(KEYS, alpha, 100_000, seed=3)
    ours, plain = hit_ratio(store(CAPACITY), trace), hit_ratio(Lru(ROOMY, CAPACITY), trace)
    assert ours >= plain + more


def test_more_is_hit_also_where_entries_differ_in_size() -> None:
    """Bounded by bytes, with entries of 100 bytes to 10,000, whether frequent or not."""
    trace, size = zipf(KEYS, 1.0, 100_000, seed=4), uneven(100, 10_000)
    memory: Memory[Any] = Memory(CAPACITY * 2_500, KEYS)
    lru: Lru[Any] = Lru(CAPACITY * 2_500, KEYS)
    assert hit_ratio(memory, trace, size) >= hit_ratio(lru, trace, size) + 0.06


def test_a_large_entry_in_use_gets_in_among_small_ones_that_are_not() -> None:
    """Many small entries do not lock a large one out for ever because they are many."""
    memory: Memory[Any] = Memory(1_000_000, 10_000)
    hit_ratio(memory, range(5_000), lambda key: 100)
    asked = [key for number in range(3_000) for key in (number % 10, 10_000 + number)]
    hit_ratio(memory, asked, lambda key: 25_000 if key < 10 else 100)
    assert present(memory, range(10)) == set(range(10))


def test_a_large_entry_does_not_displace_many_small_ones_in_use() -> None:
    """It has to be worth more than all that must go for it together."""
    memory: Memory[Any] = Memory(1_000_000, 10_000)
    hit_ratio(memory, range(2_000), lambda key: 100)
    for _ in range(3):
        small = present(memory, range(2_000))
    for large in range(10_000, 10_010):
        hit_ratio(memory, [large] * 5, lambda key: 25_000)
    assert len(present(memory, small)) >= 0.99 * len(small)


def test_what_was_asked_for_often_while_it_was_new_stays_for_long() -> None:
    """What the window saw of an entry is not lost when it moves on."""
    memory = store(100)
    hit_ratio(memory, list(range(100)) * 2)
    hit_ratio(memory, ["often"] * 7)
    for number in range(1_000, 1_300):
        hit_ratio(memory, [number] * 2)
    assert memory.get("often") is not None


def test_a_scan_does_not_flush_what_is_hot() -> None:
    """Ten times as many keys as there is room for, each asked for once: nine in ten hot keys are left."""
    memory, lru = store(CAPACITY), Lru[Any](ROOMY, CAPACITY)
    left = {}
    for each in (memory, lru):
        hit_ratio(each, zipf(KEYS, 1.0, 60 * CAPACITY, seed=5))
        before = present(each, range(CAPACITY // 2))
        hit_ratio(each, scan(10 * CAPACITY))
        left[each] = len(present(each, before)) / len(before)
    assert left[memory] >= 0.9 and left[lru] == 0


def test_a_change_of_what_is_hot_is_followed() -> None:
    """Old favourites that nobody asks for any more give way: after some time nothing is lost by them."""
    memory = store(CAPACITY)
    hit_ratio(memory, zipf(KEYS, 1.0, 200 * CAPACITY, seed=6))
    settled = hit_ratio(memory, zipf(KEYS, 1.0, 50 * CAPACITY, seed=7))
    old = present(memory, range(CAPACITY // 2))
    hit_ratio(memory, zipf(KEYS, 1.0, 50 * CAPACITY, seed=8, first=KEYS // 2))
    assert hit_ratio(memory, zipf(KEYS, 1.0, 50 * CAPACITY, seed=9, first=KEYS // 2)) >= settled - 0.02
    assert len(present(memory, old)) <= len(old) // 10


def test_a_loop_longer_than_the_store_keeps_a_part_of_it() -> None:
    """Where the least recently used go, each key goes just before it is asked for again."""
    loop = [number % (2 * CAPACITY) for number in range(100 * CAPACITY)]
    assert hit_ratio(Lru(ROOMY, CAPACITY), loop) == 0
    assert hit_ratio(store(CAPACITY), loop) >= 0.3


# --- the sketch ------------------------------------------------------------------------------------------


def test_a_count_is_never_too_low_and_seldom_too_high() -> None:
    """As many keys as it is good for, asked for one to five times: hardly any is taken for another."""
    sketch = Frequency(1_000)
    times = {f"key {number}": number % 5 + 1 for number in range(600)}
    found = {key: [sketch.add(key) for _ in range(count)][-1] for key, count in times.items()}
    assert all(found[key] >= count for key, count in times.items())
    assert sum(found[key] > count for key, count in times.items()) <= 6


def test_counts_end_and_are_forgotten() -> None:
    """What was asked for a million times is forgotten as soon as anything else."""
    sketch = Frequency(64)
    assert [sketch.add("often") for _ in range(MOST + 5)][-1] == MOST
    for number in range(64 * 2 * 6):
        sketch.add(number)
    assert sketch.add("often") <= 3


def test_a_wider_sketch_still_knows_its_keys() -> None:
    """It grows with the store and forgets nothing by that."""
    sketch = Frequency(64)
    counts = {number: sketch.add(number) + 1 for number in range(64)}
    sketch.widen()
    assert sketch.keys == 128
    assert all(sketch.add(number) >= count for number, count in counts.items())


# --- what it costs ---------------------------------------------------------------------------------------


def _calls(work: Callable[[], object]) -> Counter[str]:
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_a_hit_is_one_call() -> None:
    """A hit moves nothing and counts nothing but itself."""
    memory = store(10)
    memory.put("key", "value", 1)
    calls = _calls(lambda: memory.get("key"))
    del calls["test_a_hit_is_one_call.<locals>.<lambda>"]
    assert calls == {"Memory.get": 1}


def test_a_put_into_a_full_store_makes_few_calls() -> None:
    """On the mean of a Zipf trace's misses; what goes is found without looking around."""
    memory = store(CAPACITY)
    hit_ratio(memory, zipf(KEYS, 1.0, 50_000, seed=10))
    puts = [key for key in zipf(KEYS, 1.0, 5_000, seed=11) if memory.get(key) is None]
    calls = _calls(lambda: [memory.put(key, key, 100) for key in puts])
    assert calls.total() / len(puts) <= 14


@pytest.mark.timed
def test_a_hit_costs_little_more_than_a_dict() -> None:
    """On a key as the router makes them, beside ``dict.get`` of an equal key in the same run."""
    ours, plain = costs.gets(15)
    assert ours <= 2.5 * plain


@pytest.mark.parametrize("entries", [10_000, 11_000])
def test_an_entry_takes_no_more_than_is_counted_for_it(entries: int) -> None:
    """Dict, node and sketch, also just after one of them has grown, and while keys come and go."""
    asked = [(number,) for number in range(3 * entries)]
    tracemalloc.start()
    try:
        memory = store(entries)
        for key in asked:
            memory.put(key, None, 1_000)
        taken = tracemalloc.get_traced_memory()[0] / entries
    finally:
        tracemalloc.stop()
    assert 0.6 * OVERHEAD <= taken <= OVERHEAD


def test_the_sketch_is_counted_too() -> None:
    """Its bytes a key are within what is counted for an entry."""
    sketch = Frequency(5_000)
    assert sys.getsizeof(sketch._table) / 5_000 <= 2 * COUNTERS + 1
