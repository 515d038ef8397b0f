"""``router cache``: what running processes say of their caches, and letting go of what they hold."""

import json
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router.cli.app import app
from router.cli.scraping import flaw, parse
from tests.servers import CANARY, RedisServer

ROOT = Path(__file__).parent.parent
ROUTER = """\
version: 1
clusters:
  main: {engine: sqlite, primary: {path: data}, readers: 1}
"""
TENANT = "tenant: acme\ncluster: main\nisolation: database\ndatabase: acme\nschemas: {more: acme_more}\n"
KEY = f"{CANARY}-key-of-cached-values"

Configured = Callable[..., Path]


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["cache", *arguments])


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Write a configuration on SQLite, with this section for the cache."""

    def write(**cache: Any) -> Path:
        for name in ("tenants", "data"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "router.yaml").write_text(f"{ROUTER}cache: {json.dumps(cache)}\n")
        (tmp_path / "tenants" / "acme.yaml").write_text(TENANT)
        with closing(sqlite3.connect(tmp_path / "data" / "acme.db")) as made:
            made.executescript("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS plans (name TEXT);")
        return tmp_path

    return write


def remote(url: str) -> dict[str, str]:
    """Return the section of a tier of its own."""
    return {"url": url, "key": KEY, "prefix": f"t{secrets.token_hex(4)}"}


def insert(folder: Path, name: str) -> None:
    """Write a row where no router sees it."""
    with closing(sqlite3.connect(folder / "data" / "acme.db")) as connection, connection:
        connection.execute("INSERT INTO plans VALUES (?)", (name,))


class Reader:
    """Hold a process that reads through the cache."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cache.reader", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(10)

    def metrics(self) -> str:
        """Return the address of its metrics; call it once, and first."""
        assert self.process.stdout is not None
        return f"http://127.0.0.1:{int(self.process.stdout.readline())}/metrics"

    def read(self) -> list[str]:
        """Return what it reads."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("read\n")
        self.process.stdin.flush()
        found: list[str] = json.loads(self.process.stdout.readline())
        return found

    def reads(self, expected: list[str], within: float = 5.0) -> bool:
        """Tell whether it reads this soon."""
        end = time.monotonic() + within
        while (found := self.read()) != expected and time.monotonic() < end:
            time.sleep(0.01)
        return found == expected


@pytest.fixture
def two(configured: Configured, redis: RedisServer) -> Iterator[tuple[Path, list[Reader], list[str]]]:
    """Start two processes that hear of each other through Redis."""
    folder = configured(broadcast="redis", remote=remote(redis.dsn()))
    insert(folder, "team")
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(folder)) for _ in range(2)]
        yield folder, readers, [each.metrics() for each in readers]


def test_processes_are_summed_and_let_go(two: tuple[Path, list[Reader], list[str]]) -> None:
    """What all say is shown by tenant; a flush reaches the memory of each, a second table does not."""
    folder, readers, urls = two
    for reader in readers:
        assert [reader.read() for _ in range(3)] == [["team"]] * 3
    asked = ["-c", str(folder), *(f"--metrics={url}" for url in urls)]
    found = run("stats", *asked, "--json")
    value = json.loads(found.stdout)
    assert (found.exit_code, value["ok"], value["deaf"]) == (0, True, [])
    assert value["broadcasts"] == {"main": "redis"}
    assert value["seconds"] > 0
    fared = value["tenants"]["acme"]
    assert {name: fared[name] for name in ("lookups", "hit", "miss", "bypass")} == {
        "lookups": 6, "hit": 4, "miss": 2, "bypass": 0,
    }  # fmt: skip
    assert fared["ratio"] == pytest.approx(2 / 3)
    assert fared["saved_seconds"] > 0
    assert [process["entries"] for process in value["processes"]] == [1, 1]
    shown = run("stats", *asked).stdout
    assert re.search(r"^ acme +6 +67% +4 +0 +0 +2 +0 +0\.0\d+ s +absent +the same reads", shown, re.MULTILINE)
    assert re.search(r"^tier +redis://127\.0\.0\.1:\d+/0, answers in \d+\.\d ms *$", shown, re.MULTILINE)

    insert(folder, "office")
    assert [reader.read() for reader in readers] == [["team"], ["team"]]
    flushed = run("flush", "-c", str(folder), "--tenant", "acme", "--table", "elsewhere", "--table", "plans")
    assert (flushed.exit_code, flushed.stderr) == (0, "")
    assert "elsewhere, plans of acme: the processes of main and the tier at redis://" in flushed.stdout
    assert all(reader.reads(["team", "office"]) for reader in readers)

    insert(folder, "third")
    assert run("flush", "-c", str(folder), "-t", "acme", "-s", "more").exit_code == 0
    assert [reader.read() for reader in readers] == [["team", "office"]] * 2  # it is another schema's
    value = json.loads(run("flush", "-c", str(folder), "--json").stdout)
    assert (value["ok"], value["what"], value["memories"]) == (True, "everything", ["main"])
    assert all(reader.reads(["team", "office", "third"]) for reader in readers)


def test_a_flush_that_reaches_nobody_is_refused(configured: Configured) -> None:
    """Where no other process can be told the command says so, and exits as for wrong usage."""
    found = run("flush", "-c", str(configured(broadcast="alone")))
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith("no process can be told: cache.broadcast is none or alone")


def test_a_flush_of_the_tier_alone_says_what_it_leaves(configured: Configured, redis: RedisServer) -> None:
    """Without a broadcast the memories of processes are not reached."""
    found = run("flush", "-c", str(configured(remote=remote(redis.dsn()))), "--json")
    value = json.loads(found.stdout)
    assert (found.exit_code, value["ok"], value["untold"]) == (0, True, ["main"])
    assert "processes keep in memory what they have of main" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "plans"], "Give --tenant as well"),
        (["--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["--tenant", "acme", "--schema", "billing"], "the tenant has no schema 'billing'"),
    ],
)
def test_a_flush_of_nothing_is_refused(configured: Configured, arguments: list[str], message: str) -> None:
    """Wrong usage is told before anything is sent."""
    found = run("flush", "-c", str(configured(broadcast="alone")), *arguments)
    assert found.exit_code == 2
    assert message in re.sub(r"[│\s]+", " ", found.stderr)


def test_a_server_that_does_not_answer_is_a_no(configured: Configured) -> None:
    """Both commands say it, exit with 1, and show no password."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    folder = configured(broadcast="redis", remote=remote(f"redis://:{CANARY}@127.0.0.1:{port}/3"))
    told = run("flush", "-c", str(folder), "--timeout", "0.3")
    assert told.exit_code == 1
    assert "everything: the processes of main and the tier at" in told.stdout
    assert "not all told in time; no connection for main" in told.stdout
    seen = run("stats", "-c", str(folder), "--timeout", "0.3", f"--metrics=http://127.0.0.1:{port}/metrics")
    assert seen.exit_code == 1
    assert re.search(r"^broadcast +main: redis, not reachable *$", seen.stdout, re.MULTILINE)
    assert re.search(rf"^tier +redis://127\.0\.0\.1:{port}/3, does not answer *$", seen.stdout, re.MULTILINE)
    assert f"http://127.0.0.1:{port}/metrics: [Errno 111] Connection refused" in seen.stderr
    assert CANARY not in told.output + seen.output


