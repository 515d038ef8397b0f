"""The audit of one router: what it records, where that is kept, and whether it works."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router.audit.chain import Head, Seal
from router.audit.delivery import Delivery, Sink, Spot, left, noted
from router.audit.journal import Journal
from router.audit.lanes import hold, lanes, take
from router.audit.outbox import Outbox
from router.audit.records import Facts, Place
from router.audit.retiring import delete, retirable
from router.audit.trail import Source, Trail
from router.audit.writer import Writer
from router.config import AuditConfig, TrailConfig
from router.errors import AuditUnavailable, RouterError, Sent, UsageError
from router.events import (
    AuditFailed,
    Event,
    RequestEvent,
    TransactionBegun,
    TransactionCommitted,
    TransactionEvent,
)
from router.logs import log_of

GRACE: Final = 5.0
"""Seconds that closing waits for the journal, and for the listener."""

_log = log_of("audit")


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Show the audit at one moment; times in seconds."""

    records: int  # written to the journal
    queued: int  # waiting to be written
    lost: int  # in no file, while the journal could not be written
    late: int  # writes that did not wait any longer for their record
    refused: int  # writes that were refused because the journal could not be written
    failures: int  # attempts at writing the journal that failed
    failing: str  # why the journal cannot be written; "" while it can
    delivered: int  # records that the listener has taken
    undelivered_bytes: int  # of the journal; 0 without a listener
    delivery_failures: int
    delivery_failing: str
    delivery_lag: float  # between a write and its delivery, of the last batch
    rowless: int  # writes outside of a transaction whose outcome is in no row
    head: Head | None  # the last record of the journal


