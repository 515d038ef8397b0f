"""Figures of the table of statements: what it finds of a long trace, in how much memory, at what cost."""

import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import accumulate
from time import thread_time

from router.events import RequestFinished
from router.ledger import Ledger
from tests.cache.servers import Servers
from tests.figures import Figure
from tests.observe.effort import Effort
from tests.telling import finished

_STATEMENTS = 100_000
_HELD = 500  # observability.slow.digests, if it is not set
_TOP = 50
_SKEWS = (0.8, 1.0, 1.2)
_SEEDS = (1, 2, 3)
_MEAN = -6.0  # of the logarithm of a request's seconds: 2.5 ms
_RATE = 1000.0  # requests in a second of the trace
Trace = list[tuple[str, float, float]]  # fingerprint, seconds, and when


async def figures(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
    """Yield what is found of traces by Zipf's law, the memory for it, and what a request pays."""
    for skew in _SKEWS:
        counts = [found(zipf(skew, seed, effort.trace)) for seed in _SEEDS]
        name = f"top {_TOP} of {_STATEMENTS:,} statements by Zipf's law, skew {skew:g}: found"
        note = f"worst of {len(_SEEDS)} traces of {effort.trace:,} requests; {_HELD} are held"
        yield Figure(name, min(counts), 48, least=True, note=note)
    for name, order in _ORDERS.items():
        trace = _ordered(order, effort.trace)
        yield Figure(f"the same, {name}: found", found(trace), 48, least=True)
    grown = _memory(zipf(1.0, 1, effort.trace))
    yield Figure(f"memory of the table, {_HELD} statements held", grown / 2**20, 4, "MiB")
    for name, trace in (("held", _few(effort.trace)), ("of any kind", zipf(1.0, 4, effort.trace))):
        yield Figure(
            f"to count a request of a statement {name}", _cost(trace), 2, "us", note="of the processor"
        )


def zipf(skew: float, seed: int, requests: int) -> Trace:
    """Return a trace in which the statement of rank n comes n**-skew times as often as the first."""
    rng = random.Random(seed)
    weights = list(accumulate((n + 1) ** -skew for n in range(_STATEMENTS)))
    ranks = rng.choices(range(_STATEMENTS), cum_weights=weights, k=requests)
    return [(f"{rank:016x}", rng.lognormvariate(_MEAN, 1.0), n / _RATE) for n, rank in enumerate(ranks)]


def _few(requests: int) -> Trace:
    return [(f"{n % 300:016x}", 0.002, n / _RATE) for n in range(requests)]


def _rare_first(trace: Trace, often: Counter[str]) -> Iterator[tuple[str, float]]:
    for key, seconds, _ in sorted(trace, key=lambda each: often[each[0]]):
        yield key, seconds


def _often_first(trace: Trace, often: Counter[str]) -> Iterator[tuple[str, float]]:
    for key, seconds, _ in sorted(trace, key=lambda each: -often[each[0]]):
        yield key, seconds


_ORDERS: dict[str, Callable[[Trace, Counter[str]], Iterator[tuple[str, float]]]] = {
    "what is rare comes first": _rare_first,
    "what is rare comes last": _often_first,
}


def _ordered(order: Callable[[Trace, Counter[str]], Iterator[tuple[str, float]]], requests: int) -> Trace:
    trace = zipf(1.0, 1, requests)
    often = Counter(key for key, _, _ in trace)
    return [(key, seconds, n / _RATE) for n, (key, seconds) in enumerate(order(trace, often))]


def found(trace: Trace) -> int:
    """Return how many of the costliest statements of a trace are the costliest of the table."""
    ledger, exact = Ledger(_HELD), Counter[str]()
    for event in _events(trace):
        ledger.finished(event)
        exact[event.fingerprint] += event.total  # type: ignore[assignment]
    costliest = {key for key, _ in exact.most_common(_TOP)}
    return len(costliest & {each.fingerprint for each in ledger.digests(len(trace) / _RATE, _TOP)})


def _events(trace: Trace) -> Iterator[RequestFinished]:
    text = "select a, b, c from t where d = ? and e = ? order by f limit ?"
    for key, seconds, at in trace:
        tenant = f"t{hash((key, at)) % 10_000}"
        yield finished(fingerprint=key, total=seconds, at=1.0 + at, tenant=tenant, rows=1, normalized=text)


def _memory(trace: Trace) -> int:
    """Return the bytes that a table has grown to."""
    tracemalloc.start()
    try:
        ledger = Ledger(_HELD)
        for event in _events(trace):
            ledger.finished(event)
        del event
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def _cost(trace: Trace) -> float:
    """Return the microseconds of processor time that a request costs."""
    events, best = list(_events(trace[:100_000])), float("inf")
    for _ in range(5):
        ledger = Ledger(_HELD)
        began = thread_time()
        for event in events:
            ledger.finished(event)
        best = min(best, thread_time() - began)
    return best / len(events) * 1e6
