"""When the router is alive, and when it is ready to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from router.errors import RouterError, UsageError
from router.router import Router
from router.status import NodeStatus

_PATIENCE: Final = 1.0  # seconds that servers which nobody has asked yet have for their first answer
_FRESH: Final = 0.5  # seconds for which an answer does for others who ask


@dataclass(frozen=True, slots=True)
class Readiness:
    """Say what must be there for the router to be ready: in ``clusters``, all if ``None``, this.

    ``needs="primary"``: a server that takes writes; ``needs="node"``: any server that may be read.
    """

    clusters: frozenset[str] | None = None
    needs: Literal["primary", "node"] = "primary"


class Reason(NamedTuple):
    """Say why the router is not ready; ``cluster`` is "" where it is not about one."""

    cluster: str
    reason: str  # not_open, no_primary, no_node


class Health:
    """Tell whether ``router`` is ready; many who ask at once are answered by one look."""

    def __init__(self, router: Router, readiness: Readiness, clock: Callable[[], float]) -> None:
        unknown = (readiness.clusters or frozenset()) - set(router.config.clusters)
        if unknown:
            raise UsageError(
                f"the configuration has no cluster {', '.join(sorted(unknown))}. Name one it has"
            )
        self._router, self._readiness, self._clock = router, readiness, clock
        self._looking: asyncio.Task[tuple[Reason, ...]] | None = None
        self._looked = -_FRESH
        self._found: tuple[Reason, ...] = ()

    async def reasons(self) -> tuple[Reason, ...]:
        """Return why the router is not ready; nothing if it is.

        The first to ask makes the router look at its servers, as a first request would.
        """
        if self._clock() - self._looked >= _FRESH:
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())
                self._looking.add_done_callback(self._ended)
            return await asyncio.shield(self._looking)
        return self._found

    def _ended(self, task: asyncio.Task[tuple[Reason, ...]]) -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is None:
            self._found, self._looked = task.result(), self._clock()

    async def _look(self) -> tuple[Reason, ...]:
        try:
            await self._router.ready(timeout=_PATIENCE)
        except RouterError:
            return (Reason("", "not_open"),)
        names = self._readiness.clusters
        return missing(
            self._router.config.clusters if names is None else names, self.nodes(), self._readiness
        )

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Return what is known of the servers."""
        return self._router.status(tenants=False).nodes


def missing(clusters: Iterable[str], nodes: Iterable[NodeStatus], readiness: Readiness) -> tuple[Reason, ...]:
    """Return what these clusters lack."""
    writable = readiness.needs == "primary"
    served = {each.cluster for each in nodes if each.usable and (each.role == "primary" or not writable)}
    lack = "no_primary" if writable else "no_node"
    return tuple(Reason(cluster, lack) for cluster in sorted(clusters) if cluster not in served)
