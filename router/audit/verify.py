"""Verify a journal: every record is what it was, where it was, and none is missing. Pure but for reading.

What the records themselves cannot show is that the end is missing: nothing names the last record yet. The
next chain of the lane names it, and so does a head that was kept elsewhere.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from router.audit.chain import START, Head, Record, Seal, read
from router.audit.findings import Finding, Flaw
from router.audit.lanes import lanes, segments


@dataclass(slots=True)
class Report:
    """Hold what verifying has found."""

    records: int = 0
    chains: int = 0
    heads: list[Head] = field(default_factory=list)  # the last record of each lane, or those of a table
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.findings

    def wrong(self, place: str, flaw: Flaw, text: str) -> None:
        """Add what is wrong."""
        self.findings.append(Finding(place, flaw, text))

    def note(self, place: str, text: str) -> None:
        """Add what is worth knowing."""
        self.notes.append(Finding(place, None, text))


def lane_lines(lane: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line of a lane with its place; a line that has no end comes with its ``\\n`` missing."""
    for _, path in segments(lane):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{lane.name}/{path.name}:{number}", line


def verify_folder(
    folder: Path,
    seal: Seal,
    heads: Iterable[Head] = (),
    *,
    step: Callable[[int], None] = lambda size: None,
) -> Report:
    """Verify all lanes of a journal; ``step`` hears of the bytes that were read."""
    report = Report()
    known: set[Head] = set()
    for lane in lanes(folder):
        verify_lane(lane_lines(lane), seal, report, known, set(heads), step)
    for head in heads:
        if head not in known:
            report.wrong(
                str(folder),
                Flaw.TRUNCATED,
                f"record {head.seq} of chain {head.chain}, a given head, is not there",
            )
    return report


def verify_lane(
    lines: Iterable[tuple[str, bytes]],
    seal: Seal,
    report: Report,
    known: set[Head],
    wanted: set[Head],
    step: Callable[[int], None] = lambda size: None,
) -> None:
    """Verify the lines of one lane in order; ``wanted`` heads that are met are added to ``known``."""
    lane = _Lane(seal, report)
    for place, line in lines:
        step(len(line))
        record = lane.take(place, line)
        if record is not None and wanted and record.head in wanted:
            known.add(record.head)
    lane.end()


