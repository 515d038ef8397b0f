"""What a hundred thousand tenants take in memory, and their loading in time.

Each size is measured in a process of its own: ``python -m tests.tenancy.catalog KIND TENANTS`` prints by how
much that grew when it had them all and had resolved each, and how long the loading took. Kinds are those of
``CONFIGS``; a file for each tenant, or all of them in one mapping, as who makes a configuration in code does.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from router import Config, Router, load
from router.config import parse
from router.statements import Dialect
from router.tenant_table import ddl
from tests.figures import Figure
from tests.tenancy.effort import Effort
from tests.tenancy.place import READ, ROLE, Place

_ROOT = Path(__file__).parents[2]
_TENANTS = 100_000
_MOST = 200.0  # MiB
_INSTANT = 250.0  # milliseconds
_FILL_TABLE = (
    "INSERT INTO router_tenants (tenant, settings) SELECT 's' || number, json_build_object("
    "'cluster', 'main', 'isolation', 'schema', 'schema', 's' || number) "
    f"FROM generate_series(1, {_TENANTS}) AS number"
)
_CLUSTER = {
    "engine": "postgresql",
    "primary": {"host": "127.0.0.1"},
    "database": "app",
    "credentials": {"writer": {"username": "app"}},
}


async def figures(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield the memory of tenants in use, and how soon one out of a table is served."""
    memory, _ = await asyncio.gather(_memory(effort), _fill(place))
    yield memory
    yield await _table(effort, place)


async def _memory(effort: Effort) -> Figure:
    """Return what all of them take; the note says how long their files take to load."""
    asked = (("mapping", _TENANTS), ("files", effort.files))
    held, loaded = await asyncio.gather(*(asyncio.to_thread(measured, *each) for each in asked))
    each = held["bytes"] / _TENANTS
    note = f"{each:,.0f} bytes each; {effort.files:,} files load in {loaded['seconds']:.1f} s"
    return Figure(f"{_TENANTS:,} tenants in use: memory", held["bytes"] / 2**20, _MOST, "MiB", note=note)


async def _fill(place: Place) -> None:
    """Make a table of tenants."""
    await place.schemas(1)  # in the same database
    cluster = await place.cluster()
    for statement in (*ddl(Dialect.POSTGRESQL), f"GRANT ALL ON router_tenants TO {ROLE}", _FILL_TABLE):
        await asyncio.to_thread(cluster.run, statement, place.shared)


async def _table(effort: Effort, place: Place) -> Figure:
    """Return from when a router begins to open until it has served a tenant that only the table knows."""
    tenant, *further = await place.schemas(effort.fresh + 1)
    config = place.config((), catalog={"table": {"cluster": "main", "database": place.shared}})
    began = perf_counter()
    async with Router(config) as router:
        await router.fetch_one(READ, {"id": 7}, tenant=tenant)
        first, times = perf_counter() - began, []
        for each in further:
            began = perf_counter()
            await router.fetch_one(READ, {"id": 7}, tenant=each)
            times.append(perf_counter() - began)
    note = f"opening and connecting included; {median(times) * 1e3:.1f} ms for each further one"
    return Figure(f"table of {_TENANTS:,} tenants: first one served", first * 1e3, _INSTANT, "ms", note=note)


def measured(kind: str, tenants: int) -> dict[str, Any]:
    """Return what a new process says of so many tenants: bytes, and seconds to load."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tenancy.catalog", kind, str(tenants)],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(folder: Path, tenants: int) -> None:
    """Write a configuration folder with a file for each tenant t0, t1, ..."""
    (folder / "router.yaml").write_text(json.dumps({"version": 1, "clusters": {"main": _CLUSTER}}))
    (folder / "tenants").mkdir(exist_ok=True)
    for number in range(tenants):
        text = f"tenant: t{number}\ncluster: main\nisolation: schema\nschema: t{number}\n"
        (folder / "tenants" / f"t{number}.yaml").write_text(text)


def _mapping(folder: Path, tenants: int) -> Callable[[], Config]:
    listed = {
        f"t{number}": {"cluster": "main", "isolation": "schema", "schema": f"t{number}"}
        for number in range(tenants)
    }
    return lambda: parse({"version": 1, "clusters": {"main": _CLUSTER}, "tenants": listed}, folder)


def _files(folder: Path, tenants: int) -> Callable[[], Config]:
    write(folder, tenants)
    return lambda: load(folder)


CONFIGS = {"mapping": _mapping, "files": _files}


async def _grown(kind: str, tenants: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        make = CONFIGS[kind](Path(name), tenants)
        await _used(_mapping(Path(name), 10)())  # what the interpreter takes for itself at first
        gc.collect()
        before, began = _resident(), perf_counter()
        config = make()
        seconds = perf_counter() - began
        return {"bytes": await _used(config) - before, "seconds": seconds}


async def _used(config: Config) -> int:
    """Return the size of the process when each tenant was asked for."""
    async with Router(config) as router:
        for tenant in config.tenants:
            router.session(tenant)
        gc.collect()
        return _resident()


def _resident() -> int:
    """Return what the process has in memory of its own; of files, the system gives up pages at any time."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_grown(sys.argv[1], int(sys.argv[2])))))