def test_stats_of_nobody_say_what_is_missing(configured: Configured) -> None:
    """Without an address of metrics the configuration is shown, and how to see more."""
    found = run("stats", "-c", str(configured(size="8MiB")))
    assert found.exit_code == 0
    assert re.search(r"^memory +at most 8 MiB and 100,000 answers in each process *$", found.stdout, re.M)
    assert "processes do not hear of each other's writes" in found.stdout
    assert "--metrics http://HOST:PORT/metrics" in found.stdout
    off = run("stats", "-c", str(configured(size="0B"))).stdout
    assert off.startswith("the cache is off: cache.size is 0B")


def test_what_are_no_metrics_of_a_router_is_said_so() -> None:
    """Whatever answers at an address, it is no reason for a traceback."""
    assert parse("u", "up 1\n").error == "there is no router behind it, or it is not open"
    with pytest.raises(ValueError):  # whichever the parser finds
        parse("u", "<html>\n<body>{{{")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "app-1:9090", f"http://me:{CANARY}@app-1/metrics", "http://[1/", "http://"]
)
def test_only_plain_addresses_are_asked(configured: Configured, url: str) -> None:
    """A file is not read, and a password is not repeated."""
    assert flaw(url) is not None
    found = run("stats", "-c", str(configured()), "--metrics", url)
    assert found.exit_code == 2
    assert CANARY not in found.output


def test_help_of_the_cache_teaches() -> None:
    """Each command has an example."""
    for command in ("stats", "flush"):
        assert command in run("--help").stdout
        assert f"$ router cache {command}" in run(command, "--help").stdout
