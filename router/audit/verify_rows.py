"""Verify a table: each row is what it was, no batch lacks one, and none that is named is missing. Pure.

The order of rows is not part of what is verified, since it means nothing: a batch names the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from router.audit.chain import START, Head, Record, Seal, read
from router.audit.findings import Flaw
from router.audit.outbox import parents_of
from router.audit.verify import Report


class Stored(NamedTuple):
    """Hold a row as it was read."""

    id: int
    batch: str
    seq: int
    record: str


class Rows:
    """Take the rows of a table one by one; ``heads`` must be there. Memory grows by two numbers a batch."""

    def __init__(self, seal: Seal, report: Report, heads: Iterable[Head] = ()) -> None:
        self._seal = seal
        self._report = report
        self._heads = set(heads)
        self._open: dict[
            str, dict[int, tuple[int, str, str]]
        ] = {}  # batches without all rows: id, prev, hash
        self._lengths: dict[str, int] = {}
        self._ends: dict[str, Head] = {}  # by hash, of whole batches that no other has named yet
        self._named: dict[str, int] = {}  # by hash, of parents that were not met yet: the row that names it
        self._settled: set[int] = set()  # ends that were met and named
        self._whole: set[int] = set()  # names of whole batches

    def take(self, row: Stored) -> None:
        """Look at the next row."""
        place = f"row {row.id}"
        self._report.records += 1
        record = read(row.record.encode(errors="surrogatepass"))
        if record is None:
            self._report.wrong(place, Flaw.UNREADABLE, "there is no record in this row")
            return
        if not self._seal.fits(record.body, record.hash):
            self._report.wrong(place, Flaw.ALTERED, f"{_name(record)} does not have the hash that it claims")
        if (row.batch, row.seq) != (record.head.chain, record.head.seq):
            text = f"the row says that it is {row.seq} of batch {row.batch}, and holds {_name(record)}"
            self._report.wrong(place, Flaw.ALTERED, text)
        self._add(place, row.id, record)

    def _add(self, place: str, number: int, record: Record) -> None:
        batch, seq, digest = record.head
        known = self._open.get(batch, {})
        whole = _short(batch) in self._whole
        if seq in known or whole:
            flaw = Flaw.DUPLICATED if whole or known[seq][2] == digest else Flaw.FORKED
            self._report.wrong(place, flaw, f"there is another row that is {_name(record)}")
            return
        self._open.setdefault(batch, {})[seq] = (number, record.facts["prev"], digest)
        if seq == 0:
            length = record.facts.get("length")
            self._lengths[batch] = length if type(length) is int else 0
            for parent in parents_of(record):
                self._name(parent, number)
        if len(self._open[batch]) == self._lengths.get(batch):
            self._close(batch)

    def _close(self, batch: str) -> None:
        """Compare the rows of a batch with one another."""
        rows = self._open.pop(batch)
        before = START
        for seq in range(self._lengths.pop(batch)):
            if seq not in rows:
                self._report.wrong(
                    f"batch {batch}", Flaw.FORKED, f"its rows are not numbered: {seq} is missing"
                )
                break
            number, prev, digest = rows[seq]
            if prev != before:
                text = f"record {seq} of batch {batch} does not follow the one before it"
                self._report.wrong(f"row {number}", Flaw.FORKED, text)
            before = digest
        self._report.chains += 1
        self._whole.add(_short(batch))
        head = Head(batch, len(rows) - 1, before)
        self._heads.discard(head)
        if self._named.pop(before, None) is None:
            self._ends[before] = head
        else:
            self._settled.add(_short(before))

    def _name(self, parent: str, number: int) -> None:
        """Take note that a row names the end of a batch, which may come later."""
        if self._ends.pop(parent, None) is not None:
            self._settled.add(_short(parent))
        elif _short(parent) not in self._settled:
            self._named.setdefault(parent, number)

    def end(self) -> None:
        """Judge what is not there."""
        for batch, rows in self._open.items():
            length = self._lengths.get(batch)
            text = f"{len(rows)} of {length or 'some'} records of batch {batch} are there"
            self._report.wrong(f"row {min(each[0] for each in rows.values())}", Flaw.MISSING, text)
        for parent, number in self._named.items():
            text = f"the batch that ends with {parent}, which this row names, is not there"
            self._report.wrong(f"row {number}", Flaw.MISSING, text)
        for head in self._heads:
            text = f"batch {head.chain}, a given head, is not there"
            self._report.wrong("the table", Flaw.TRUNCATED, text)
        self._report.heads += self._ends.values()


def verify_rows(rows: Iterable[Stored], seal: Seal, heads: Iterable[Head] = ()) -> Report:
    """Verify rows that are all at hand."""
    report = Report()
    found = Rows(seal, report, heads)
    for row in rows:
        found.take(row)
    found.end()
    return report


def _name(record: Record) -> str:
    return f"record {record.head.seq} of batch {record.head.chain}"


def _short(name: str) -> int:
    """Return a name as a number: eight bytes in place of a hundred, of which there may be many millions."""
    return hash(name)
