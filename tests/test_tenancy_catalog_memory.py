"""What a tenant takes: a hundred thousand of them fit into 200 MiB, and are loaded in proportion."""

import gc
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from router import Router, targets
from router.config import loader, parse
from router.config.assembly import Assembly
from router.errors import Problem
from router.execution import Executor

COUNT = 1_000
BUDGET = 200 * 2**20 / 100_000  # bytes for each tenant
FILE = {"cluster": "main", "isolation": "schema", "tier": "gold"}
BASE = {
    "version": 1,
    "clusters": {
        "main": {
            "engine": "postgresql",
            "primary": {"host": "127.0.0.1"},
            "database": "app",
            "credentials": {"writer": {"username": "app", "password": "x"}},
        }
    },
    "tiers": {"gold": {}},
}


def taken(before: int) -> float:
    """Return the bytes that were taken since, for each tenant."""
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / COUNT


def visit(router: Router, names: list[str]) -> None:
    """Have each tenant's target made, and what the cache and the pools know of it."""
    executor: Executor = router._running()
    statement = executor.target(names[0], None).backend.statements.of("SELECT * FROM plans WHERE id = :id")
    for name in names:
        target = executor.target(name, None)
        executor.scope(target).never(statement)
        executor.scope(target).tally.misses += 1
        target.pool(target.backend.cluster.primary)


def described(names: list[str]) -> dict[str, Any]:
    """Return what the files of tenants say."""
    return {name: {**FILE, "schema": name.replace("-", "_")} for name in names}


@pytest.mark.parametrize("source", ["files", "function"])
async def test_a_hundred_thousand_tenants_fit(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant of the catalog takes half of its share; one that was asked for, no more than all of it."""
    monkeypatch.setattr(targets, "_MOST", targets._MOST * COUNT // 100_000)  # as many in proportion
    names = [f"tenant-{number:05}" for number in range(COUNT)]
    files, first = described(names), described(["first"])
    for each in (first, files):  # what is made once is there when it is counted
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        try:
            listed = {"tenants": each} if source == "files" else {"catalog": {"cache": COUNT}}
            given = None if source == "files" else each.get
            async with Router.open(parse({**BASE, **listed}), catalog=given) as router:
                for name in each:
                    await router.find(name)
                catalog = taken(before)
                visit(router, list(each))
                asked = taken(before)
        finally:
            tracemalloc.stop()
    print(f"{catalog:.0f} bytes a tenant, {asked:.0f} once it was asked for")
    assert catalog < BUDGET / 2
    assert asked < BUDGET


def test_names_of_files_are_sorted_out_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many files take ten times as long to list, not a hundred times."""
    names = [f"tenant-{number:06}.yaml" for number in range(20_000)]
    (tmp_path / "router.yaml").write_text("version: 1\nclusters: {}\n")
    (tmp_path / "tenants").mkdir()
    monkeypatch.setattr("os.listdir", lambda folder: names)
    assembly, problems = Assembly(tmp_path, frozenset()), list[Problem]()
    began = time.process_time()
    assert loader._tenant_files(str(tmp_path), assembly, problems, {}) == names
    assert time.process_time() - began < 0.5  # 2 s and more if each is looked for among all
    assert not problems
