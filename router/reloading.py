"""Take over another configuration while requests run: all of it in one step, or nothing.

What takes time (reading, checking, comparing, making new parts) happens in a thread; what is left is to
swap references on the event loop, without an await, so that no request meets a mixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from router import building, parts, renewing
from router.backend import Backend
from router.building import Clocks
from router.cache.cache import Cache
from router.config import Config, TenantConfig
from router.config.difference import Difference, Names, difference, in_force
from router.config.loader import Loader
from router.config.stores import check_functions
from router.credentials import Passwords
from router.errors import ConfigurationError, Problem, RouterClosed, ServerRemoved, UsageError
from router.events import ConfigurationLoaded, ConfigurationRefused, Event
from router.execution import Executor
from router.finding import Finder
from router.metrics import Metrics
from router.pacing import paced, politely
from router.pools.registry import Pools
from router.tokens import Tokens
from router.topology import Node
from router.watching import Watch, Watcher

_FAREWELL = 30.0  # seconds that open sessions have on servers that are no longer configured


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Say what a reload has changed; ``generation`` is the number of the configuration in force.

    ``restart`` names the sections that differ from what is in force, and count once the process starts anew.
    """

    generation: int
    tenants: Names
    clusters: Names
    restart: tuple[str, ...]
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """Hold the parts of an open router that a reload changes."""

    executor: Executor
    backends: dict[str, Backend]
    parting: set[Backend]  # of clusters that are gone, for sessions that are still open
    pools: Pools
    cache: Cache
    metrics: Metrics
    emit: Callable[[Event], None]
    clocks: Clocks
    rng: Random
    passwords: Passwords
    functions: Collection[str]  # that secrets may come from
    finder: Finder | None  # of tenants without a file


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold all that is needed to go over to a configuration; nothing in it can fail any more."""

    config: Config
    found: Difference
    gone: Mapping[str, Collection[str]]  # schemas of the tenants that are no more what they were
    made: Mapping[str, Backend]  # of clusters that are new or changed
    anew: Mapping[str, frozenset[str]]  # servers of each that are connected to otherwise
    lonely: Collection[str]  # clusters that serve one tenant only
    tokens: Tokens | None
    kept: Collection[TenantConfig]  # of tenants without a file: those that have their places by it
    marks: Mapping[str, tuple[int, ...]]  # of each cluster's certificates


class Reloading:
    """Keep the configuration in force, and go over from one to the next; one at a time."""

    def __init__(
        self, config: Config, loader: Loader | None, running: Running, farewell: float = _FAREWELL
    ) -> None:
        self.config = config
        self.generation = 1
        self.refused = ""  # the first mistake of what is not taken over, while that is so
        self._loader = loader
        self._running = running
        self._farewell = farewell
        self._marks: Mapping[str, tuple[int, ...]] = renewing.certificates(config)
        self._turn = asyncio.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self, given: Config | None = None) -> Reloaded:
        """Go over to a configuration, ``None`` for what the folder holds now; return what has changed."""
        try:
            return await self._reload(given)
        except ConfigurationError as error:
            self._refuse(error)
            raise

    async def _reload(self, given: Config | None = None) -> Reloaded:
        async with self._turn:
            plan = await asyncio.to_thread(self._plan, given)
            if self._closed:
                raise RouterClosed("the router was closed before its configuration was reloaded")
            return self._go_over(plan)

    def _refuse(self, error: ConfigurationError) -> None:
        """Tell that a configuration is not taken over."""
        at, problems = self._running.clocks.wall(), error.problems
        self.refused = str(problems[0])
        self._running.emit(ConfigurationRefused(at, self.generation, len(problems), str(problems[0])))

    def loaded(self) -> None:
        """Tell of the configuration that the router was opened with."""
        self._tell(Difference())

    def watch(self, times: Watch) -> None:
        """Reload whenever the folder has changed."""
        if self._loader is not None:
            self._beside(Watcher(self._loader, times, self._reload, self._refuse).run())

    def cancel(self) -> None:
        """Watch no longer, and do not wait for who uses what is gone: it is closed with the rest."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Do as :meth:`cancel` does, and return when nothing runs any more."""
        self.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- in a thread -------------------------------------------------------------------------------------

    def _plan(self, given: Config | None) -> _Plan:
        with politely():
            old, running = self.config, self._running
            config = self._loaded() if given is None else given
            check_functions(config.stored, running.functions)
            found = difference(old, config)
            new = in_force(old, config)
            before = building.longest(old, further=self._further(old))
            after = building.longest(new, further=self._further(new))
            # else the server would end what may take longer by now
            longer = {name for name in old.clusters if after.get(name, 0.0) > before.get(name, 0.0)}
            marks = renewing.certificates(new)
            signed = {name for name in old.clusters if marks.get(name, ()) != self._marks.get(name, ())}
            found = found.also(signed & new.clusters.keys())
            anew = {
                name: renewing.connected_anew(
                    name, old.clusters[name], new.clusters[name], all_=name in longer | signed
                )
                for name in (found.clusters.changed | longer) & new.clusters.keys()
            }
            some = {name: new.clusters[name] for name in (*found.clusters.added, *anew)}
            made = building.backends(
                replace(new, clusters=some),
                running.pools,
                running.passwords,
                running.emit,
                running.clocks,
                running.rng,
                further=self._further(new),
            )
            gone = {
                name: old.tenants[name].schemas
                for name in paced(found.tenants.removed | found.tenants.changed)
            }
            tokens = parts.tokens(new, running.clocks.wall)
            lonely = building.lonely(new, further=self._further(new))
            kept = () if running.finder is None else running.finder.keep(new)
            return _Plan(new, found, gone, made, anew, lonely, tokens, kept, marks)

    def _further(self, config: Config) -> bool:
        """Tell whether there may be tenants without a file."""
        return self._running.finder is not None or bool(config.admission.patterns)

    def _loaded(self) -> Config:
        if self._loader is None:
            raise UsageError(
                "the router was not opened from a folder. Pass the new configuration to reload()"
            )
        return self._loader.load()

    # --- on the event loop: nothing here waits, nothing here fails ---------------------------------------

    def _go_over(self, plan: _Plan) -> Reloaded:
        new, found, running = plan.config, plan.found, self._running
        self.config, self._marks = new, plan.marks
        replaced = self._change_clusters(plan)
        running.passwords.expect(new.logins)
        clusters = {name: backend.cluster for name, backend in running.backends.items()}
        targets, others = running.executor.targets, found.tenants
        catalog = targets.catalog.renewed(new, clusters)
        # who has a file now may have been found without one before
        further = found.further or (bool(others.added) and self._further(new))
        targets.renew(catalog, {**plan.gone, **dict.fromkeys(others.added, ())}, replaced, further=further)
        if running.finder is not None:
            running.finder.adopt(new, plan.kept, again=found.further or bool(found.clusters))
        running.executor.causality.renew(plan.tokens)
        running.metrics.renew(catalog)
        self.generation += bool(found)
        self.refused = ""
        self._tell(found)
        return Reloaded(self.generation, found.tenants, found.clusters, found.restart, new.warnings)

    def _change_clusters(self, plan: _Plan) -> set[str]:
        """Change the clusters; return the names of those whose targets are to be found anew."""
        backends, replaced = self._running.backends, set(plan.found.clusters.removed)
        for name in plan.found.clusters.removed:
            self._part(backends.pop(name))
        for name, made in plan.made.items():
            before = backends.get(name)
            if before is not None and before.takes(made):
                if before.pooled != made.pooled:
                    replaced.add(name)
                self._leave(before, before.renew(made, plan.anew[name]))
                continue
            if before is not None:
                self._part(before)
                replaced.add(name)
            backends[name] = made
            clock = self._running.clocks.monotonic
            spoken = parts.broadcast(self.config, name, made, self._running.cache, clock)
            self._running.cache.join(name, spoken)
        for name, backend in backends.items():
            if backend.alone is not (name in plan.lonely):
                backend.alone = name in plan.lonely
                replaced.add(name)
        return replaced

    def _part(self, backend: Backend) -> None:
        """Close a backend once nobody uses it any more; sessions that are open have some time left."""
        self._running.parting.add(backend)
        self._beside(self._see_off(backend))

    async def _see_off(self, backend: Backend) -> None:
        running, name = self._running, backend.cluster.name
        await self._drain(backend.nodes, name)
        await backend.close()
        running.parting.discard(backend)
        if name not in running.backends:
            running.cache.part(name)

    def _leave(self, backend: Backend, nodes: Collection[Node]) -> None:
        """Close the pools of nodes that a cluster has no more, once nobody uses them."""
        if nodes:
            self._beside(self._forget(backend, nodes))

    async def _forget(self, backend: Backend, nodes: Collection[Node]) -> None:
        await self._drain(nodes, backend.cluster.name)
        backend.health.forget(nodes)

    async def _drain(self, nodes: Collection[Node], cluster: str) -> None:
        await asyncio.sleep(self._farewell)
        self._running.pools.part(nodes, partial(_removed, cluster))
        await self._running.pools.parted(nodes)
        self._running.pools.forget(nodes)

    def _beside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="router reload", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, found: Difference) -> None:
        tenants, clusters = found.tenants, found.clusters
        self._running.emit(
            ConfigurationLoaded(
                self._running.clocks.wall(),
                self.generation,
                len(self.config.clusters),
                len(self.config.tenants),
                len(tenants.added),
                len(tenants.removed),
                len(tenants.changed),
                tuple(sorted(clusters.added | clusters.removed | clusters.changed)),
                found.restart,
            )
        )


def _removed(cluster: str) -> ServerRemoved:
    return ServerRemoved(
        f"a server of cluster {cluster} was taken out of the configuration, or moved. Open a new session"
    ).at(cluster=cluster)
