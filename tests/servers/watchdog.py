"""End the servers of a test run that died without doing so itself.

A small child process reads from a pipe which servers and folders there are. The pipe closes when the tests
end, in whatever way; then the child ends what is left. (Linux could signal each server at the death of its
parent, but counts the *thread* that started it as the parent, and tests start servers from threads.)
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_lock = threading.Lock()
_watchdog: subprocess.Popen[bytes] | None = None


def _parent_and_birth(pid: int) -> tuple[int, str] | None:
    """Return the parent of a process and the tick it started at, which with the id names it for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name of the program may hold spaces
    return (int(fields[1]), fields[19]) if fields[0] != "Z" else None


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below ``pid``, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (facts := _parent_and_birth(int(entry))):
            children.setdefault(facts[0], []).append(int(entry))
    found, rest = [], [pid]
    while rest:
        below = children.get(rest.pop(0), [])
        found += below
        rest += below
    return found


def alive(pid: int) -> bool:
    """Tell whether a process is there and is more than an entry that its parent has not read yet."""
    return _parent_and_birth(pid) is not None


def kill_tree(pid: int) -> None:
    """Kill a process and all below it, and return when they are dead; none can act in between."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # so that it can start no further child
        family = [*descendants(pid), pid]
        for each in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        while any(map(alive, family)):
            time.sleep(0.005)


def watch_process(pid: int, quick_signal: signal.Signals) -> None:
    """Have a server ended, by ``quick_signal`` first, should the tests die."""
    _tell("process", pid, int(quick_signal))


def forget_process(pid: int) -> None:
    """Take back :func:`watch_process`: the server has ended."""
    _tell("ended", pid, 0)


def watch_folder(path: Path) -> None:
    """Have a folder deleted should the tests die."""
    _tell("folder", str(path), 0)


def forget_folder(path: Path) -> None:
    """Take back :func:`watch_folder`."""
    _tell("removed", str(path), 0)


def _tell(verb: str, subject: int | str, number: int) -> None:
    global _watchdog
    with _lock:
        if _watchdog is None:
            _watchdog = subprocess.Popen(
                [sys.executable, "-I", __file__], stdin=subprocess.PIPE, start_new_session=True
            )
        assert _watchdog.stdin is not None
        _watchdog.stdin.write(json.dumps([verb, subject, number]).encode() + b"\n")
        _watchdog.stdin.flush()


def dismiss() -> None:
    """Let the watchdog go; it ends whatever was not ended yet."""
    global _watchdog
    with _lock:
        if _watchdog is not None and _watchdog.stdin is not None:
            _watchdog.stdin.close()
            _watchdog.wait()
            _watchdog = None


def _left(servers: dict[int, tuple[str, int]]) -> dict[int, tuple[str, int]]:
    """Return those servers that still are the process that was reported, not another with the same id."""
    return {
        pid: entry
        for pid, entry in servers.items()
        if (facts := _parent_and_birth(pid)) and facts[1] == entry[0]
    }


def _end_all(servers: dict[int, tuple[str, int]], folders: set[str]) -> None:
    for pid, (_, number) in _left(servers).items():
        with contextlib.suppress(ProcessLookupError):
            for each in [*descendants(pid), pid]:
                os.kill(each, signal.SIGCONT)
            os.kill(pid, number)
    end = time.monotonic() + 5
    while _left(servers) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in _left(servers):
        kill_tree(pid)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Keep the list of servers and folders until the pipe closes, then end what is left."""
    servers: dict[int, tuple[str, int]] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        verb, subject, number = json.loads(line)
        if verb == "process":
            if facts := _parent_and_birth(subject):
                servers[subject] = (facts[1], number)
        elif verb == "ended":
            servers.pop(subject, None)
        elif verb == "folder":
            folders.add(subject)
        else:
            folders.discard(subject)
    _end_all(servers, folders)


if __name__ == "__main__":
    main()
