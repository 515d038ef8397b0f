"""What is done to servers during a history, all of it real: lag, crashes, and changes of the primary."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any

from tests.consistency.run import Faults, Progress
from tests.servers import MariadbCluster, PostgresqlCluster

LAG = 0.5  # seconds that one replica is held back

Cluster = PostgresqlCluster | MariadbCluster
Step = Callable[[Progress], Coroutine[Any, Any, None]]


async def off_loop(work: Callable[..., Any], *args: Any) -> Any:
    """Run what blocks, such as stopping a server, beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *args))


class Harm:
    """Do harm to the servers of a cluster, which keeps its replicas in order of their roles of now."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster: Any = cluster
        self._rng = rng

    async def lag(self, _: Progress) -> None:
        """Hold the last replica back, and no other."""
        *others, last = self._cluster.replicas
        for replica in others:
            await off_loop(replica.hold_back, 0)
        await off_loop(last.hold_back, LAG)

    async def pause(self, _: Progress) -> None:
        """Let the first replica stand still for a moment, so that the held back one is ahead."""
        first = self._cluster.replicas[0]
        await off_loop(first.pause)
        await asyncio.sleep(self._rng.uniform(0.6, 1.2) * LAG)
        await off_loop(first.resume)

    async def pause_all(self, _: Progress) -> None:
        """Let all replicas stand still for a moment."""
        for replica in self._cluster.replicas:
            await off_loop(replica.pause)
        await asyncio.sleep(self._rng.uniform(0.6, 1.2) * LAG)
        for replica in self._cluster.replicas:
            await off_loop(replica.resume)

    async def kill_replica(self, _: Progress) -> None:
        """Kill a replica, and bring it back."""
        replica = self._rng.choice(self._cluster.replicas)
        await off_loop(replica.kill)
        await asyncio.sleep(self._rng.uniform(0, 0.5))
        await off_loop(replica.start)

    async def kill_primary(self, _: Progress) -> None:
        """Kill the primary, and bring it back: writes that are under way have an unknown outcome."""
        await off_loop(self._cluster.primary.kill)
        await off_loop(self._cluster.primary.start)

    async def switch(self, progress: Progress) -> None:
        """Let another server be the primary that has all; no acknowledged write may be lost."""
        began = monotonic()
        await off_loop(self._cluster.switch, self._rng.choice(self._cluster.replicas))
        kept = isinstance(self._cluster, MariadbCluster)  # PostgreSQL has to restart to follow
        progress.failed_over(began, monotonic(), clean=True, kept=kept)

    async def checkpoint(self, _: Progress) -> None:
        """Let PostgreSQL write down what it would within minutes: which timeline a replica is on."""
        await off_loop(self._cluster.run, "CHECKPOINT")
        await asyncio.sleep(1.5 * LAG)  # the replica that is held back has to get there
        for replica in self._cluster.replicas:
            await off_loop(replica.run, "CHECKPOINT")

    async def lose(self, progress: Progress) -> None:
        """Promote a replica that has not received what the primary acknowledged last."""
        new = self._cluster.replicas[0]
        await off_loop(new.cut_off)
        await asyncio.sleep(LAG)
        began = monotonic()
        await off_loop(self._cluster.primary.kill)
        await off_loop(self._cluster.promote, new)
        progress.failed_over(began, monotonic(), clean=False)


def schedule(steps: list[Step], rounds: int) -> Faults:
    """Return faults that are done one after the other, evenly over a history, in so many rounds."""

    async def run(progress: Progress) -> None:
        count = rounds * len(steps)
        for number in range(count):
            await progress.reach(number / count)
            await steps[number % len(steps)](progress)

    return run


def postgresql(cluster: PostgresqlCluster, seed: int, rounds: int) -> Faults:
    """Return all that is done to PostgreSQL, short of what loses writes."""
    harm = Harm(cluster, random.Random(seed))
    before = [harm.lag, harm.pause, harm.kill_replica, harm.pause_all]
    steps = [*before, harm.switch, harm.lag, harm.checkpoint, harm.kill_primary]
    return schedule(steps, rounds)


def mariadb(cluster: MariadbCluster, seed: int, rounds: int) -> Faults:
    """Return all that is done to MariaDB, short of what loses writes.

    It forgets at a restart that it must not take writes: nobody is killed until the old primary is back.
    """
    harm = Harm(cluster, random.Random(seed))
    steps = [harm.lag, harm.pause, harm.kill_replica, harm.kill_primary, harm.switch, harm.lag, harm.switch]
    return schedule(steps, rounds)


def lagging(cluster: Cluster, seed: int) -> Faults:
    """Return nothing but lag, of a different length on each replica."""
    harm = Harm(cluster, random.Random(seed))
    return schedule([harm.lag, harm.pause], 2)


def lossy(cluster: Cluster, seed: int) -> Faults:
    """Return a failover that loses writes, in the middle."""
    harm = Harm(cluster, random.Random(seed))
    return schedule([harm.lag, harm.lose], 1)
