"""Many tenants: what a routed read, a tenant in memory and the loading of their files cost."""

import gc
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from router import Config, Router, load
from tests.bench import texts
from tests.bench.arms.ours import TENANT, config
from tests.bench.measure import Sample, measure, warm
from tests.bench.place import POOLED, Place
from tests.bench.results import Cell, Line
from tests.bench.runs import Effort, runner
from tests.bench.workloads import Operation

SIZES = (1, 1_000, 100_000)
"""Tenants in the catalog."""
FILES = 10_000
"""Tenant files that are loaded."""
_TRACED = 1_000  # tenants whose memory is traced: tracing all would take half a minute

_ROUTER = """\
version: 1
clusters:
  main:
    engine: postgresql
    primary: {host: 127.0.0.1, port: 5432}
    database: app
    credentials: {writer: {username: app, password: "${env:APP_PASSWORD:-none}"}}
"""


def tenants(place: Place, effort: Effort) -> Iterator[Line]:
    """Measure a routed read with each size of catalog, all tenants in turn, interleaved."""
    with runner(effort.loops[0]) as run:
        rounds = run.run(_rounds(place, effort))
    costs = _costs()
    for size in SIZES:
        samples = rounds[size]
        ratios = [mine.rps / one.rps for mine, one in zip(samples, rounds[1], strict=True)]
        all_rps = [sample.rps for sample in samples]
        extra = {
            "tenants": size,
            "vs_one_tenant": median(ratios),
            "rounds": len(samples),
            "spread": [min(all_rps), max(all_rps)],
        }
        yield Line(
            Cell("tenants", "router", POOLED, effort.loops[0]),
            median(all_rps),
            median(sample.cpu_us for sample in samples),
            median(sample.p50_us for sample in samples),
            median(sample.p99_us for sample in samples),
            None,
            extra | (costs if size == SIZES[-1] else {}),
        )


async def _rounds(place: Place, effort: Effort) -> dict[int, list[Sample]]:
    found: dict[int, list[Sample]] = {size: [] for size in SIZES}
    async with AsyncExitStack() as stack:
        routers = {
            size: await stack.enter_async_context(Router(_many(config(place, POOLED), size)))
            for size in SIZES
        }
        for size, router in routers.items():  # every tenant's first request is another matter
            for number in range(size):
                router.session(f"tenant-{number}")
            await warm(_reads(router, size), POOLED, 0.1)
        for _ in range(effort.rounds):
            for size, router in routers.items():
                # three times the usual: the figure is about a few parts in a hundred
                found[size].append(await measure(_reads(router, size), POOLED, effort.seconds * 3))
    return found


def _many(one: Config, size: int) -> Config:
    """Return the configuration with its tenant so many times, all in the same schema."""
    tenant = one.tenants[TENANT]
    names = [f"tenant-{number}" for number in range(size)]
    return replace(one, tenants={name: replace(tenant, tenant=name) for name in names})


def _reads(router: Router, size: int) -> Operation:
    names = [f"tenant-{number}" for number in range(size)]
    state = 0

    async def read(task: int, key: int) -> None:
        nonlocal state
        state = (state + 7919) % size  # a prime: every tenant comes up, in no order of memory
        async with router.session(names[state]) as session:
            await session.fetch_one(texts.READ, {"id": key})

    return read


def _costs() -> dict[str, float]:
    """Return the seconds to load the files, and the bytes that a tenant in use takes."""
    with tempfile.TemporaryDirectory(prefix="router-tenants-") as name:
        folder = Path(name)
        _write(folder, 0, _TRACED)
        memory = _memory(folder)
        _write(folder, _TRACED, FILES)
        gc.collect()
        started = time.perf_counter()
        loaded = load(folder)
        seconds = time.perf_counter() - started
        assert len(loaded.tenants) == FILES
    return {"load_10000_files_s": seconds, "bytes_per_tenant": memory}


def _write(folder: Path, first: int, last: int) -> None:
    (folder / "router.yaml").write_text(_ROUTER)
    (folder / "tenants").mkdir(exist_ok=True)
    for number in range(first, last):
        name = f"tenant-{number}"
        text = f"tenant: {name}\ncluster: main\nisolation: schema\nschema: t{number}\n"
        (folder / "tenants" / f"{name}.yaml").write_text(text)


def _memory(folder: Path) -> float:
    """Return bytes for each tenant: its configuration, and what the router keeps once it was asked for."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        loaded = load(folder)
        with runner("asyncio") as run:
            router = Router(loaded)
            run.run(router.connect())
            for name in loaded.tenants:
                router.session(name)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            run.run(router.close())
    finally:
        tracemalloc.stop()
    return held / _TRACED