class Audit:
    """Record writes; made where an event loop runs."""

    def __init__(
        self,
        config: AuditConfig,
        folder: Path,
        place: Callable[[RequestEvent], Place | None],
        emit: Callable[[Event], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.seal = Seal(None if config.key is None else config.key.resolve().reveal().encode())
        self.outbox = None if config.outbox is None else Outbox(self.seal)
        self.trail = Trail(place, self.keep, self._lose, config.longest)
        self.refused = 0
        self.rowless = 0
        self._emit = emit
        self._wall = wall
        self._deliveries: list[Delivery] = []
        self._told_lost = 0
        self.writer = None if config.trail is None else self._writer(config.trail, folder)

    def _writer(self, config: TrailConfig, folder: Path) -> Writer:
        self._folder = folder / config.folder
        journal: Journal | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            journal = Journal(
                take(self._folder),
                self.seal,
                largest=config.segment,
                synced=config.fsync != "off",
                wall=self._wall,
            )
            journal.open({"host": socket.gethostname(), "pid": os.getpid()})
        except OSError as exc:
            if journal is not None:
                journal.abandon()
            raise AuditUnavailable(
                f"the audit journal in {config.folder} cannot be begun: {exc.strerror}. "
                "Make it a folder that this user may write, with room on its disk"
            ) from None
        return Writer(journal, config, self._tell_journal, self._wall)

    def attach(self, dispatcher: Source) -> None:
        """Listen to a dispatcher."""
        self.trail.attach(dispatcher)
        if self.outbox is not None:
            dispatcher.subscribe(TransactionEvent, self._ended, mute_after=None)

    def _ended(self, event: TransactionEvent) -> None:
        if self.outbox is not None and not isinstance(event, TransactionBegun):
            self.outbox.ended(event.unit, committed=isinstance(event, TransactionCommitted))

    def keep(self, records: list[Facts]) -> None:
        """Write records to the journal, if there is one."""
        if self.writer is not None:
            for each in records:
                self.writer.put(each)

    def unenclosed(self, error: RouterError) -> None:
        """Take note that a row about a write that has happened could not be inserted."""
        self.rowless += 1
        self._tell("outbox", type(error).__name__)

    def _lose(self, error: Exception) -> None:
        _log.error("a write has no audit record", exc_info=error)
        if self.writer is not None:
            self.writer.lost += 1

    # --- the flow of a write -----------------------------------------------------------------------------

    def admit(self) -> None:
        """Refuse a write while its record could not be kept, if that is what is configured."""
        writer = self.writer
        if writer is None or not writer.failing or self._continues:
            return
        self.refused += 1
        raise AuditUnavailable(
            f"the audit journal cannot be written ({writer.failing}), so writes are refused. "
            "Give it room, or set observability.audit.trail.when_full: continue",
            sent=Sent.NO,
        )

    async def kept(self) -> None:
        """Wait until the records of what has ended are in the journal.

        Raises AuditUnavailable if they are not in time and writes without a record are not acceptable.
        """
        writer = self.writer
        if writer is None or await writer.kept() or self._continues:
            return
        raise AuditUnavailable(
            "the write was sent, and its audit record cannot be kept now: the journal does not take it "
            f"({writer.failing or 'no answer of the disk'}). Do not repeat it; find out by reading",
            sent=Sent.UNKNOWN,
        )

    @property
    def _continues(self) -> bool:
        return self.config.trail is not None and self.config.trail.when_full == "continue"

    # --- delivery ----------------------------------------------------------------------------------------

    def deliver(self, sink: Sink) -> None:
        """Hand all records to ``sink`` from now on, beginning after the last that was taken before."""
        writer = self.writer
        if writer is None or self._deliveries:
            fact = "there is no journal" if writer is None else "the journal is delivered already"
            raise UsageError(f"{fact}. Set observability.audit.trail, and give it one listener")
        lane = writer.journal.lane.path
        self._deliveries.append(
            Delivery(
                lane, sink, wake=writer.written, passed=self._passed, tell=self._tell_sink, wall=self._wall
            )
        )
        for path in lanes(self._folder):
            if path != lane and left(path, noted(path)):
                self._adopt(path, sink)

    def _adopt(self, path: Path, sink: Sink) -> None:
        """Deliver what a process has left that is gone; one that is there delivers itself."""
        lane = hold(path)
        if lane is not None:
            delivery = Delivery(path, sink, tell=self._tell_sink, wall=self._wall, last=True)
            delivery.task.add_done_callback(lambda _: lane.release())
            self._deliveries.append(delivery)

    async def _passed(self, spot: Spot) -> None:
        """Let go of files that were delivered and are old enough, once the journal says so."""
        writer, config = self.writer, self.config.trail
        if writer is None or config is None:
            return
        oldest = self._wall() - config.keep
        found = await asyncio.to_thread(retirable, writer.journal.lane.path, spot.number, oldest)
        if found is not None:
            writer.put({"at": round(self._wall(), 6), **found.record})
            if await writer.kept():
                await asyncio.to_thread(delete, found)

    def _tell_journal(self, error: str) -> None:
        self._tell("journal", error)

    def _tell_sink(self, error: str) -> None:
        self._tell("sink", error)

    def _tell(self, part: str, error: str) -> None:
        if error:
            _log.error("the audit %s fails: %s", part, error)
        else:
            _log.warning("the audit %s works again", part)
        lost = 0 if self.writer is None else self.writer.lost
        self._emit(AuditFailed(self._wall(), part, error, lost - self._told_lost))
        self._told_lost = lost

    # --- looking and closing -----------------------------------------------------------------------------

    def status(self) -> AuditStatus:
        """Return how the audit fares."""
        writer, deliveries = self.writer, self._deliveries
        return AuditStatus(
            records=0 if writer is None else writer.records,
            queued=0 if writer is None else writer.queued,
            lost=0 if writer is None else writer.lost,
            late=0 if writer is None else writer.late,
            refused=self.refused,
            failures=0 if writer is None else writer.failures,
            failing="" if writer is None else writer.failing,
            delivered=sum(each.delivered for each in deliveries),
            undelivered_bytes=sum(left(each.lane, each.spot) for each in deliveries),
            delivery_failures=sum(each.failures for each in deliveries),
            delivery_failing=next((each.failing for each in deliveries if each.failing), ""),
            delivery_lag=max((each.lag for each in deliveries), default=0.0),
            rowless=self.rowless,
            head=None if writer is None else writer.journal.head,
        )

    async def close(self) -> None:
        """Write and deliver what is left, for some seconds each."""
        if self.writer is not None:
            await self.writer.close(GRACE)
        await asyncio.gather(*(each.close(GRACE) for each in self._deliveries))

    def cancel(self) -> None:
        """Stop at once; what was put is written as far as that goes while the process lives."""
        for each in self._deliveries:
            each.cancel()
        if self.writer is not None:
            self.writer.stop()

    def forked(self) -> None:
        """Let go of what belongs to the parent process."""
        if self.writer is not None:
            self.writer.abandon()
