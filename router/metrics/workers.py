"""Worker processes behind one port, whose metrics are shown as one, whichever of them is asked.

Each leaves what it has counted in a file, every few seconds and when it ends. Who is asked adds the others'
to its own. Who is gone is known by a lock that the system lets go of with the process; its counts are kept in
one file, so that no sum goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock

from router.logs import log_of
from router.metrics.families import Family
from router.metrics.merging import APART, apart, merged
from router.metrics.snapshots import dumped, loaded
from router.pacing import paced, politely

_EVERY = 5.0  # seconds between two snapshots
_PAST = "past"

_log = log_of("metrics")

Reading = dict[str, Family]


class Workers:
    """Be one of the processes that share ``folder``; ``families`` returns what this one has counted."""

    def __init__(self, folder: Path, prefix: str, families: Callable[[], Iterable[Family]]) -> None:
        self._folder = folder
        self._prefix = prefix
        self._families = families
        self._name = ""  # while it has begun
        self._living = -1  # descriptor of the lock that shows that this process lives
        self._task: asyncio.Task[None] | None = None
        self._writing = Lock()
        self._told = False

    def start(self) -> None:
        """Begin to leave snapshots, on the event loop; where that fails, this process shows its own only."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked():  # else others would take the new lock for that of a process that is gone
                self._living = _opened(self._folder / f"{name}.live")
                fcntl.flock(self._living, fcntl.LOCK_EX)
        except OSError as exc:
            _log.error("the metrics of workers are not shown as one: %s", exc)
            return
        self._name = name
        self._task = asyncio.get_running_loop().create_task(self._leave(), name="router metrics of workers")

    async def _leave(self) -> None:
        while True:
            await asyncio.to_thread(self._write)
            await asyncio.sleep(_EVERY)

    def _write(self) -> None:
        """Write what this process has counted, whole or not at all."""
        try:
            with politely(), self._writing:
                if self._name:  # else it has left while this waited
                    _replace(self._folder / f"{self._name}.counts", map(dumped, self._families()))
        except OSError as exc:
            if not self._told:
                self._told = True
                _log.error("the metrics of this worker cannot be written for the others: %s", exc)

    async def close(self) -> None:
        """Write a last time, and be gone for the others."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._task = None
        await asyncio.to_thread(self._write)
        self.leave()

    def leave(self) -> None:
        """Let go of the lock; in a forked child it stays with the parent."""
        self._name = ""
        if self._living >= 0:
            os.close(self._living)
            self._living = -1

    # --- reading -----------------------------------------------------------------------------------------

    def together(self, mine: Iterable[Family]) -> Iterator[Family]:
        """Yield the metrics of all processes as one."""
        if not self._name:
            yield from mine
            return
        with self._locked():
            gone = self._absorbed()
            living = dict(self._others())
        for family in mine:
            if family.name == f"{self._prefix}{APART}":
                named = [(name, read[family.name]) for name, read in living.items() if family.name in read]
                yield apart(family, [(self._name, family), *named])
                continue
            yield merged(
                self._prefix,
                family,
                [read[family.name] for read in living.values() if family.name in read],
                [gone[family.name]] if family.name in gone else [],
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one that looks after the folder."""
        descriptor = _opened(self._folder / "lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _others(self) -> Iterator[tuple[str, Reading]]:
        for path in sorted(self._folder.glob("*.counts")):
            if path.stem not in (_PAST, self._name):
                yield path.stem, _read(path)[1]

    def _absorbed(self) -> Reading:
        """Return what those had counted that are gone, and keep it in one file."""
        past = self._folder / f"{_PAST}.counts"
        absorbed, counts = _read(past)
        gone = [name for name in self._names() if name != self._name and self._is_gone(name)]
        fresh = [name for name in gone if name not in absorbed]  # the rest was, but could not be removed
        if fresh:
            for name in fresh:
                for each in _read(self._folder / f"{name}.counts")[1].values():
                    if each.type != "gauge" and each.name != f"{self._prefix}{APART}":
                        before = counts.get(each.name, each)
                        counts[each.name] = each if before is each else merged("", before, [each], [])
            _replace(past, map(dumped, counts.values()), gone)
        for name in gone:
            for kind in ("counts", "new", "live"):  # the lock last: what has none is looked at again
                (self._folder / f"{name}.{kind}").unlink(missing_ok=True)
        return counts

    def _names(self) -> list[str]:
        """Return all that were ever begun here and are not forgotten."""
        found = {path.stem for kind in ("live", "counts") for path in self._folder.glob(f"*.{kind}")}
        return sorted(found - {_PAST})

    def _is_gone(self, name: str) -> bool:
        """Tell whether nobody holds the lock of a process."""
        descriptor = _opened(self._folder / f"{name}.live")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


def _opened(path: Path) -> int:
    """Return the descriptor of a file that is there to be locked."""
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)


def _replace(path: Path, lines: Iterable[str], absorbed: Iterable[str] = ()) -> None:
    """Write a file whole or not at all: first the names of whose counts it has, then a metric a line."""
    made = path.with_suffix(".new")
    with made.open("w", encoding="utf-8") as file:
        file.write(" ".join(absorbed) + "\n")
        for line in paced(lines):
            file.write(line + "\n")
    made.replace(path)


def _read(path: Path) -> tuple[frozenset[str], Reading]:
    """Return whose counts a file has beside its own, and its metrics by name."""
    try:
        with path.open(encoding="utf-8") as file:
            absorbed = frozenset(file.readline().split())
            families = [loaded(line) for line in paced(file)]
    except FileNotFoundError:  # nothing yet
        return frozenset(), {}
    except (ValueError, KeyError, TypeError) as exc:
        _log.error("%s holds no metrics, and is left out: %s", path, type(exc).__name__)
        return frozenset(), {}
    return absorbed, {family.name: family for family in families}
