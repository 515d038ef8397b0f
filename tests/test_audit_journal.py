"""The journal on a disk that is full or slow, and its listener: failing, hanging, and gone for a while."""

import asyncio
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import column, select, table

from router import Router
from router.audit.delivery import next_batch, noted
from router.audit.journal import Journal
from router.audit.lanes import hold, lanes, segments, take
from router.errors import AuditUnavailable
from router.events import AuditFailed
from tests.auditing import SEAL, config, records, trail, verified, writes, written

TABLE = "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT)"
UPDATE = "UPDATE plans SET name = 'x'"


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a file or a thread, which sets no event
            await asyncio.sleep(0.005)


@contextmanager
def _file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow over ``size`` bytes: what a full disk does, for these files only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


class _Full:
    """Stand for a disk without room: every write of the journal takes half of a line and fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def begin(self) -> None:
        real, halves = os.write, {}

        def write(descriptor: int, data: Any) -> int:
            if not halves.setdefault(descriptor, False):
                halves[descriptor] = True
                return real(descriptor, bytes(data)[: len(data) // 2])
            halves[descriptor] = False
            raise OSError(28, "No space left on device")

        self._patch.setattr("router.audit.journal.os.write", write)

    def end(self) -> None:
        self._patch.undo()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> _Full:
    """Return a disk that can be filled."""
    return _Full(monkeypatch)


# --- a disk without room ---------------------------------------------------------------------------------


def test_half_a_line_that_a_full_disk_took_is_taken_back(tmp_path: Path) -> None:
    """A real limit of the system: what was not written whole is undone, and the same records fit later."""
    lane = take(tmp_path)
    journal = Journal(lane, SEAL, largest=1 << 20, synced=False, wall=time.time)
    journal.open({})
    size = sum(path.stat().st_size for _, path in segments(lane.path))
    with _file_limit(size + 100), pytest.raises(OSError, match="too large"):
        journal.add([{"type": "write", "text": "x" * 500}])
    assert sum(path.stat().st_size for _, path in segments(lane.path)) == size
    journal.add([{"type": "write", "text": "x" * 500}])
    journal.close()
    report = verified(tmp_path)
    assert report.ok
    assert report.records == 3


async def test_writes_are_refused_while_the_disk_is_full(tmp_path: Path, full: _Full) -> None:
    """By default: reads go on, writes are refused before they are sent, and are taken once there is room."""
    async with Router.open(config(tmp_path, trail=trail(tmp_path, wait="200ms"))) as router:
        told: list[AuditFailed] = []
        router.dispatcher.subscribe(AuditFailed, told.append)
        await router.execute(TABLE, tenant="acme")
        full.begin()
        with pytest.raises(AuditUnavailable, match="Do not repeat it") as unkept:
            await router.execute("INSERT INTO plans VALUES (1, 'x')", tenant="acme")
        assert unkept.value.sent.value == "unknown"
        with pytest.raises(AuditUnavailable, match="refused") as refused:
            await router.execute(UPDATE, tenant="acme")
        assert refused.value.sent.value == "no"
        with pytest.raises(AuditUnavailable, match="refused"):
            async with router.session("acme").transaction() as tx:
                await tx.execute(UPDATE)
        assert len(await router.fetch_all("SELECT * FROM plans", tenant="acme")) == 1
        async with router.session("acme").transaction() as tx:
            assert len(await tx.fetch_all("SELECT * FROM plans")) == 1
        async with router.session("acme").orm() as orm:
            assert len((await orm.execute(select(column("id")).select_from(table("plans")))).all()) == 1
        assert router.audit.status().refused == 2
        full.end()
        await _until(lambda: not router.audit.status().failing)
        await router.execute(UPDATE, tenant="acme")
        assert [(each.part, bool(each.error)) for each in told] == [("journal", True), ("journal", False)]
        assert router.audit.status().lost == 0
    assert [each["text"][:6] for each in writes(tmp_path / "journal")] == ["create", "insert", "update"]
    assert verified(tmp_path / "journal").ok


async def test_or_they_go_on_and_are_counted(tmp_path: Path, full: _Full) -> None:
    """when_full: continue: nobody waits, what memory does not hold is lost, and the chain says how much."""
    given = config(tmp_path, trail=trail(tmp_path, wait="200ms", when_full="continue"))
    async with Router.open(given) as router:
        await router.execute(TABLE, tenant="acme")
        writer = router._audit.writer  # type: ignore[union-attr]
        writer._most = 3  # type: ignore[union-attr]
        full.begin()
        for _ in range(8):
            await router.execute(UPDATE, tenant="acme")
        status = router.audit.status()
        assert (status.lost, status.queued) == (5, 3)
        assert status.late
        full.end()
        await _until(lambda: not router.audit.status().queued)
        await router.execute(UPDATE, tenant="acme")
        assert b"router_audit_lost_total 5.0" in router.metrics.render()
    assert len(writes(tmp_path / "journal")) == 1 + 3 + 1
    lost = [each.facts["count"] for each in records(tmp_path / "journal") if each.facts["type"] == "lost"]
    assert lost == [5]
    assert verified(tmp_path / "journal").ok


async def test_closing_does_not_wait_for_ever_for_a_full_disk(
    tmp_path: Path, full: _Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written in some seconds is counted as lost."""
    given = config(tmp_path, trail=trail(tmp_path, wait="50ms", when_full="continue"))
    monkeypatch.setattr("router.audit.audit.GRACE", 0.2)
    router = Router.open(given)
    await router.connect()
    await router.execute(TABLE, tenant="acme")
    full.begin()
    await router.execute(UPDATE, tenant="acme")
    handle = router.audit
    await router.close()
    full.end()
    assert handle.status().lost == 1
    assert not router._audit.writer._thread.is_alive()  # type: ignore[union-attr]


