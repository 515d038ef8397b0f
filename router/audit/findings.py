"""What is wrong with a record of writes: words for it, and what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Flaw(StrEnum):
    """Say what is wrong at a place."""

    ALTERED = "altered"  # the hash is not that of the record: changed, forged, or sealed with another key
    UNREADABLE = "unreadable"  # the line holds no record
    MISSING = "missing"  # records that others name are not there
    DUPLICATED = "duplicated"  # the same record stands here again
    REORDERED = "reordered"  # the record stands elsewhere than it was written
    FORKED = "forked"  # another record with the same number: one of them was put there
    TRUNCATED = "truncated"  # the end is not there


REMEDIES = {
    Flaw.ALTERED: "Give --key if records are signed, the one of then; else compare with the listener's copy",
    Flaw.UNREADABLE: "Compare it with the listener's copy; a line was changed or inserted",
    Flaw.MISSING: "Fetch them from the listener's copy or a backup, and find out who could delete them",
    Flaw.DUPLICATED: "Remove the copy; if a backup was played back twice, verify each file by itself",
    Flaw.REORDERED: "Put the files back as they were named, or compare with the listener's copy",
    Flaw.FORKED: "Two histories meet here: a file was restored and written on, or a record was forged",
    Flaw.TRUNCATED: "Fetch the end from the listener's copy, and find out who could cut it off",
}


class Finding(NamedTuple):
    """Hold one thing that is wrong, or, without a flaw, one that is worth knowing."""

    place: str  # file:line, or the row
    flaw: Flaw | None
    text: str

    @property
    def remedy(self) -> str:
        """Return what to do about it."""
        return "" if self.flaw is None else REMEDIES[self.flaw]
