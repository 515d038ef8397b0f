"""What one statement has cost: a value to look at, to send elsewhere, and to add up over processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import exp2
from typing import Any, Final, TypeVar

K = TypeVar("K")
N = TypeVar("N", int, float)

TEXT_LIMIT: Final = 2_000
"""Characters of a statement that are kept."""

STEPS: Final = 8
"""Buckets between a duration and its double: they are 9 % wide, so their middles 4.5 % off at most."""

ORIGIN: Final = 30 * STEPS
"""Bucket of one second."""

TENANTS: Final = 5
"""How many tenants of a statement are named."""

OTHERS: Final = "_other"
"""Stands for all that are not named."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold how a server means to run a statement; without literals."""

    text: str
    node: str
    at: float  # wall clock


@dataclass(frozen=True, slots=True)
class Digest:
    """Sum up the requests of one statement since it is held; times in seconds."""

    fingerprint: str
    text: str  # without literals, at most TEXT_LIMIT characters
    kind: str
    tables: tuple[str, ...]
    count: int  # of requests that were not answered from memory
    cached: int  # of requests that were
    slow: int  # over their threshold
    errors: int
    rows: int
    total: float
    waited: float  # of the total: until a connection was had
    maximum: float
    load: float  # how many ran at once lately: seconds of the last minute or two, for each second
    missed: float  # at most this was spent in the last hours before it came in
    tenants: Mapping[str, float]  # those that spent most, and how much; _other is the rest
    nodes: Mapping[str, int]  # requests by the node that was asked last
    since: float  # wall clock, as the others below
    last: float
    trace_id: str | None  # of the last request that had one
    error: str | None  # of the last that failed: name of the class in router.errors
    durations: Mapping[int, int]  # of about the last 4,000 requests, by bucket; see :func:`quantile`
    plan: Plan | None = None

    @property
    def p50(self) -> float:
        """Return what half of about the last 4,000 requests took at most."""
        return min(quantile(self.durations, 0.5), self.maximum)

    @property
    def p99(self) -> float:
        """Return what 99 of a hundred of about the last 4,000 requests took at most."""
        return min(quantile(self.durations, 0.99), self.maximum)

    @property
    def mean(self) -> float:
        """Return what a request took on average."""
        return self.total / self.count if self.count else 0.0

    def json(self) -> dict[str, Any]:
        """Return all of it for :func:`json.dumps`; :func:`parsed` reads it again."""
        found = {name: getattr(self, name) for name in _NAMES}
        found["plan"] = None if self.plan is None else asdict(self.plan)
        return found | {"p50": self.p50, "p99": self.p99, "mean": self.mean}


_NAMES: Final = tuple(each.name for each in fields(Digest))


def parsed(found: Mapping[str, Any]) -> Digest:
    """Return the digest that :meth:`Digest.json` was made of, as read from JSON; raises ValueError."""
    try:
        given = {name: found[name] for name in _NAMES}
        given["tables"] = tuple(given["tables"])
        given["durations"] = {int(bucket): int(count) for bucket, count in given["durations"].items()}
        given["plan"] = None if given["plan"] is None else Plan(**given["plan"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError("this is not a digest") from exc
    return Digest(**given)


def merged(digests: Iterable[Digest]) -> list[Digest]:
    """Add up what several processes say of the same statements, the largest total first."""
    found: dict[str, Digest] = {}
    for each in digests:
        known = found.get(each.fingerprint)
        found[each.fingerprint] = each if known is None else _both(known, each)
    return sorted(found.values(), key=lambda each: each.total, reverse=True)


def _both(one: Digest, other: Digest) -> Digest:
    earlier, later = sorted((one, other), key=lambda each: each.last)
    return replace(
        later,
        count=one.count + other.count,
        cached=one.cached + other.cached,
        slow=one.slow + other.slow,
        errors=one.errors + other.errors,
        rows=one.rows + other.rows,
        total=one.total + other.total,
        waited=one.waited + other.waited,
        maximum=max(one.maximum, other.maximum),
        load=one.load + other.load,
        missed=one.missed + other.missed,
        tenants=ranked(_sum(one.tenants, other.tenants), TENANTS),
        nodes=ranked(_sum(one.nodes, other.nodes)),
        since=min(one.since, other.since),
        trace_id=later.trace_id or earlier.trace_id,
        error=later.error or earlier.error,
        durations=_sum(one.durations, other.durations),
        plan=max((one.plan, other.plan), key=lambda plan: 0.0 if plan is None else plan.at),
    )


def _sum(one: Mapping[K, N], other: Mapping[K, N]) -> dict[K, N]:
    found = dict(one)
    for key, value in other.items():
        found[key] = found[key] + value if key in found else value
    return found


def ranked(parts: Mapping[str, N], most: int | None = None) -> dict[str, N]:
    """Return the largest parts first, at most so many by name; the rest as _other, at the end."""
    names = sorted(parts, key=lambda name: (name == OTHERS, -parts[name]))
    many = len(names) if most is None else most
    found = {name: parts[name] for name in names[:many]}
    for name in names[many:]:
        found[OTHERS] = found.get(OTHERS, 0) + parts[name]
    return found


def quantile(durations: Mapping[int, int], share: float) -> float:
    """Return the seconds that ``share`` of the durations are at most, within 4.5 %; 0 if there are none."""
    left = share * sum(durations.values())
    for bucket in sorted(durations):
        left -= durations[bucket]
        if left <= 0:
            return exp2((bucket + 0.5 - ORIGIN) / STEPS)
    return 0.0
