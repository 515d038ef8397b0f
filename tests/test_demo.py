"""The demonstration: it ends with ok only if every step did what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from router import demo, execution
from router.causality import Causality
from router.cli.app import app
from router.cli.stage import JsonTeller
from router.reasons import Reason
from router.requests import Request
from router.routing import Route, to_primary
from router.steering import route_of

ROOT = Path(__file__).parent.parent


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration as a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "router", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_demo_ends_with_ok() -> None:
    """All steps are shown, every check holds, the last line says so; the folder is gone afterwards."""
    found = spawn()
    lines = found.stdout.splitlines()
    assert (found.returncode, found.stderr, lines[-1]) == (0, "", "demo: ok")
    assert all(
        any(line.startswith(f"{n} {step.title} ") for line in lines) for n, step in enumerate(demo.STEPS, 1)
    )
    assert "NOT SO" not in found.stdout
    for word in (
        "LockTimeout",
        "UniqueViolation",
        "UnknownTenant",
        "UnknownSchema",
        "slow-query log",
        "writing_cte",
    ):
        assert word in found.stdout


@pytest.mark.parametrize("columns", [80, 140])
def test_demo_fits_its_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # a terminal without colours, so that lines can be measured
    found = CliRunner().invoke(app, ["demo"], env={"COLUMNS": str(columns)})
    assert found.exit_code == 0
    assert max(map(len, found.stdout.splitlines())) <= columns


def test_demo_as_json_shows_every_kind_of_route() -> None:
    """Each line is one request or the result; writes are on the primary, reads on both readers."""
    found = spawn("--json")
    *requests, last = map(json.loads, found.stdout.splitlines())
    assert (found.returncode, found.stderr, last) == (0, "", {"demo": "ok"})
    assert {request["tenant"] for request in requests} == {"acme", "globex", "initech"}
    assert {request["schema"] for request in requests} == {"main", "analytics"}
    assert {request["role"] for request in requests if request["kind"] in ("write", "ddl")} == {"primary"}
    readers = Counter(request["node"] for request in requests if request["role"] == "replica")
    assert set(readers) == {"reader-1", "reader-2"}
    errors = [request["error"] for request in requests if request["outcome"] == "error"]
    assert errors == ["InvalidStatement", "UniqueViolation"]
    assert all(request["ms"] >= 0 for request in requests)


def test_demo_fails_if_reads_leave_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that sends every read to the primary makes the step of the reads fail, and the command."""

    def timid(request: Request, causality: Causality) -> Route:
        if request.read:
            return to_primary(request.target.backend.health.snapshot(), Reason.NO_REPLICA)
        return route_of(request, causality)

    monkeypatch.setattr(execution, "route_of", timid)
    found = CliRunner().invoke(app, ["demo"])
    assert found.exit_code == 1
    assert found.stdout.splitlines()[-1] == "demo: failed (step 3 Reads: every read went to a reader)"


def test_demo_fails_if_the_error_is_not_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate key that is not recognised fails its step; --json says so in its last line."""
    monkeypatch.setattr(demo, "is_unique_violation", lambda error: False)
    found = CliRunner().invoke(app, ["demo", "--json"])
    last = json.loads(found.stdout.splitlines()[-1])
    assert found.exit_code == 1
    assert last["demo"] == "failed"
    assert last["step"].startswith("6 Transaction: the duplicate is a portable error")


async def test_demo_fails_if_a_step_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stops a step is told as its failure; the steps after it are not run."""
    monkeypatch.setattr(demo, "CREATE_VISITS", "CREATE TABLE visits (")
    failed = await demo.run(JsonTeller())
    assert failed is not None
    assert failed.startswith("1 Tables: stopped by InvalidStatement ")


async def test_demo_does_not_retry_what_was_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other program's lock there is no retry, and the step that shows one fails."""

    def idle(file: Path, taken: Any, release: Any) -> None:
        taken.set()

    monkeypatch.setattr(demo, "_hold_lock", idle)
    failed = await demo.run(JsonTeller())
    assert failed == "8 Busy: the file was busy (LockTimeout), and was tried again: 0x"


def _add_tenant(config: Path, tenant: str) -> None:
    text = (config / "tenants" / "acme.yaml").read_text()
    (config / "tenants" / f"{tenant}.yaml").write_text(text.replace("acme", tenant))


def test_demo_serves_metrics_and_console_until_it_is_stopped() -> None:
    """It says where, has live traffic of all sorts, reloads on SIGHUP, and ends well with that of Ctrl-C."""
    command = [sys.executable, "-W", "error", "-m", "router", "demo", "--serve", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            where = json.loads(process.stdout.readline())
            bearer = {"Authorization": f"Bearer {where['token']}"}
            assert httpx.get(where["ready"]).json() == {"ready": True, "reasons": []}
            seen: set[str] = set()
            end = time.monotonic() + 20
            while not seen >= {"primary", "replica", "cache"} and time.monotonic() < end:
                time.sleep(0.2)
                seen |= {row["role"] for row in httpx.get(where["status"], headers=bearer).json()["requests"]}
            assert seen == {"primary", "replica", "cache"}
            assert "router_requests_total{" in httpx.get(where["metrics"]).text
            assert "Token of the console" in httpx.get(where["console"]).text
            _add_tenant(Path(where["config"]), "hooli")
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            told = process.stderr.readline().decode()
            assert told.startswith("configuration 2: tenants 1 added, 0 removed, 0 changed;")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, b"")
        finally:
            process.kill()


def test_demo_takes_a_port_to_serve_at_only() -> None:
    """A port without --serve is a mistake, and says so."""
    found = CliRunner().invoke(app, ["demo", "--port", "8080"])
    assert found.exit_code == 2
