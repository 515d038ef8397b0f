"""Worker processes show their metrics as one: real processes, one of which is always asked."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from router.dispatcher import Dispatcher
from router.metrics import Metrics, workers
from router.metrics.bins import Bins
from router.metrics.families import Family, Histogram, Numbers
from router.metrics.merging import merged
from router.metrics.snapshots import dumped, loaded
from router.metrics.workers import Workers
from tests.telling import failed, finished

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = ("router_requests_total", "ok")
PROCESSES = multiprocessing.get_context("forkserver")  # imports once for all of them
PROCESSES.set_forkserver_preload([__name__])


async def _work(folder: Path, requests: int, pipe: Connection) -> None:
    async with shared(folder) as (_, dispatcher):
        for _ in range(requests):
            dispatcher.emit(finished(total=0.25))
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)


def work(folder: Path, requests: int, pipe: Connection) -> None:
    """Be a worker that counts some requests, and ends when it is told to."""
    workers._EVERY = 0.05
    asyncio.run(_work(folder, requests, pipe))


class Worker:
    """Run a process that counts some requests."""

    def __init__(self, folder: Path, requests: int) -> None:
        self._pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=work, args=(folder, requests, theirs), daemon=True)
        self.process.start()
        assert self._pipe.poll(60)
        assert self._pipe.recv() == "ready"

    def end(self) -> None:
        """Have it end in order."""
        self._pipe.send("end")
        self.process.join(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(20)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[list[Worker]]:
    with contextlib.ExitStack() as ending:
        begun = [Worker(tmp_path, 2), Worker(tmp_path, 3)]
        for each in begun:
            ending.callback(each.kill)
        yield begun


def left(folder: Path, pattern: str) -> list[Path]:
    """Return the files of workers that there are."""
    return list(folder.glob(pattern))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_EVERY", 0.05)


@contextlib.asynccontextmanager
async def shared(folder: Path) -> AsyncIterator[tuple[Metrics, Dispatcher]]:
    """Share the metrics of this process in a folder."""
    dispatcher, metrics = Dispatcher(), Metrics(workers=folder)
    metrics.attach(dispatcher)
    assert metrics._workers is not None
    metrics._workers.start()
    try:
        yield metrics, dispatcher
    finally:
        await metrics.close()


def read(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return what is exported, added up by name, outcome and bucket."""
    found: dict[tuple[str, ...], float] = {}
    for family in parse(metrics.render().decode()):
        for each in family.samples:
            key = (each.name, *(each.labels[name] for name in ("outcome", "le") if name in each.labels))
            found[key] = found.get(key, 0) + each.value
    return found


