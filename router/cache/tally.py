"""What became of the reads of one tenant that could have been answered from memory."""

from __future__ import annotations


class Tally:
    """Count in plain numbers; they become metrics when somebody asks."""

    __slots__ = (
        "bypasses", "hits", "joined", "misses", "refused", "remote", "saved", "stored", "unstored", "waited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.hits = 0  # answered from this process's memory
        self.joined = 0  # answered by a read that another request was making
        self.remote = 0  # answered by the tier that processes share
        self.misses = 0  # answered by the database
        self.stored = 0
        self.unstored: dict[str, int] = {}  # answers that could not be kept, by why
        self.bypasses: dict[str, int] = {}  # reads that were never looked up, by why
        self.refused: dict[str, int] = {}  # entries that were there and did not do, by why
        self.saved = 0.0  # seconds of database time
        self.waited = 0.0  # seconds for the tier that processes share

    @property
    def used(self) -> bool:
        """Tell whether anything was counted."""
        return bool(self.hits or self.joined or self.remote or self.misses or self.bypasses)

    def same(self, other: Tally) -> bool:
        """Tell whether both have counted the same."""
        return (
            self.hits == other.hits
            and self.misses == other.misses
            and self.joined == other.joined
            and self.remote == other.remote
            and self.stored == other.stored
            and self.saved == other.saved
            and self.waited == other.waited
            and self.bypasses == other.bypasses
            and self.refused == other.refused
            and self.unstored == other.unstored
        )

    def include(self, other: Tally) -> None:
        """Add what another one has counted."""
        self.hits += other.hits
        self.joined += other.joined
        self.remote += other.remote
        self.misses += other.misses
        self.stored += other.stored
        self.saved += other.saved
        self.waited += other.waited
        for mine, theirs in (
            (self.unstored, other.unstored),
            (self.bypasses, other.bypasses),
            (self.refused, other.refused),
        ):
            if not theirs:
                continue
            for why, count in dict(theirs).items():  # the loop may add to it meanwhile
                mine[why] = mine.get(why, 0) + count

    def since(self, before: Tally) -> Tally:
        """Return what was counted after ``before`` was: an earlier copy."""
        found = Tally()
        found.hits = self.hits - before.hits
        found.joined = self.joined - before.joined
        found.remote = self.remote - before.remote
        found.misses = self.misses - before.misses
        found.stored = self.stored - before.stored
        found.saved = self.saved - before.saved
        found.waited = self.waited - before.waited
        found.unstored = _since(self.unstored, before.unstored)
        found.bypasses = _since(self.bypasses, before.bypasses)
        found.refused = _since(self.refused, before.refused)
        return found

    @property
    def answered(self) -> int:
        """Return how many look-ups the database did not see."""
        return self.hits + self.joined + self.remote

    @property
    def lookups(self) -> int:
        """Return how many reads were looked up."""
        return self.answered + self.misses

    @property
    def ratio(self) -> float | None:
        """Return the share of look-ups that the database did not see; ``None`` before the first."""
        lookups = self.lookups
        return self.answered / lookups if lookups else None

    def results(self) -> dict[str, int]:
        """Return by whom reads were answered; each read is in one of them."""
        return {
            "hit": self.hits,
            "joined": self.joined,
            "remote": self.remote,
            "miss": self.misses,
            "bypass": sum(dict(self.bypasses).values()),
        }


def add(tally: dict[str, int], why: str) -> None:
    """Count one more."""
    tally[why] = tally.get(why, 0) + 1


def _since(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """Return what came after ``before``; the loop may add to ``after`` meanwhile."""
    return {why: count - before.get(why, 0) for why, count in after.copy().items()} if after else {}
