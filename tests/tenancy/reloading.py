"""What requests notice while a router goes over to another configuration of ten thousand tenants: nothing.

Tenants have a file each. Time and again some of the files are changed, some are added and some deleted, and
the router is told to reload, under a load of reads by tenants whose files stay. At every other time all files
have a new date, most with the same content, as where a folder is exchanged for a copy.

Python's collector looks at all objects whenever a quarter as many were added as there are, which takes longer
than anything else here. That is done before each look at the loop, with a reload and without: what comes in a
reload is then of what the reload itself has added.
"""

import asyncio
import gc
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from router import Router
from tests.figures import Figure
from tests.pause import Pause
from tests.tenancy.effort import Effort
from tests.tenancy.load import Load, zipf
from tests.tenancy.place import Place

_TENANTS = 10_000
_CHANGED = 100  # files, by one reload
_SWAPPED = 50  # tenants that come, and as many that go
_MOST = 50.0  # milliseconds
_TASKS = 16
_STILL = 0.7  # seconds at most without a reload, after each one
_SHORT = 0.1  # seconds of a round of the load


async def figures(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield failed requests and the longest pause, beside that without a reload."""
    there = await place.schemas(min(effort.schemas, _TENANTS - 2 * _SWAPPED))
    tenants = [f"s{number}" for number in range(1, _TENANTS + 1)]  # nobody asks for the others
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name), place.document(tenants))
        async with Router.open(folder.path) as router:
            load = Load(router, zipf(there, Random(8)))
            await load.round(effort.seconds, _TASKS)  # connects
            found = [await _reloaded(router, folder, load) for _ in range(effort.reloads)]
    what = f"reload of {len(tenants):,} tenants"
    yield Figure(f"{what}: failed requests", load.errors.total(), 0, note=load.note())
    (longest, late), (still, as_late) = (_worst(each) for each in zip(*found, strict=True))
    taken = median(each.seconds for each, _ in found)
    note = f"{late:.1f} by the clock; without one {still:.1f} and {as_late:.1f}; one takes {taken:.1f} s"
    yield Figure(f"{what}: longest pause", longest, _MOST, "ms", note=note)


def _worst(found: Iterable[Pause]) -> tuple[float, float]:
    """Return the longest pauses, in milliseconds: what this process has computed, and by the clock."""
    seen = list(found)
    return max(each.longest for each in seen) * 1e3, max(each.late for each in seen) * 1e3


class Folder:
    """Hold a configuration folder whose last tenants come and go; the first ones stay."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._tenants: dict[str, dict[str, Any]] = document.pop("tenants")
        self._turn = 0
        names = list(self._tenants)
        self._swapped = names[-_SWAPPED:], names[-2 * _SWAPPED : -_SWAPPED]
        (path / "tenants").mkdir()
        (path / "router.yaml").write_text(json.dumps(document))  # which is YAML as well
        for tenant in names[:-_SWAPPED]:
            self._write(tenant, {})

    def change(self) -> None:
        """Change some files, add some and delete as many; every other time all get a new date."""
        self._turn += 1
        come, go = self._swapped[:: 1 if self._turn % 2 else -1]
        for tenant in go:
            self._file(tenant).unlink()
        changed = list(self._tenants)[:_CHANGED]
        for tenant in (*come, *changed):
            self._write(tenant, {"slow_query": f"{self._turn}s"})
        if self._turn % 2 == 0:
            for tenant in set(self._tenants).difference(go):
                os.utime(self._file(tenant))

    def _write(self, tenant: str, more: dict[str, Any]) -> None:
        self._file(tenant).write_text(json.dumps({**self._tenants[tenant], **more}))

    def _file(self, tenant: str) -> Path:
        return self.path / "tenants" / f"{tenant}.yaml"


async def _reloaded(router: Router, folder: Folder, load: Load) -> tuple[Pause, Pause]:
    """Reload under load, and go on for a while without; return what the loop saw of both."""
    await asyncio.to_thread(folder.change)
    over = asyncio.Event()
    working = asyncio.create_task(_until(over, load))
    try:
        gc.collect()
        async with Pause() as with_it:
            await router.reload()
        gc.collect()
        async with Pause() as without:
            await asyncio.sleep(min(with_it.seconds, _STILL))
    finally:
        over.set()
        await working
    return with_it, without


async def _until(over: asyncio.Event, load: Load) -> None:
    while not over.is_set():
        await load.round(_SHORT, _TASKS)