async def eventually(metrics: Metrics, key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    """Return what is exported once a sample has a value; the other processes write a little later."""
    for _ in range(200):
        found = read(metrics)
        if found.get(key) == value:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{key} is {found.get(key)}, not {value}")


async def test_whoever_is_asked_answers_for_all(tmp_path: Path, others: list[Worker]) -> None:
    """Counters and histograms of all processes are added up, and how many they are is told."""
    async with shared(tmp_path) as (metrics, dispatcher):
        dispatcher.emit(finished(total=0.25))
        dispatcher.emit(failed())
        found = await eventually(metrics, REQUESTS, 6)
        assert found["router_workers",] == 3
        assert found["router_requests_total", "error"] == 1
        assert found["router_request_duration_seconds_bucket", "0.25"] == 7
        assert found["router_build_info",] == 1


async def test_who_is_gone_is_counted_and_shown_no_more(tmp_path: Path, others: list[Worker]) -> None:
    """No sum goes back when a process ends or is killed; its gauges and its files go."""
    async with shared(tmp_path) as (metrics, dispatcher):
        dispatcher.emit(finished())
        await eventually(metrics, REQUESTS, 6)
        others[0].kill()
        others[1].end()
        for _ in range(2):
            found = read(metrics)
            assert found[REQUESTS] == 6
            assert found["router_workers",] == 1
        assert left(tmp_path, f"{others[0].process.pid}-*") == []
        assert len(left(tmp_path, "*.live")) == 1
        fresh = Worker(tmp_path, 4)
        try:
            await eventually(metrics, REQUESTS, 10)
        finally:
            fresh.end()
        assert read(metrics)[REQUESTS] == 10
    async with shared(tmp_path) as (metrics, _):  # the server was started anew
        assert read(metrics)[REQUESTS] == 10


async def test_many_that_are_asked_at_once_lose_nothing(tmp_path: Path, others: list[Worker]) -> None:
    """Whoever takes the counts of the dead over does so once, however many look at the same time."""
    async with shared(tmp_path) as (one, dispatcher), shared(tmp_path) as (other, _):
        dispatcher.emit(finished())
        await eventually(other, REQUESTS, 6)
        others[0].kill()
        others[1].kill()
        bodies = await asyncio.gather(*(asyncio.to_thread(read, each) for each in (one, other) * 4))
        assert [body[REQUESTS] for body in bodies] == [6] * 8


async def test_a_file_that_could_not_be_removed_is_not_counted_twice(tmp_path: Path) -> None:
    """A process that was killed between keeping the counts of the dead and removing their files."""
    dead = Worker(tmp_path, 5)
    dead.end()
    (counts,) = left(tmp_path, "*-*.counts")
    text = counts.read_text()
    async with shared(tmp_path) as (metrics, _):
        assert read(metrics)[REQUESTS] == 5
        counts.write_text(text)
        assert read(metrics)[REQUESTS] == 5
        assert not counts.exists()


async def test_who_was_killed_while_writing_leaves_nothing(tmp_path: Path) -> None:
    """A file that was begun goes with the rest of its process."""
    dead = Worker(tmp_path, 5)
    dead.kill()
    (live,) = left(tmp_path, "*.live")
    live.with_suffix(".new").write_text("half of")
    async with shared(tmp_path) as (metrics, _):
        read(metrics)
        assert left(tmp_path, f"{dead.process.pid}-*") == []


async def test_a_snapshot_that_comes_too_late_is_not_written(tmp_path: Path) -> None:
    """Who has left would be counted twice by it."""
    share = Workers(tmp_path, "router_", lambda: ())
    share.start()
    await share.close()
    files = left(tmp_path, "*")
    share._write()
    assert left(tmp_path, "*") == files


async def test_a_broken_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One process must not keep the others from being seen."""
    (tmp_path / "1-aa.counts").write_text("\n{no json\n")
    async with shared(tmp_path) as (metrics, dispatcher):
        dispatcher.emit(finished())
        assert read(metrics)[REQUESTS] == 1
    assert "holds no metrics, and is left out" in caplog.text


async def test_a_folder_that_cannot_be_used_leaves_a_process_to_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics never keep a router from opening."""
    (tmp_path / "file").write_text("")
    async with shared(tmp_path / "file" / "folder") as (metrics, dispatcher):
        dispatcher.emit(finished())
        assert read(metrics)[REQUESTS] == 1
    assert "are not shown as one" in caplog.text


async def test_a_folder_that_goes_away_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written is logged, not raised, and not each time."""
    share = Workers(tmp_path / "folder", "router_", lambda: ())
    share.start()
    for path in (tmp_path / "folder").iterdir():
        path.unlink()
    await asyncio.sleep(0.1)
    for path in (tmp_path / "folder").iterdir():
        path.unlink()
    (tmp_path / "folder").rmdir()
    share._write()
    share._write()
    await share.close()
    assert caplog.text.count("cannot be written for the others") == 1


# --- merging ---------------------------------------------------------------------------------------------


def _bins(*counts: int, total: float = 0.0, trace: str = "", at: float = 0.0) -> Bins:
    bins = Bins(len(counts) - 1)
    bins.include(counts, total, {0: (trace, 0.1, at)} if trace else None)
    return bins


def _histogram(bins: Bins, bounds: tuple[float, ...] = (0.1, 1.0)) -> Histogram:
    return Histogram("router_x_seconds", "X", ("node",), bounds, [(("main/r1",), bins)])


def test_a_metric_is_the_same_when_it_is_read_again() -> None:
    """Numbers, histograms and their exemplars survive the file."""
    families: list[Family] = [
        _histogram(_bins(1, 2, 3, total=4.5, trace="t1", at=9.0)),
        Numbers("router_y", 'Y "quoted"', "counter", ("tenant",), [(("ü\n",), 1.5)]),
        Numbers("router_z", "Z", "gauge", (), [((), float("inf"))]),
    ]
    for family in families:
        again = loaded(dumped(family))
        assert list(again.lines(True)) == list(family.lines(True))
        assert (again.name, again.documentation, again.type) == (
            family.name,
            family.documentation,
            family.type,
        )


def test_histograms_are_added_up_and_keep_the_newest_trace() -> None:
    """Bin by bin; an exemplar of another process counts by its time."""
    one, two = _bins(1, 0, 2, total=3.0, trace="old", at=1.0), _bins(0, 5, 1, total=4.0, trace="new", at=2.0)
    for mine, theirs in ((one, two), (two, one)):
        whole = merged("router_", _histogram(mine), [_histogram(theirs)], [_histogram(theirs)])
        assert isinstance(whole, Histogram)
        ((_, bins),) = whole.rows
        assert bins.exemplars is not None
        assert bins.exemplars[0][0] == "new"
    assert (bins.counts, bins.total) == ([2, 5, 5], 10.0)


def test_gauges_are_what_their_rule_says_of_the_living() -> None:
    """Connections are added up, of health the worst counts, and the dead have none."""

    def gauge(name: str, value: float) -> Numbers:
        return Numbers(f"router_{name}", "X", "gauge", ("node",), [(("main/r1",), value)])

    for name, expected in (("pool_connections", 5), ("node_up", 2), ("replica_lag_seconds", 3)):
        whole = merged("router_", gauge(name, 2), [gauge(name, 3)], [gauge(name, 99)])
        assert isinstance(whole, Numbers)
        assert whole.rows == [(("main/r1",), expected)]


def test_what_does_not_fit_is_left_out() -> None:
    """Processes of another version may have other buckets or labels."""
    mine = _histogram(_bins(1, 0, 0, total=0.05))
    other = _histogram(_bins(7, 0, total=1.0), (0.5,))
    whole = merged("router_", mine, [other], [])
    assert isinstance(whole, Histogram)
    assert whole.rows[0][1].counts == [1, 0, 0]


# --- under gunicorn --------------------------------------------------------------------------------------

APPLICATION = """
import asyncio
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from router import Router, web
from router.metrics import workers
import os
workers._EVERY = 0.2

async def ask(request):
    await asyncio.sleep(0.05)  # so that the other worker is met as well
    await router.fetch_value("SELECT 1", tenant="acme")
    return PlainTextResponse(str(os.getpid()))

@asynccontextmanager
async def lifespan(app):
    global router
    async with Router.open("config") as router:
        app.mount("/router", web.app(router))
        yield

application = Starlette(routes=[Route("/ask", ask)], lifespan=lifespan)
"""


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Serve an application with two uvicorn workers under gunicorn."""
    folder = tmp_path / "config"
    (folder / "tenants").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "acme.db").touch()
    (folder / "router.yaml").write_text(
        "version: 1\nclusters: {main: {engine: sqlite, primary: {path: data}}}\n"
        "observability: {metrics: {workers: run/metrics}}\n"
    )
    (folder / "tenants" / "acme.yaml").write_text(
        "tenant: acme\ncluster: main\nisolation: database\ndatabase: acme\n"
    )
    (tmp_path / "served.py").write_text(APPLICATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--workers=2", f"--bind=127.0.0.1:{port}", "--worker-class=uvicorn.workers.UvicornWorker"]
    command = [sys.executable, "-m", "gunicorn", *options, "--no-control-socket", "served:application"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log
        )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(20)


def get(address: tuple[str, int], path: str) -> str:
    """Return an answer on a connection of its own, so that any worker may take it."""
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


def asked(address: tuple[str, int]) -> float:
    """Return how many requests any worker says that all have made."""
    return sum(
        sample.value
        for family in parse(get(address, "/router/metrics"))
        for sample in family.samples
        if sample.name == "router_requests_total"
    )


def test_metrics_of_gunicorn_workers_are_those_of_all(gunicorn: tuple[str, int]) -> None:
    """Whichever worker Prometheus meets tells of all requests, also of a worker that was killed."""
    pids: set[int] = set()
    asks, end = 0, time.monotonic() + 60
    with ThreadPoolExecutor(8) as threads:
        while len(pids) < 2:  # one of them begins earlier
            assert time.monotonic() < end
            pids.update(threads.map(lambda _: int(get(gunicorn, "/ask")), range(16)))
            asks += 16
    for _ in range(100):
        if all(asked(gunicorn) == asks for _ in range(4)):
            break
        time.sleep(0.1)
    time.sleep(1.5)  # a text is given for a second; the last snapshots are written, also on a busy machine
    for _ in range(5):
        assert asked(gunicorn) == asks
    os.kill(min(pids), signal.SIGKILL)
    time.sleep(1.2)  # a text is given for a second
    for _ in range(5):
        assert asked(gunicorn) == asks
