"""The histories that are made on each engine, and the figures of what was found in them."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.consistency import faults
from tests.consistency.checker import Rule, Verdict, check
from tests.consistency.history import History, Kind, Level, Outcome
from tests.consistency.journeys import STRANGE
from tests.consistency.plan import ALL, Caching, Guarantees, Plan, Settings
from tests.consistency.run import Faults, Progress, Workers, look, no_faults, prepare
from tests.engines import Engine
from tests.faults import Blackhole, Direction
from tests.faults.cluster import Proxied, behind_proxies
from tests.figures import Figure

TENANTS = ("acme", "globex")
_KEY = secrets.token_urlsafe(32)

#: What the processes have configured differently. Only a monitor of PostgreSQL's sees at once which replicas
#: follow a new primary; the others have to find out.
SETTINGS = (
    Settings({}, {}, ("writer", "reader", "monitor")),
    Settings({"checks": {"interval": "200ms"}}, {"freshness": {"wait": "500ms"}}, ("writer", "reader")),
    Settings({"checks": {"interval": "1s"}}, {"freshness": {"wait": "0s"}}, ("writer", "reader")),
)


@dataclass(slots=True)
class Stage:
    """Hold where histories are made: an engine, processes, and whom to tell how far they are."""

    engine: Any
    workers: Workers
    seed: int
    clients: int = 8  # in each process
    tell: Callable[[str, int, int], None] = lambda name, done, total: None
    tables: int = 0

    def plan(
        self,
        engine: Engine | None = None,
        seed: int = 0,
        guarantees: Guarantees = ALL,
        caching: Caching | None = None,
    ) -> Plan:
        """Return the plan of one more history."""
        self.tables += 1
        place: Any = engine or self.engine
        cluster: dict[str, Any] = {**place.cluster(), "connections": {"max": 20}}
        settings: tuple[Settings, ...] = ()
        if place.server is not None:
            cluster["credentials"] |= {"monitor": place.login("router_monitor")}
            settings = SETTINGS
        sections = {
            "version": 1,
            "clusters": {"main": cluster},
            "tokens": {"keys": [_KEY]},
            "defaults": {"slow_query": "1h"},
            "tenants": {name: {"tenant": name, "cluster": "main", **place.tenant(name)} for name in TENANTS},
        }
        return Plan(
            sections,
            str(place.folder),
            f"history_{self.engine.prefix}_{self.tables}",  # users of another history may come late
            self.seed + seed,
            TENANTS,
            self.clients,
            self.workers.count,
            guarantees,
            settings,
            caching,
        )

    async def history(self, name: str, plan: Plan, total: int, harm: Faults = no_faults) -> "Checked":
        """Make a history and check it."""
        await prepare(plan, self.engine.key)
        await self.engine.settle()

        def tell(done: int) -> None:
            self.tell(name, done, total)

        history = await self.workers.run(plan, total, harm, tell)
        await look(plan, history)
        history.notes |= {"name": name, "seed": plan.seed, "guarantees": repr(plan.guarantees)}
        return Checked(name, history, await asyncio.to_thread(check, history))

    def keep(self, made: "Checked") -> str:
        """Write a history to a file in the temporary folder; return where."""
        words = "-".join(made.name.replace(":", "").split())
        folder = Path(tempfile.mkdtemp(prefix="router-consistency-"))
        made.history.save(folder / f"{words}.jsonl")
        report = "\n\n".join(map(str, made.verdict.violations[:200]))
        (folder / f"{words}.txt").write_text(report)
        return str(folder)


@dataclass(frozen=True, slots=True)
class Checked:
    """Hold a history and what was found in it."""

    name: str
    history: History
    verdict: Verdict

    @property
    def words(self) -> str:
        """Say how much happened, so that nobody takes an empty history for a good one."""
        operations = self.history.operations
        reads = [each for each in operations if each.kind is Kind.READ and each.outcome is Outcome.OK]
        judged = [each for each in reads if each.level is Level.SESSION]
        afar = sum(each.replica for each in judged)
        failed = sum(each.outcome is not Outcome.OK for each in operations)
        clean = sum(each.clean for each in self.history.failovers)
        cached = sum(each.cached for each in judged)
        late = len(self.verdict.unnoticed)
        places = f"{afar:,} of them on replicas" + (f" and {cached:,} from memory" if cached else "")
        return (
            f"{len(operations):,} operations, {len(judged):,} reads judged, {places}, "
            f"{clean} clean failovers ({late} strong or bounded reads of who led before), "
            f"{failed} failed or unknown, seed {self.history.notes['seed']}"
        )


# --- all guarantees on -----------------------------------------------------------------------------------


async def kept(stage: Stage, name: str, total: int, harm: Faults) -> AsyncIterator[Figure]:
    """Make a history with all guarantees on: nothing may be found."""
    made = await stage.history(name, stage.plan(), total, harm)
    yield clean(stage, f"{name}: violations in {total:,} operations", made)
    yield unexpected(name, made)


def unexpected(name: str, made: Checked) -> Figure:
    """Count the errors that nobody may see."""
    strange = [each.reason for each in made.history.operations if each.reason.startswith(STRANGE)]
    strange += made.history.strays
    words = "errors that are no RouterError, or that nobody caught"
    return Figure(f"{name}: {words}", len(strange), 0, note=(strange or [""])[0])


def clean(stage: Stage, name: str, made: Checked) -> Figure:
    """Count the violations; a history that has some is kept."""
    verdict, note = made.verdict, made.words
    if verdict.violations:
        kinds = ", ".join(f"{count} {rule}" for rule, count in verdict.counts.most_common())
        note = f"{kinds}; see {stage.keep(made)}; {note}"
    return Figure(name, len(verdict.violations), 0, note=note)


# --- a guarantee off: the checker must find it ------------------------------------------------------------


#: What is switched off, and which promises must then be found broken.
OFF: tuple[tuple[str, Guarantees, tuple[Rule, ...]], ...] = (
    (
        "guarantees off",
        Guarantees(level="eventual", tokens=False),
        (Rule.READ_YOUR_WRITES, Rule.MONOTONIC_READS),
    ),
    ("tokens dropped", Guarantees(tokens=False), (Rule.READ_YOUR_WRITES, Rule.MONOTONIC_READS)),
)


async def switched_off(
    stage: Stage, name: str, total: int, harm: Callable[[int], Faults], times: int, off: Any = OFF
) -> AsyncIterator[Figure]:
    """Make histories with something switched off, each ``times`` times: it must be missed every time."""
    for words, guarantees, rules in off:
        found: dict[Rule, list[int]] = {rule: [] for rule in rules}
        for number in range(times):
            plan = stage.plan(seed=number, guarantees=guarantees)
            made = await stage.history(f"{name}: {words}", plan, total, harm(plan.seed))
            for rule in rules:
                found[rule].append(made.verdict.counts[rule])
        for rule, counts in found.items():
            yield missed(f"{name}: {words}: {rule} found", counts, total)


def missed(name: str, counts: list[int], total: int) -> Figure:
    """Require that each of some histories has violations."""
    note = f"the fewest of {len(counts)} histories of {total:,} operations: {', '.join(map(str, counts))}"
    return Figure(name, min(counts), 1, least=True, note=note)


async def repeated(stage: Stage, name: str, total: int, cuts: int) -> AsyncIterator[Figure]:
    """Take the answers to writes away: there are duplicates if a client repeats them, and none else."""
    with behind_proxies(stage.engine) as proxied:
        for guarantees in (ALL, Guarantees(once=False)):
            plan = stage.plan(proxied.engine, guarantees=guarantees)
            made = await stage.history(f"{name}: answers lost", plan, total, _answers_lost(proxied, cuts))
            if guarantees is ALL:
                yield clean(stage, f"{name}: answers to writes lost: violations", made)
            else:
                counts = [made.verdict.counts[Rule.DUPLICATE]]
                yield missed(f"{name}: unknown writes repeated: duplicates found", counts, total)


def _answers_lost(proxied: Proxied, cuts: int) -> Faults:
    async def run(progress: Progress) -> None:
        for number in range(cuts):
            await progress.reach((number + 0.5) / cuts)
            hole = Blackhole(direction=Direction.TO_CLIENT)
            await faults.off_loop(proxied.primary.add, hole)
            await asyncio.sleep(0.1)
            await faults.off_loop(proxied.primary.remove, hole)

    return run


async def lossy(stage: Stage, name: str, total: int, harm: Faults) -> AsyncIterator[Figure]:
    """Promote a replica that lacks acknowledged writes: they are found, and those who know them are told."""
    made = await stage.history(f"{name}: lossy failover", stage.plan(), total, harm)
    lost = made.verdict.lost
    acknowledged = sum(each.outcome is Outcome.OK for each in lost)
    yield Figure(f"{name}: lossy failover: lost writes found", acknowledged, 1, least=True)
    yield clean(stage, f"{name}: lossy failover: violations, and sessions that were not told", made)
    words = "pairs of a session and a lost write that it knew"
    yield Figure(f"{name}: lossy failover: told", made.verdict.reported, 1, least=True, note=words)