async def test_a_disk_that_stands_still_holds_up_writes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop never waits for the disk: reads are answered while a write waits for its record."""
    real = os.write

    def slow(descriptor: int, data: Any) -> int:
        time.sleep(0.3)
        return real(descriptor, data)

    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        await router.execute(TABLE, tenant="acme")
        monkeypatch.setattr("router.audit.journal.os.write", slow)
        write = asyncio.create_task(router.execute(UPDATE, tenant="acme"))
        for _ in range(10):
            await router.fetch_all("SELECT * FROM plans", tenant="acme")
        assert not write.done()
        await write
        monkeypatch.undo()


@pytest.mark.parametrize("fsync", ["each", "interval", "off"])
async def test_every_way_to_sync_keeps_all(tmp_path: Path, fsync: str) -> None:
    """What differs is only what a loss of power may take."""
    async with Router.open(config(tmp_path, trail=trail(tmp_path, fsync=fsync, interval="10ms"))) as router:
        await router.execute(TABLE, tenant="acme")
        await asyncio.gather(*(router.execute(UPDATE, tenant="acme") for _ in range(20)))
        await asyncio.sleep(0.05)
    assert len(writes(tmp_path / "journal")) == 21
    assert verified(tmp_path / "journal").ok


# --- the listener ----------------------------------------------------------------------------------------


class _Sink:
    """Take records, after failing or hanging as often as it is told to."""

    def __init__(self, *, failures: int = 0, hangs: int = 0) -> None:
        self.taken: list[dict[str, Any]] = []
        self.calls = 0
        self._failures, self._hangs = failures, hangs

    async def __call__(self, found: Sequence[dict[str, Any]]) -> None:
        self.calls += 1
        if self._hangs:
            self._hangs -= 1
            await asyncio.sleep(3600)
        if self._failures:
            self._failures -= 1
            raise ConnectionError("the listener's own")
        self.taken += found

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.taken if each["type"] == "write"]


async def test_a_listener_gets_all_in_order(tmp_path: Path) -> None:
    """Each record once, as the journal has it, in batches; also what was there before it came."""
    sink = _Sink()
    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        await router.execute(TABLE, tenant="acme")
        router.audit.deliver(sink)
        for _ in range(20):
            await router.execute(UPDATE, tenant="acme")
        await _until(lambda: len(sink.texts) == 21 and not router.audit.status().undelivered_bytes)
    assert [each["seq"] for each in sink.taken] == list(range(23))
    assert sink.taken[-1]["type"] == "closed"
    assert sink.taken == [{**each.facts, "hash": each.hash} for each in records(tmp_path / "journal")]


async def test_a_listener_that_fails_gets_the_same_again(tmp_path: Path) -> None:
    """No query notices, the order stays, and the failure is told and counted."""
    sink = _Sink(failures=2)
    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        told: list[AuditFailed] = []
        router.dispatcher.subscribe(AuditFailed, told.append)
        router.audit.deliver(sink)
        for text in (TABLE, UPDATE):
            await router.execute(text, tenant="acme")
        await _until(lambda: len(sink.texts) == 2 and not router.audit.status().delivery_failing)
        status = router.audit.status()
        assert (status.delivery_failures, status.delivery_failing) == (2, "")
        assert [(each.part, each.error) for each in told] == [("sink", "ConnectionError"), ("sink", "")]
    assert [each["seq"] for each in sink.taken] == [0, 1, 2, 3]


async def test_a_listener_that_cancels_itself_is_not_stopped(tmp_path: Path) -> None:
    """A CancelledError of its own is a failure like any other; closing ends the delivery all the same."""
    taken: list[dict[str, Any]] = []
    calls = 0

    async def sink(found: Sequence[dict[str, Any]]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError
        taken.extend(found)

    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        router.audit.deliver(sink)
        await router.execute(TABLE, tenant="acme")
        await _until(lambda: len(taken) == 2)
    assert [each["type"] for each in taken] == ["opened", "write", "closed"]


async def test_a_forked_child_leaves_the_journal_alone(tmp_path: Path) -> None:
    """It writes nothing at its end and lets go of the lane, which stays the parent's."""
    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        await router.execute(TABLE, tenant="acme")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking where threads run (3.12)
            child = os.fork()
        if child == 0:
            os._exit(0 if hold(lanes(tmp_path / "journal")[0]) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222 - it ends at once
        await router.execute(UPDATE, tenant="acme")
    assert len(writes(tmp_path / "journal")) == 2
    report = verified(tmp_path / "journal")
    assert report.ok
    assert report.chains == 1


async def test_a_listener_that_hangs_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the same batch again; writes go on meanwhile, at the speed that they had."""
    monkeypatch.setattr("router.audit.delivery.TIMEOUT", 0.2)
    sink = _Sink(hangs=1)
    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        router.audit.deliver(sink)
        await router.execute(TABLE, tenant="acme")
        await _until(lambda: sink.calls == 1)
        async with asyncio.timeout(0.19):
            await router.execute(UPDATE, tenant="acme")
        await _until(lambda: len(sink.texts) == 2)


async def test_a_restart_goes_on_where_delivery_has_ended(tmp_path: Path) -> None:
    """What was not taken before is taken first; nothing that was taken comes again."""
    given = config(tmp_path, trail=trail(tmp_path))
    first, second = _Sink(), _Sink()
    async with Router.open(given) as router:
        router.audit.deliver(first)
        await router.execute(TABLE, tenant="acme")
    async with Router.open(given) as router:  # nobody listens
        await router.execute(UPDATE, tenant="acme")
    async with Router.open(given) as router:
        router.audit.deliver(second)
        await router.execute("DELETE FROM plans", tenant="acme")
    assert first.texts == [TABLE.lower().replace("plans (", "plans(")]
    assert second.texts == ["update plans set name = ?", "delete from plans"]
    got = [(each["chain"], each["seq"]) for each in first.taken + second.taken]
    assert got == [(each.head.chain, each.head.seq) for each in records(tmp_path / "journal")]


async def test_what_another_process_has_left_is_delivered_too(tmp_path: Path) -> None:
    """Fewer processes than before: a lane that nobody holds has a listener again."""
    given = config(tmp_path, tenants=("acme", "globex"), trail=trail(tmp_path))
    async with Router.open(given) as one, Router.open(given) as two:
        await one.execute(TABLE, tenant="acme")
        await two.execute(TABLE, tenant="globex")
    sink = _Sink()
    async with Router.open(given) as router:
        router.audit.deliver(sink)
        await _until(lambda: len(sink.texts) == 2)
        await _until(
            lambda: (lane := hold(lanes(tmp_path / "journal")[1])) is not None and not lane.release()
        )
    assert {each["tenant"] for each in sink.taken if each["type"] == "write"} == {"acme", "globex"}


async def test_delivered_files_go_after_their_time_and_the_chain_says_so(tmp_path: Path) -> None:
    """Nothing is missed by verify, and nothing that was not delivered is deleted."""
    given = config(tmp_path, trail=trail(tmp_path, segment="4KiB", keep="0s"))
    sink = _Sink()
    async with Router.open(given) as router:
        await router.execute(TABLE, tenant="acme")
        for _ in range(30):
            await router.execute(UPDATE, tenant="acme")
        (lane,) = lanes(tmp_path / "journal")
        before = len(segments(lane))
        assert before > 3
        router.audit.deliver(sink)
        await _until(lambda: len(segments(lane)) < 3)
    report = verified(tmp_path / "journal")
    assert report.ok
    assert len(report.notes) == 1
    assert len(sink.texts) == 31
    head = report.heads[0]
    segments(lane)[0][1].unlink()
    assert not verified(tmp_path / "journal", heads=[head]).ok


def test_a_batch_stops_before_half_a_line_and_goes_on_after_it(tmp_path: Path) -> None:
    """The end of a file that is still written is not taken before it is whole; an old half is passed by."""
    written(tmp_path, (2,), closed=False)
    (lane,) = lanes(tmp_path)
    path = segments(lane)[0][1]
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half')
    batch = next_batch(lane, noted(lane))
    assert [each.facts["seq"] for each in batch.records] == [0, 1, 2]
    assert batch.after.offset == len(whole)
    assert next_batch(lane, batch.after) == ([], batch.after)
    written(tmp_path, (1,))
    after = next_batch(lane, batch.after)
    assert [each.facts["type"] for each in after.records] == ["opened", "write", "closed"]
