"""A process that is killed in the middle of its work: every write that it had an answer to has its record."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.auditing import KEY, SEAL, trail, verified, writes
from tests.engines import Engine

ROOT = Path(__file__).resolve().parents[1]
ENOUGH = 40  # answers before the process is killed


async def killed(engine: Engine, table: str, audit: dict[str, Any]) -> list[str]:
    """Run the load, kill it while it writes, and return the names of the writes that were answered."""
    document = engine.document(observability={"audit": {"key": KEY, **audit}})
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.audit_load", table, stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps({"document": document, "folder": str(engine.folder)}).encode())
    child.stdin.close()
    answered = []
    try:
        async with asyncio.timeout(60):
            while len(answered) < ENOUGH:
                answered += [await child.stdout.readline()]
    finally:
        child.kill()
    rest = await child.stdout.read()
    await child.wait()
    answered += rest.splitlines(keepends=True)
    assert len(answered) >= ENOUGH
    return [line.decode().strip() for line in answered if line.endswith(b"\n")]


async def test_no_answered_write_is_missing_in_the_journal(engine: Engine, tmp_path: Path) -> None:
    """On SQLite twice in a row: the second process goes on in the lane of the first; all of it verifies."""
    folder, table = tmp_path / "journal", engine.name()
    async with engine.open() as router:
        await router.execute(f"CREATE TABLE {table} (id {engine.key}, name VARCHAR(40))", tenant="acme")
    for turn in (1, 2) if engine.id == "sqlite" else (1,):
        answered = await killed(engine, table, {"trail": trail(tmp_path)})
        recorded = [each["actor"] for each in writes(folder) if each["outcome"] == "committed"]
        assert set(answered) <= set(recorded)
        report = verified(folder, SEAL)
        assert report.ok, report.findings
        assert report.chains == turn
