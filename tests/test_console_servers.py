"""The console in other people's servers: mounted, in several processes, and never in the way of their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
TOKEN = "canary-token-of-the-servers"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
_WORKERS = ["--workers", "2", "--worker-class", "uvicorn.workers.UvicornWorker"]
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--host", "127.0.0.1", "--log-level", "warning", "--port"],
    "gunicorn": ["-m", "gunicorn", *_WORKERS, "--no-control-socket", "--log-level", "warning", "--bind"],
}


@contextmanager
def serving(server: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the application under a server; give its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = str(port) if server == "uvicorn" else f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, *SERVERS[server], address, "tests.served:app"],
        cwd=ROOT,
        env={**os.environ, "SERVED_FOLDER": str(folder), "SERVED_TOKEN": TOKEN},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/router"
    try:
        _await(url, process)
        yield url, process
    finally:
        with suppress(ProcessLookupError):  # its workers too, which a master that is killed leaves behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("the server does not answer")


@pytest.mark.parametrize("server", SERVERS)
def test_console_does_not_keep_a_server_from_stopping(server: str, tmp_path: Path) -> None:
    """A server that is told to stop waits for all answers; who watches is sent away, and it ends at once."""
    with serving(server, tmp_path) as (url, process), httpx.Client(headers=BEARER, timeout=20) as http:
        with http.stream("GET", f"{url}/console/stream") as answer:
            lines = answer.iter_lines()
            while not next(lines).startswith("data"):
                pass
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert process.wait(timeout=10) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 6
        assert "event: bye" in rest


def test_console_session_is_good_in_every_process(tmp_path: Path) -> None:
    """Who has logged in at one worker is known to the others, and sees which one answers."""
    with serving("gunicorn", tmp_path) as (url, _), httpx.Client(follow_redirects=True) as http:
        page = http.post(f"{url}/console/login", data={"token": TOKEN})
        assert str(page.url) == f"{url}/console"
        assert 'data-stream="console/stream"' in page.text
        assert http.get(f"{url}/console/static/console.js").status_code == 200
        pids = set()
        for _ in range(200):
            with httpx.Client(cookies=http.cookies) as other:  # another connection may reach another worker
                pids.add(other.get(f"{url}/status").json()["pid"])
            if len(pids) == 2:
                break
        assert len(pids) == 2
        (cookie,) = http.cookies.jar
        assert (cookie.path, cookie.secure) == ("/router/", False)
