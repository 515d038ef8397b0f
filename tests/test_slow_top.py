"""``router top``: running processes live in the terminal, and what it does when they go."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from router.cli.app import app
from router.cli.asking import VARIABLE, Answer
from router.cli.merging import together
from router.cli.top import note
from router.cli.topviews import Seen, rooms, screenful
from tests.servers import CANARY
from tests.test_slow_cli import TOKEN, Running, running

# --- what there is room for ------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 100))
def test_what_is_shown_fits(wanted: list[int], height: int) -> None:
    """No section gets more than it has, and all with their heads no more lines than there are."""
    given_ = rooms(wanted, height)
    assert all(0 <= rows <= most for rows, most in zip(given_, wanted, strict=True))
    assert sum(rows + 2 for rows in given_ if rows) <= height
    if sum(rows + 2 for rows in wanted if rows) <= height:
        assert given_ == wanted


def test_the_first_sections_come_first() -> None:
    """In a small terminal the last ones are left out; what is left is shared by those that are shown."""
    assert rooms([5, 5, 5], 8) == [2, 2, 0]
    assert rooms([5, 5, 5], 10) == [3, 3, 0]
    assert rooms([1, 9, 9], 12) == [1, 3, 2]


# --- several processes -----------------------------------------------------------------------------------


def picture(**more: Any) -> dict[str, Any]:
    """Return a picture of a process in which something happens."""
    return {
        "format": 1,
        "pid": 7,
        "up": 60.0,
        "watched": 9.0,
        "tenants": 3,
        "generation": 1,
        "refused": "",
        "pace": {"requests": 10.0, "errors": 1.0, "p99": 0.1},
        "running_total": 1,
        "clusters": [],
        "nodes": [node()],
        "pools": [
            {"node": "main/r1", "database": "app", "user": "app", "size": 4, "idle": 1, "in_use": 3,
             "waiting": 2, "max": 10}
        ],
        "budgets": [
            {"node": "main/r1", "size": 4, "idle": 1, "in_use": 3, "opening": 0, "waiting": 2, "max": 10,
             "pools": 1}
        ],
        "queues": [{"tenant": "acme", "in_use": 3, "waiting": 2}],
        "running": [{"at": 1.0, "seconds": 1.5, "tenant": "acme", "task": "job", "text": "select ?"}],
        "busy": [{"tenant": "acme", "requests": 5.0, "errors": 0.5, "seconds": 0.5, "waiting": 0.4}],
        "statements": [statement()],
        "cache": None,
        "changes": [
            {"at": 5.0, "kind": "primary", "level": "bad", "where": "main", "text": "none", "count": 2}
        ],
        "troubles": [],
        "listeners": [],
        **more,
    }  # fmt: skip


def node(**more: Any) -> dict[str, Any]:
    return {
        "cluster": "main", "name": "r1", "role": "replica", "address": "db-1:5432", "usable": True,
        "reason": "", "breaker": False, "lag_seconds": 0.1, "lag_bytes": 5, "in_flight": 2,
        "latency": 0.001, **more,
    }  # fmt: skip


def statement(**more: Any) -> dict[str, Any]:
    return {
        "fingerprint": "f1", "text": "select a from t where b = ?", "kind": "read", "count": 5, "cached": 0,
        "slow": 1, "errors": 1, "rows": 5, "total": 2.0, "waited": 0.5, "maximum": 1.0, "p50": 0.1,
        "p99": 0.9, "load": 0.5, "tenants": ["acme"], "nodes": ["main/r1"], "last": 5.0, "trace_id": "",
        "error": "", "plan": "", **more,
    }  # fmt: skip


def test_processes_are_added_up() -> None:
    """Counts and loads are summed; of a node the worst is shown, of a percentile the largest."""
    other = picture(
        nodes=[
            node(usable=False, reason="late", lag_seconds=9.0, in_flight=3),
            node(name="r2", lag_seconds=None),
        ],
        statements=[statement(count=7, p99=2.0, load=0.25, tenants=["globex"]), statement(fingerprint="f2")],
        pace={"requests": 5.0, "errors": 0.0, "p99": None},
        running=[],
    )
    whole = together([picture(), other])
    assert (whole["requests"], whole["errors"], whole["p99"]) == (15.0, 1.0, 0.1)
    first, second = whole["nodes"]
    assert (first["usable"], first["reason"], first["lag_seconds"], first["in_flight"]) == (
        False,
        "late",
        9.0,
        5,
    )
    assert (second["name"], second["lag_seconds"]) == ("r2", None)
    both = next(each for each in whole["statements"] if each["fingerprint"] == "f1")
    assert (both["count"], both["p99"], both["load"], both["tenants"]) == (12, 2.0, 0.75, ["acme", "globex"])
    assert whole["pools"][0]["in_use"] == 6
    assert whole["pools"][0]["waiting"] == 4
    assert whole["busy"][0]["requests"] == 10.0


def test_the_ratio_of_caches_is_that_of_all_look_ups() -> None:
    """Not the mean of ratios: a process that is hardly asked does not count as much."""
    cache = {"entries": 1, "size": 1, "evictions": 0, "flushes": 0, "heard": True, "remote": None, "hits": 90,
             "joined": 0, "shared": 0, "misses": 10, "ratio": 0.9, "saved": 1.0}  # fmt: skip
    idle = {**cache, "hits": 0, "misses": 0, "ratio": None}
    assert together([picture(cache=cache), picture(cache=idle), picture()])["cache"]["ratio"] == 0.9
    assert together([picture(cache=idle)])["cache"]["ratio"] is None


# --- what is shown ---------------------------------------------------------------------------------------


def lines(seen: list[Seen], width: int, height: int = 0, **more: Any) -> list[str]:
    screen = Console(width=width, color_system=None, force_terminal=False, markup=False, highlight=False)
    with screen.capture() as capture:
        screen.print(screenful(screen, seen, 1000.0, height=height, **more))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("height", [10, 24, 60])
def test_any_terminal_is_enough(width: int, height: int) -> None:
    """Whatever its size, nothing is wider or higher, and the figures of all come first."""
    busy = picture(
        nodes=[node(name=f"r{n}") for n in range(9)],
        statements=[statement(fingerprint=str(n)) for n in range(40)],
        troubles=[{"level": "bad", "topic": "nodes", "where": "main/r1", "text": "is\nlate" * 20}],
    )
    found = lines([Seen("http://app-1", busy), Seen("http://app-2", busy)], width, height, foot="q quit")
    assert len(found) <= height
    assert max(map(len, found)) <= width
    assert found[0].startswith("router top")
    assert found[-1] == "q quit"


def test_a_process_that_is_gone_is_told_and_its_last_picture_stays() -> None:
    """It says since when, and when the process is back."""
    seen = [Seen("http://app-1")]
    note(seen, [Answer("http://app-1", picture())], 990.0)
    note(seen, [Answer("http://app-1", error="Connection refused")], 995.0)
    note(seen, [Answer("http://app-1", error="Connection refused")], 998.0)
    text = "\n".join(lines(seen, 120))
    assert "gone for 5 s: Connection refused; asking again, below is what it said last" in text
    assert "select a from t where b = ?" in text
    note(seen, [Answer("http://app-1", picture())], 999.0)
    assert "gone" not in "\n".join(lines(seen, 120))
    seen.append(Seen("http://app-2", picture()))
    assert "is back" in "\n".join(lines(seen, 120))


def test_text_of_others_commands_no_terminal() -> None:
    """Names and messages are printed with their control characters escaped."""
    evil = picture(
        running=[{"at": 1.0, "seconds": 1.5, "tenant": "a\x1b[2J", "task": "\x07", "text": "x\ny"}]
    )
    assert "\x1b" not in "\n".join(lines([Seen("http://app-1", evil)], 200))


# --- with real processes ---------------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Give a router on SQLite with its web application, and the token in the environment."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    with running(tmp_path) as made:
        made.start()
        yield made


def test_top_prints_one_snapshot_where_there_is_no_terminal(processes: Running) -> None:
    """Into a file or a pipe, without a colour, with what is going on."""
    processes.read(0, 3)
    result = CliRunner().invoke(app, ["top", *processes.urls])
    assert result.exit_code == 0
    for text in ("router top", "main/primary", "main/reader-1", "select name from items", "acme"):
        assert text in result.stdout
    assert "\x1b" not in result.stdout
    assert CANARY not in result.output


def test_top_as_json_is_one_snapshot_of_each_process(processes: Running) -> None:
    """The pictures as the processes gave them; one that is gone has an error, and the exit code says so."""
    result = CliRunner().invoke(app, ["top", "--json", *processes.urls, "http://127.0.0.1:1"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["processes"][0]["picture"]["nodes"]
    assert found["processes"][1]["picture"] is None
    assert found["processes"][1]["error"]


class Terminal:
    """Run ``router top`` in a terminal of a size, and keep what it writes there."""

    def __init__(self, *arguments: str, rows: int = 30, columns: int = 120) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        command = [sys.executable, "-m", "router", "top", "--every", "0.2", *arguments]
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**environment, "TERM": "xterm-256color"},
        )
        self.written = ""

    def read(self, seconds: float = 0.1) -> None:
        """Take what was written."""
        while select.select([self._master], [], [], seconds)[0]:
            try:
                self.written += os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                return
            seconds = 0.0

    def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait for something to be so."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.plain()[-3000:]
            self.read()

    def plain(self) -> str:
        """Return what was written without colours and movements."""
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self.written)

    def press(self, keys: str) -> None:
        """Press keys; what was written before is forgotten."""
        self.written = ""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Return the exit code."""
        self.until(lambda: self.process.poll() is not None)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        """Close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminals() -> Iterator[Callable[..., Terminal]]:
    """Open terminals, and close them at the end."""
    made: list[Terminal] = []

    def open_(*arguments: str, **size: int) -> Terminal:
        made.append(Terminal(*arguments, **size))
        return made[-1]

    yield open_
    for each in made:
        each.close()


def test_top_is_live_and_obeys_keys(processes: Running, terminals: Callable[..., Terminal]) -> None:
    """It shows what happens as it happens, sorts and pauses, and leaves the terminal as it was."""
    terminal = terminals(*processes.urls)
    terminal.until(lambda: "main/reader-1" in terminal.plain())
    processes.read(0, 3)
    terminal.until(lambda: "select name from items" in terminal.plain())
    terminal.press("s")
    terminal.until(lambda: "s sort by p99" in terminal.plain())
    terminal.press("p")
    terminal.until(lambda: "PAUSED" in terminal.plain())
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.written.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in terminal.written
    assert termios.tcgetattr(terminal._slave) == terminal.before
    assert CANARY not in terminal.written


def test_a_process_that_goes_and_comes_back_is_followed(
    tmp_path: Path, processes: Running, terminals: Callable[..., Terminal]
) -> None:
    """A restart: what it said last stays with the reason beside it, until it answers again."""
    with running(tmp_path / "other") as other:
        url = other.start()
        terminal = terminals(url, processes.urls[0])
        terminal.until(lambda: terminal.plain().count("pid ") >= 2)
    terminal.until(lambda: "gone" in terminal.plain())
    terminal.written = ""
    terminal.until(lambda: "below is what it said last" in terminal.plain())
    with running(tmp_path / "other") as other:
        other.start(int(url.rpartition(":")[2]))
        terminal.until(lambda: "is back" in terminal.plain())
        terminal.press("q")
        assert terminal.end() == 0


def test_top_waits_for_a_process_that_is_not_there_yet(
    processes: Running, terminals: Callable[..., Terminal]
) -> None:
    """One that does not answer is told; the other is shown meanwhile, and SIGTERM puts the terminal right."""
    terminal = terminals(processes.urls[0], "http://127.0.0.1:1", columns=70, rows=20)
    terminal.until(lambda: "gone" in terminal.plain() and "main/reader-1" in terminal.plain())
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 1
    assert "\x1b[?1049l" in terminal.written
    assert termios.tcgetattr(terminal._slave) == terminal.before
