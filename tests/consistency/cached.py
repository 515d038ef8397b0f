"""The same histories with cached reads: no promise is broken, and every rule of the cache is missed."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.consistency import faults
from tests.consistency.checker import Rule
from tests.consistency.history import Level, Outcome
from tests.consistency.plan import Caching, Guarantees, Plan
from tests.consistency.run import Faults, no_faults
from tests.consistency.scenes import Checked, Stage, clean, missed, unexpected
from tests.faults import Direction, Latency
from tests.faults.cluster import behind_proxies
from tests.figures import Figure

_HITS = 8.0  # % of the cached reads of sessions that memory must have answered: else nothing was proven
_LATE = 0.03  # seconds by which the primary's answers come later than the replicas'
NONE, ALONE = Caching("none"), Caching("alone")
#: Fewer writes, where nobody vouches for an answer that is older than another one.
FEW = Caching("none", shares=(0.0, 0.0, 0.15, 0.35))


async def kept(stage: Stage, name: str, total: int, harm: Faults, caching: Caching) -> AsyncIterator[Figure]:
    """Make a history with all rules on: nothing may be found, and enough must have come from memory."""
    words = f"{name}, {caching.broadcast}"
    made = await stage.history(words, stage.plan(caching=caching), total, harm)
    yield clean(stage, f"{words}: violations in {total:,} operations", made)
    yield _hits(f"{words}: cached reads of sessions that memory answered", made)
    yield unexpected(words, made)


def _hits(name: str, made: Checked) -> Figure:
    reads = [
        each
        for each in made.history.operations
        if each.cache and each.level is Level.SESSION and each.outcome is Outcome.OK
    ]
    found = sum(each.cached for each in reads)
    share = found / len(reads) * 100 if reads else 0.0
    return Figure(name, share, _HITS, "%", least=True, note=f"{found:,} of {len(reads):,}")


class Trial(NamedTuple):
    """Name a rule to be switched off, what must break then, and what it takes for that to show."""

    rule: str
    broken: tuple[Rule, ...]
    caching: Caching
    late: bool = False  # the primary's answers come late: replicas show a write before its writer knows


_PAST = (Rule.READ_YOUR_WRITES, Rule.MONOTONIC_READS)
_DAMAGED = Caching(damaged=0.5)  # they stand for all that is there when they arrive
TRIALS = (
    Trial("own writes", _PAST, _DAMAGED),
    Trial("tokens", _PAST, NONE),
    Trial("shown", (Rule.MONOTONIC_READS,), NONE),
    Trial("memory of what was cached", (Rule.MONOTONIC_READS,), NONE),
    Trial("reads after a cached one", (Rule.MONOTONIC_READS,), NONE),
    Trial("bound", (Rule.FRESHNESS,), Caching(bounded=20)),
    Trial("age of answers", _PAST, ALONE),
    Trial("invalidation", _PAST, ALONE),
)
_CALM = Caching("alone", shares=(0.0, 0.0, 0.05, 0.2))  # else no answer outlives the writes
#: Shows rarely: it takes some thousand operations.
RARE = (Trial("writes in flight", _PAST, _CALM, late=True),)


async def controls(stage: Stage, name: str, total: int, *, late: bool) -> AsyncIterator[Figure]:
    """Do to histories with all rules on what is done to those with one off: nothing may be found."""
    for trial in (Trial("", (), _DAMAGED), *[Trial("", (), _CALM, late=True)] * late):
        words = f"{name}: {'answers late' if trial.late else 'tokens damaged'}"
        made = await _made(stage, words, trial, total, stage.seed)
        yield clean(stage, f"{words}: violations", made)


async def switched_off(
    stage: Stage, name: str, total: int, times: int, trials: Sequence[Trial] = TRIALS
) -> AsyncIterator[Figure]:
    """Make histories with one rule switched off, each ``times`` times: it must be missed every time."""
    for trial in trials:
        counts = []
        for number in range(times):
            words = f"{name}: without {trial.rule}"
            made = await _made(stage, words, trial, total, stage.seed + number)
            counts.append(sum(made.verdict.counts[rule] for rule in trial.broken))
        yield missed(f"{name}: without {trial.rule}: broken promises found", counts, total)


async def _made(stage: Stage, name: str, trial: Trial, total: int, seed: int) -> Checked:
    harm = no_faults if trial.late else faults.lagging(stage.engine.server, seed)
    with _plan(stage, trial, seed) as plan:
        return await stage.history(name, plan, total, harm)


@contextmanager
def _plan(stage: Stage, trial: Trial, seed: int) -> Iterator[Plan]:
    given: dict[str, Any] = {
        "seed": seed - stage.seed,
        "guarantees": Guarantees(without=trial.rule),
        "caching": trial.caching,
    }
    if not trial.late:
        yield stage.plan(**given)
        return
    with behind_proxies(stage.engine) as proxied:
        proxied.primary.add(Latency(_LATE, direction=Direction.TO_CLIENT))
        yield stage.plan(proxied.engine, **given)


async def lossy(stage: Stage, name: str, total: int, harm: Faults) -> AsyncIterator[Figure]:
    """Lose writes in a failover: who has seen them, also in memory, is told. It ends the cluster."""
    made = await stage.history(f"{name}: lossy failover", stage.plan(caching=NONE), total, harm)
    lost = sum(each.outcome is Outcome.OK for each in made.verdict.lost)
    yield Figure(f"{name}: lossy failover: lost writes found", lost, 1, least=True)
    yield clean(stage, f"{name}: lossy failover: violations, and sessions that were not told", made)


async def lossy_without(stage: Stage, name: str, total: int, harm: Faults) -> AsyncIterator[Figure]:
    """Lose writes in a failover that the cache knows nothing of: it gives them to who has not seen them."""
    plan = stage.plan(guarantees=Guarantees(without="failover"), caching=ALONE)
    made = await stage.history(f"{name}: without failover", plan, total, harm)
    yield missed(
        f"{name}: without failover: broken promises found", [made.verdict.counts[Rule.UNTOLD]], total
    )
