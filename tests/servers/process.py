"""One server process: start, stop, kill, freeze, and an end to it however the tests end.

Linux only: it reads ``/proc`` to find the children of a server.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.servers import watchdog
from tests.servers.binaries import Account

HOST = "127.0.0.1"
SCRIPTS = Path(__file__).resolve().parents[2] / "config" / "servers"
START_TIMEOUT = 60.0  # seconds; two busy cores take a while, a healthy start takes one to three
ANSWER_TIMEOUT = 60.0  # seconds, for whatever a test has a server or a program do; a frozen server ends there


def free_port() -> int:
    """Return a loopback port that nobody listens on, below the range that the system gives to clients.

    A port of that range could be taken by some outgoing connection while its server is down for a restart.
    """
    for _ in range(200):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise RuntimeError("200 random ports between 20000 and 32000 were all taken: close some servers")


def wait_until(condition: Callable[[], bool], timeout: float, what: Callable[[], str]) -> None:
    """Return when ``condition`` holds; raise ``TimeoutError`` with ``what()`` after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what()} (waited {timeout:g} s)")
        time.sleep(0.02)


def memory(room: int = 6 << 30) -> Path | None:
    """Return the folder whose files are kept in memory, if so many bytes are free there, else ``None``.

    The servers of a run of tests fill a third of that. They make and delete hundreds of thousands of files,
    which on a disk takes a quarter of all the processor time of the tests.
    """
    place = Path("/dev/shm")
    with contextlib.suppress(OSError):
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(facts["MemAvailable"].split()[0]) * 1024
        if min(available, shutil.disk_usage(place).free) >= room:
            return place
    return None


class Folder:
    """Own a temporary folder that the server's user may enter and others may not."""

    # Not TMPDIR: a long path does not fit a Unix socket, and the server's user may not get there.
    place = Path("/tmp")

    def __init__(self, label: str, owner: Account) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"router-{label}-", dir=self.place))
        self._owner = owner
        owner.own(self.path)
        watchdog.watch_folder(self.path)

    def make(self, name: str) -> Path:
        """Create a folder inside."""
        path = self.path / name
        path.mkdir(mode=0o700)
        self._owner.own(path)
        return path

    def copy(self, source: Path, target: Path) -> Path:
        """Copy a shared script or configuration file to where the server's user can read it."""
        shutil.copy(source, target)
        self._owner.own(target)
        return target

    def write(self, target: Path, text: str) -> Path:
        """Write a file that only the server's user can read."""
        target.touch(mode=0o600)
        target.write_text(text)
        self._owner.own(target)
        return target

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        watchdog.forget_folder(self.path)


class Server:
    """Run one server; a subclass says with which command and how to tell that it is ready.

    ``stop`` is the orderly end, ``kill`` the crash of a machine, ``freeze`` a machine that hangs: the
    kernel still accepts connections for it, and nothing answers.
    """

    stop_signal = signal.SIGTERM
    quick_signal = signal.SIGKILL  # ends it at once and leaves nothing behind in the system

    def __init__(self, name: str, home: Path, owner: Account) -> None:
        self.name = name
        self.host = HOST
        self.port = free_port()
        self.home = home
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command that becomes the server."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the server."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether the server takes statements."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether the server's process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server on its port and data and return when it takes statements."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the server and return at once."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already, as process {self.pid}")
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end the servers themselves
                **self._owner.popen(),
            )
        watchdog.watch_process(self.pid, self.quick_signal)

    def wait_ready(self) -> None:
        """Return when the server takes statements; raise with the end of its log if it does not get there."""

        def ready_or_dead() -> bool:
            return not self.running or self.ready()

        wait_until(ready_or_dead, START_TIMEOUT, lambda: f"{self.name} does not start:\n{self.log_tail()}")
        if not self.running:
            raise RuntimeError(f"{self.name} ended while it started:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the server in order and wait for it."""
        self._end(self.stop_signal, timeout=20)

    def kill(self) -> None:
        """End the server and its children at once, as a crash of its machine would."""
        if self.running:
            watchdog.kill_tree(self.pid)
            self._reap()

    def freeze(self) -> None:
        """Halt all processes of the server; its connections stay open and nothing answers."""
        # The parent first, so that it cannot start another child meanwhile.
        os.kill(self.pid, signal.SIGSTOP)
        _signal(watchdog.descendants(self.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on where it was."""
        _signal([*watchdog.descendants(self.pid), self.pid], signal.SIGCONT)

    def close(self) -> None:
        """End the server quickly, frozen or not; its data is not needed any more."""
        if self.running:
            self.thaw()
        self._end(self.quick_signal, timeout=5)

    def log_tail(self) -> str:
        """Return the last lines that the server wrote."""
        log = self.home / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log)"

    def _end(self, how: signal.Signals, timeout: float) -> None:
        if not self.running:
            return
        os.kill(self.pid, how)
        try:
            self._process.wait(timeout)  # type: ignore[union-attr]
        except subprocess.TimeoutExpired:
            watchdog.kill_tree(self.pid)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            watchdog.forget_process(self._process.pid)
            self._process = None


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def answers(host: str, port: int, greeting: bytes = b"") -> bool:
    """Tell whether a server on TCP says something, to ``greeting`` or, as MariaDB does, by itself."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1) as link:
        if greeting:
            link.sendall(greeting)
        return bool(link.recv(64))
    return False


def run(command: list[str], env: dict[str, str], owner: Account, cwd: Path, text: str | None = None) -> str:
    """Run a program as ``owner`` and return what it printed; raise with its complaint if it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        input=text or "",
        capture_output=True,
        text=True,
        timeout=ANSWER_TIMEOUT,
        **owner.popen(),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()