class _Lane:
    """Follow one lane."""

    def __init__(self, seal: Seal, report: Report) -> None:
        self._seal = seal
        self._report = report
        self._last: Head | None = None
        self._torn: list[str] = []  # places of lines without an end
        self._closed = False
        self._first: tuple[str, Record] | None = None  # where the lane begins
        self._retired: set[Head] = set()
        self._seen = _Seen()

    def take(self, place: str, line: bytes) -> Record | None:
        """Look at the next line; return its record."""
        whole = line.endswith(b"\n")
        record = read(line[:-1]) if whole else None
        if record is None:
            if whole:
                self._report.wrong(place, Flaw.UNREADABLE, "there is no record in this line")
            elif self._closed:
                self._report.wrong(place, Flaw.UNREADABLE, "half of a line comes after the end of the chain")
            else:
                self._torn.append(place)
            return None
        self._report.records += 1
        if not self._seal.fits(record.body, record.hash):
            self._report.wrong(place, Flaw.ALTERED, f"{_name(record)} does not have the hash that it claims")
        self._judge_torn(record)
        self._link(place, record)
        self._seen.add(record.head)
        self._closed = record.facts.get("type") == "closed"
        if record.facts.get("type") == "retired" and (upto := _head_in(record, "upto")) is not None:
            self._retired.add(upto)
        return record

    def _link(self, place: str, record: Record) -> None:
        """Compare a record with the one before."""
        if record.head in self._seen:
            self._report.wrong(place, Flaw.DUPLICATED, f"{_name(record)} was there before already")
            return
        last, facts = self._last, record.facts
        self._last = record.head
        if facts.get("type") == "opened" and facts["seq"] == 0:
            self._report.chains += 1
            if facts.get("seal") != self._seal.name:
                text = (
                    f"these records are sealed by {facts.get('seal')}, and are verified by {self._seal.name}"
                )
                self._report.note(place, text)
            anchor = _head_in(record, "anchor")
            if last is None:
                self._first = (place, record) if anchor is not None else None
            elif anchor != last:
                self._anchored(place, anchor, last)
            return
        if last is None:
            self._first = place, record
        elif record.facts["chain"] != last.chain:
            self._report.wrong(
                place, Flaw.MISSING, f"the beginning of chain {record.facts['chain']} is not there"
            )
        elif record.facts["seq"] == last.seq + 1 and record.facts["prev"] == last.hash:
            return
        else:
            self._unlinked(place, record, last)

    def _anchored(self, place: str, anchor: Head | None, last: Head) -> None:
        if anchor is None:
            text = f"the chain that begins here says that none was before, but {_head(last)} was"
            self._report.wrong(place, Flaw.FORKED, text)
        elif anchor in self._seen:
            text = f"the chain that begins here follows {_head(anchor)}, but others come after it"
            self._report.wrong(place, Flaw.FORKED, text)
        elif anchor.chain == last.chain and anchor.seq > last.seq:
            text = f"at the end of chain {last.chain} {_counted(anchor.seq - last.seq)} not there"
            self._report.wrong(place, Flaw.TRUNCATED, text)
        else:
            text = f"{_head(anchor)}, which the chain that begins here follows, is not there"
            self._report.wrong(place, Flaw.MISSING, text)

    def _unlinked(self, place: str, record: Record, last: Head) -> None:
        seq, expected = record.facts["seq"], last.seq + 1
        if seq > expected:
            text = f"before {_name(record)} {_counted(seq - expected)} not there, from {expected} on"
            self._report.wrong(place, Flaw.MISSING, text)
        elif seq < expected:
            self._report.wrong(place, Flaw.REORDERED, f"{_name(record)} comes after {_head(last)}")
        else:
            text = f"{_name(record)} follows another record than {_head(last)}"
            self._report.wrong(place, Flaw.FORKED, text)

    def _judge_torn(self, record: Record | None) -> None:
        """Judge lines without an end by what follows: a crash leaves one, and so does a disk that fails."""
        for place in self._torn:
            file = place.rpartition("/")[2].partition(":")[0]
            facts = {} if record is None else record.facts
            if record is None or facts.get("type") == "opened":
                self._report.note(place, "half of a record: the process ended while it was written")
            elif facts.get("type") == "torn" and facts.get("file") == file:
                self._report.note(place, "half of a record: the disk did not take the rest")
            else:
                self._report.wrong(place, Flaw.UNREADABLE, "half of a line, and the chain goes on")
        self._torn.clear()

    def end(self) -> None:
        """Judge the beginning and the end of the lane."""
        self._judge_torn(None)
        if self._first is not None:
            place, record = self._first
            self._begins(place, record)
        if self._last is not None:
            self._report.heads.append(self._last)

    def _begins(self, place: str, record: Record) -> None:
        """Judge a lane that does not begin with its first record: it must say that what was before may go."""
        facts = record.facts
        before = _head_in(record, "anchor") or Head(facts["chain"], facts["seq"] - 1, facts["prev"])
        if before in self._retired:
            self._report.note(place, f"what came before was delivered and deleted, up to {_head(before)}")
        elif before.hash == START:
            self._report.wrong(place, Flaw.MISSING, "the first record of the chain is not its first")
        else:
            text = f"{_head(before)} and what came before it is not there, and no record says that it may go"
            self._report.wrong(place, Flaw.MISSING, text)


class _Seen:
    """Know which records were met: eight bytes for each, since there may be many millions."""

    def __init__(self) -> None:
        self._chains: dict[str, tuple[int, array[int]]] = {}
        self._others: set[Head] = set()  # those that did not come in order

    def add(self, head: Head) -> None:
        first, hashes = self._chains.setdefault(head.chain, (head.seq, array("Q")))
        if head.seq == first + len(hashes):
            hashes.append(_short(head))
        else:
            self._others.add(head)

    def __contains__(self, head: Head) -> bool:
        first, hashes = self._chains.get(head.chain, (0, ()))
        at = head.seq - first
        return (0 <= at < len(hashes) and hashes[at] == _short(head)) or head in self._others


def _short(head: Head) -> int:
    return hash(head.hash) & 0xFFFF_FFFF_FFFF_FFFF


def _head_in(record: Record, name: str) -> Head | None:
    """Return the head that a record names; ``None`` if it names none, or what is none."""
    value = record.facts.get(name)
    if isinstance(value, list) and list(map(type, value)) == [str, int, str]:
        return Head(*value)
    return None


def _counted(records: int) -> str:
    return "one record is" if records == 1 else f"{records} records are"


def _name(record: Record) -> str:
    return f"record {record.facts['seq']} of chain {record.facts['chain']}"


def _head(head: Head) -> str:
    return f"record {head.seq} of chain {head.chain}"
