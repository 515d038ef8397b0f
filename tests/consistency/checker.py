"""Find what contradicts the promises in a history. Pure, and cheap: one pass in the order of the sessions,
and one over the reads.

What a session must see is the union of what it wrote, what it read, and what the tokens it was opened with
stand for; every later read of the session has to show all of that. A write whose outcome is unknown may be
seen or not; once seen, it stays.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tests.consistency.history import History, Kind, Level, Opening, Operation, Outcome, Past

#: What is known of each item: the numbers that must be seen, each with the operation that says so. The inner
#: mappings are never changed, so that they can be shared.
Knowledge = dict[int, Mapping[int, Operation]]

#: Seconds after a change of the primary in which a process may not have asked its servers who it is: the
#: longest interval of the processes, and as much for a busy machine (docs/consistency.md, "not promised").
_NOTICED = 2.0


class Rule(StrEnum):
    """Name the promises."""

    READ_YOUR_WRITES = "read-your-writes"
    MONOTONIC_READS = "monotonic reads"
    MONOTONIC_WRITES = "monotonic writes"  # and writes that follow reads: causes before their effects
    FRESHNESS = "freshness"  # of strong and bounded reads
    LOST = "lost acknowledged write"
    UNTOLD = "lost write not reported"
    DUPLICATE = "duplicate"
    FOREIGN = "row of another tenant"
    PHANTOM = "row that was never written"  # or whose write was told as failed


@dataclass(frozen=True, slots=True)
class Violation:
    """Name the promise that was broken and the operations that contradict each other."""

    rule: Rule
    words: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        """Return it for a person."""
        return "\n  ".join((f"{self.rule}: {self.words}", *map(str, self.operations)))


@dataclass(slots=True)
class Verdict:
    """Hold what was found: ``lost`` are writes that an unclean failover took, which is no violation.

    ``reported`` counts how often a session was told of one of them that it knew. ``unnoticed`` are strong or
    bounded reads of who was the primary until a moment ago, which is no violation either.
    """

    violations: list[Violation] = field(default_factory=list)
    lost: list[Operation] = field(default_factory=list)
    unnoticed: list[Operation] = field(default_factory=list)
    reported: int = 0
    judged: int = 0  # reads that were promised to see their session's past

    @property
    def counts(self) -> Counter[Rule]:
        """Count the violations of each promise."""
        return Counter(each.rule for each in self.violations)

    def of(self, rule: Rule) -> list[Violation]:
        """Return the violations of one promise."""
        return [each for each in self.violations if each.rule is rule]


def check(history: History) -> Verdict:
    """Return what contradicts the promises in a history.

    Raises ValueError if the history contradicts itself: a session or a past that is not there.
    """
    return _Check(history).run()


class _Check:
    """Hold what is known of the whole history, and collect the verdict."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.verdict = Verdict()
        self.writes: dict[int, Operation] = {}  # by number
        self.acknowledged: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        self.causes: dict[int, Mapping[int, Operation]] = {}  # what the writer of a number had to know
        self.seen: dict[int, Operation] = {}  # the first read that shows a number
        self.sessions: dict[int, list[Operation]] = {each.session: [] for each in history.openings}
        for operation in history.operations:
            if operation.session not in self.sessions:
                raise ValueError(f"nobody opened the session of: {operation}")
            self.sessions[operation.session].append(operation)
        for operation in history.operations:
            self._index(operation)
        for entries in self.acknowledged.values():
            entries.sort()
        self.gone = self._gone()
        self.loss = min((each.began for each in history.failovers if not each.clean), default=float("inf"))
        self.cuts: dict[int, set[int]] = defaultdict(set)
        for opening in history.openings:
            for past in opening.after:
                self.cuts[past.session].add(past.operations)
        self.kept: dict[Past, Knowledge] = {}

    def _index(self, operation: Operation) -> None:
        if operation.kind is not Kind.WRITE:
            for number in operation.numbers:
                self.seen.setdefault(number, operation)
            return
        for number in operation.numbers:
            if number in self.writes:
                raise ValueError(f"number {number} is written twice: {self.writes[number]}; {operation}")
            self.writes[number] = operation
            if operation.outcome is Outcome.OK:
                place = (operation.tenant, operation.item)
                self.acknowledged[place].append((operation.ended, number))

    def _gone(self) -> set[int]:
        """Return the numbers that were acknowledged or seen and are not there in the end."""
        if self.history.final is None:
            return set()
        there = {row.number for row in self.history.final}
        known = {number for number, write in self.writes.items() if write.outcome is Outcome.OK}
        known |= self.seen.keys() & self.writes.keys()
        return known - there

    def run(self) -> Verdict:
        """Go through all sessions, then through all that was seen of causes, and then look at the end."""
        # a token is older than the session that it opens, and so is the session that it is from
        for opening in sorted(self.history.openings, key=lambda each: each.at):
            self._session(opening)
        for operation in self.history.operations:  # a write may be of a session that was opened later
            if operation.kind is Kind.READ and operation.outcome is Outcome.OK:
                self._order(operation, set(operation.numbers))
        self._end()
        return self.verdict

    # --- one session -------------------------------------------------------------------------------------

    def _session(self, opening: Opening) -> None:
        knowledge = self._merged(opening)
        cuts = self.cuts.get(opening.session, set())
        operations = self.sessions[opening.session]
        for count, operation in enumerate(operations):
            if count in cuts:
                self.kept[Past(opening.session, count)] = dict(knowledge)
            if operation.told:
                self._told(operation, knowledge)
            if operation.kind is Kind.WRITE:
                self._write(operation, knowledge)
            elif operation.kind is Kind.READ and operation.outcome is Outcome.OK:
                self._read(operation, knowledge)
        if len(operations) in cuts:
            self.kept[Past(opening.session, len(operations))] = knowledge

    def _merged(self, opening: Opening) -> Knowledge:
        merged: Knowledge = {}
        for past in opening.after:
            kept = self.kept.get(past)
            if kept is None:
                raise ValueError(f"session {opening.session} follows what is not there before it: {past}")
            for item, known in kept.items():
                merged[item] = {**merged[item], **known} if item in merged else known
        return merged

    def _told(self, operation: Operation, knowledge: Knowledge) -> None:
        """Forget what is lost, of all items: the session knows that from now on."""
        for item, known in knowledge.items():
            left = {each: proof for each, proof in known.items() if not self._excused(each, operation)}
            self.verdict.reported += len(known) - len(left)
            knowledge[item] = left

    def _write(self, write: Operation, knowledge: Knowledge) -> None:
        known = knowledge.get(write.item, {})
        if write.outcome is not Outcome.FAILED and known:
            for number in write.numbers:
                self.causes[number] = known
        if write.outcome is Outcome.OK:
            knowledge[write.item] = {**known, **dict.fromkeys(write.numbers, write)}

    def _read(self, read: Operation, knowledge: Knowledge) -> None:
        seen = set(read.numbers)
        self._rows(read, seen)
        known = knowledge.get(read.item, {})
        if read.level is Level.SESSION:
            self.verdict.judged += 1
            self._past(read, seen, known)
        elif read.level is not Level.EVENTUAL:
            self._fresh(read, seen)
        new = seen - known.keys()
        knowledge[read.item] = {**known, **dict.fromkeys(new, read)} if new else known

    # --- one read ----------------------------------------------------------------------------------------

    def _past(self, read: Operation, seen: set[int], known: Mapping[int, Operation]) -> None:
        """Check that all is seen that the session knows."""
        missing = known.keys() - seen
        lost = {number for number in missing if self._excused(number, read)}
        if lost:
            words = f"{_named(lost)} lost in a failover, and the read does not say so"
            self._add(Rule.UNTOLD, words, read, known, lost)
        for rule, kind, words in _PAST:
            broken = {number for number in missing - lost if known[number].kind is kind}
            if broken:
                self._add(rule, f"{_named(broken)} missing: {words}", read, known, broken)

    def _add(
        self, rule: Rule, words: str, read: Operation, known: Mapping[int, Operation], missing: Iterable[int]
    ) -> None:
        evidence = dict.fromkeys(known[number] for number in sorted(missing))
        self.verdict.violations.append(Violation(rule, words, (*evidence, read)))

    def _excused(self, number: int, read: Operation) -> bool:
        """Tell whether a number is gone by an unclean failover, which had begun before the read ended."""
        return number in self.gone and read.ended >= self.loss

    def _order(self, read: Operation, seen: set[int]) -> None:
        """Check that no effect is seen without its causes, whatever level the read has."""
        for number in read.numbers:
            causes = self.causes.get(number)
            if causes is None or causes.keys() <= seen:
                continue
            missing = {cause for cause in causes.keys() - seen if not self._excused(cause, read)}
            if missing:
                words = f"{number} is seen, and not {_named(missing)} before it"
                known = {**causes, number: self.writes[number]}
                self._add(Rule.MONOTONIC_WRITES, words, read, known, {*missing, number})

    def _fresh(self, read: Operation, seen: set[int]) -> None:
        """Check that a strong or bounded read shows what was acknowledged before the moment it promises."""
        entries = self.acknowledged.get((read.tenant, read.item), [])
        due = entries[: bisect_right(entries, (read.began - read.within, -1))]
        missing = {number for _, number in due if number not in seen and not self._excused(number, read)}
        if missing and all(self._written_elsewhere(number, read) for number in missing):
            self.verdict.unnoticed.append(read)
        elif missing:
            words = f"{_named(missing)} missing, acknowledged {read.within:g} s before the read or earlier"
            self._add(Rule.FRESHNESS, words, read, self.writes, missing)

    def _written_elsewhere(self, number: int, read: Operation) -> bool:
        """Tell whether another server took a write, right after who answered the read led, which lives on."""
        write = self.writes[number]
        asked = not (read.replica or read.cached) and write.node != read.node  # as the primary
        return asked and any(
            each.kept and each.began <= write.ended and read.began <= each.ended + _NOTICED
            for each in self.history.failovers
        )

    def _rows(self, read: Operation, seen: set[int]) -> None:
        """Check that the rows are real, the tenant's own, and there once."""
        add = self.verdict.violations.append
        if read.foreign:
            words = f"{read.tenant} got rows of {', '.join(sorted(set(read.foreign)))}"
            add(Violation(Rule.FOREIGN, words, (read,)))
        if len(seen) < len(read.numbers):
            twice = {number for number, count in Counter(read.numbers).items() if count > 1}
            add(Violation(Rule.DUPLICATE, f"{_named(twice)} there more than once", (*self._of(twice), read)))
        for number in seen:
            write = self.writes.get(number)
            words = self._unreal(number, write, read.tenant, read.item)
            if words:
                add(Violation(Rule.PHANTOM, words, (read,) if write is None else (write, read)))

    def _unreal(self, number: int, write: Operation | None, tenant: str, item: int) -> str:
        if write is None:
            return f"nobody wrote {number}"
        if (write.tenant, write.item) != (tenant, item):
            return f"{number} was written for {write.tenant} in item {write.item}"
        return f"the write of {number} was told as failed" if write.outcome is Outcome.FAILED else ""

    def _of(self, numbers: Iterable[int]) -> Iterator[Operation]:
        return (self.writes[number] for number in sorted(numbers) if number in self.writes)

    # --- the end -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self.history.final is None:
            return
        add = self.verdict.violations.append
        for number, count in Counter(row.number for row in self.history.final).items():
            if count > 1:
                words = f"{number} is there {count} times in the end"
                add(Violation(Rule.DUPLICATE, words, tuple(self._of((number,)))))
        for row in self.history.final:
            write = self.writes.get(row.number)
            if row.place != row.tenant:
                add(Violation(Rule.FOREIGN, f"{row.place} ends with a row of {row.tenant}", ()))
            elif words := self._unreal(row.number, write, row.tenant, row.item):
                add(
                    Violation(Rule.PHANTOM, f"{words}, and it is there in the end", (write,) if write else ())
                )
        for number in sorted(self.gone):
            self._is_gone(number)

    def _is_gone(self, number: int) -> None:
        write, reader = self.writes[number], self.seen.get(number)
        unclean = (each for each in self.history.failovers if not each.clean)
        if any(write.began < each.ended for each in unclean):
            self.verdict.lost.append(replace(write, numbers=(number,)))
            return
        proof = (write,) if reader is None else (write, reader)
        said = "acknowledged" if write.outcome is Outcome.OK else "read by somebody"
        self.verdict.violations.append(
            Violation(Rule.LOST, f"{number} was {said} and is not there in the end", proof)
        )


_PAST = (
    (Rule.READ_YOUR_WRITES, Kind.WRITE, "the session, or one whose token it was opened with, wrote it"),
    (Rule.MONOTONIC_READS, Kind.READ, "the session, or one whose token it was opened with, has read it"),
)


def _named(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return ", ".join(map(str, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
