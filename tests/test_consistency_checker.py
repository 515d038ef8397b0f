"""The checker of histories: by hand, one history that keeps each promise and one that breaks it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.consistency.__main__ import main
from tests.consistency.checker import Rule, Verdict, check
from tests.consistency.history import (
    Failover,
    History,
    Kind,
    Level,
    Opening,
    Operation,
    Outcome,
    Past,
    Row,
)


class Story:
    """Tell a history step by step; each step takes a second."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.tenants: dict[int, str] = {}

    def opens(self, session: int, *after: Past, tenant: str = "acme") -> "Story":
        self.now += 1
        self.tenants[session] = tenant
        self.history.openings.append(Opening(session, 0, 0, tenant, self.now, after))
        return self

    def writes(self, session: int, *numbers: int, item: int = 1, **given: Any) -> "Story":
        return self._does(session, Kind.WRITE, numbers, item, given)

    def reads(self, session: int, *numbers: int, item: int = 1, **given: Any) -> "Story":
        return self._does(session, Kind.READ, numbers, item, given)

    def _does(
        self, session: int, kind: Kind, numbers: tuple[int, ...], item: int, given: dict[str, Any]
    ) -> "Story":
        self.now += 1
        times = {"began": self.now, "ended": self.now + 0.5}
        self.history.operations.append(
            Operation(session, 0, self.tenants[session], kind, item, numbers, **(times | given))
        )
        return self

    def fails_over(self, *, clean: bool, kept: bool = False) -> "Story":
        self.now += 1
        self.history.failovers.append(Failover(self.now, self.now + 0.5, clean, kept))
        return self

    def ends(self, *numbers: int, item: int = 1, tenant: str = "acme", place: str = "acme") -> "Story":
        final = self.history.final or []
        self.history.final = [*final, *(Row(place, tenant, item, number) for number in numbers)]
        return self

    def verdict(self) -> Verdict:
        return check(self.history)


def rules(story: Story) -> list[Rule]:
    """Return the promises that the checker finds broken."""
    return [violation.rule for violation in story.verdict().violations]


def one() -> Story:
    """Begin with one session of acme's."""
    return Story().opens(1)


# --- what a session knows --------------------------------------------------------------------------------


def test_a_session_sees_what_it_wrote() -> None:
    """A read that shows the session's writes, and others' beside them, is right."""
    assert rules(one().opens(2).writes(1, 10).writes(2, 20).reads(1, 10, 20).reads(1, 20, 10)) == []


def test_a_session_that_does_not_see_its_write() -> None:
    """The violation names the write and the read that contradict each other, for a person to read."""
    story = one().writes(1, 10).reads(1)
    (violation,) = story.verdict().violations
    assert violation.rule is Rule.READ_YOUR_WRITES
    assert violation.operations == tuple(story.history.operations)
    assert "wrote 10 in item 1" in str(violation) and "read nothing in item 1" in str(violation)


def test_another_session_need_not_see_a_write() -> None:
    """Without a token nobody is promised what others wrote."""
    assert rules(one().opens(2).writes(1, 10).reads(2)) == []


def test_items_are_apart() -> None:
    """A write of one item says nothing about another."""
    assert rules(one().writes(1, 10, item=1).reads(1, item=2)) == []


def test_a_token_brings_what_its_session_wrote() -> None:
    """A session that was opened with a token must see the writes before it, also over several sessions."""
    story = one().writes(1, 10).opens(2, Past(1, 1)).opens(3, Past(2, 0))
    assert rules(story.reads(3, 10)) == []
    assert rules(story.reads(3)) == [Rule.READ_YOUR_WRITES]


def test_a_token_does_not_bring_what_came_after_it() -> None:
    """What the first session wrote after it gave the token away is nobody else's past."""
    story = one().writes(1, 10).writes(1, 11).opens(2, Past(1, 1))
    assert rules(story.reads(2, 10)) == []


def test_tokens_are_merged() -> None:
    """A session with several tokens must see the past of each."""
    story = one().opens(2).writes(1, 10).writes(2, 20).opens(3, Past(1, 1), Past(2, 1))
    assert rules(story.reads(3, 20, 10)) == []
    assert rules(story.reads(3, 20)) == [Rule.READ_YOUR_WRITES]


def test_what_was_read_stays() -> None:
    """A session that has seen a write of another's never reads an older state again."""
    story = one().opens(2).writes(1, 10).reads(2, 10)
    assert rules(story.reads(2, 10)) == []
    assert rules(story.reads(2)) == [Rule.MONOTONIC_READS]


def test_what_was_read_is_carried_by_a_token() -> None:
    """A token stands for what its session has read, not only for what it wrote."""
    story = one().opens(2).writes(1, 10).reads(2, 10).opens(3, Past(2, 1))
    assert rules(story.reads(3)) == [Rule.MONOTONIC_READS]


def test_an_eventual_read_may_be_old() -> None:
    """Only reads that were promised more are judged; but what it saw must be seen from then on."""
    story = one().opens(2).writes(1, 10).reads(1, level=Level.EVENTUAL)
    assert rules(story) == []
    assert rules(story.reads(2, 10, level=Level.EVENTUAL).reads(2)) == [Rule.MONOTONIC_READS]


def test_a_read_that_failed_shows_nothing() -> None:
    """It is no proof that something was missing."""
    assert rules(one().writes(1, 10).reads(1, outcome=Outcome.FAILED)) == []


# --- outcomes --------------------------------------------------------------------------------------------


def test_an_unknown_write_may_be_seen_or_not() -> None:
    """Its outcome is open until somebody has seen it; then it stays."""
    story = one().writes(1, 10, outcome=Outcome.UNKNOWN).reads(1)
    assert rules(story.reads(1, 10)) == []
    assert rules(story.reads(1)) == [Rule.MONOTONIC_READS]
    assert rules(one().writes(1, 10, outcome=Outcome.UNKNOWN).ends()) == []


def test_a_write_that_was_told_as_failed() -> None:
    """It must not be seen, neither meanwhile nor in the end."""
    story = one().writes(1, 10, outcome=Outcome.FAILED).reads(1)
    assert rules(story) == []
    assert rules(story.ends(10)) == [Rule.PHANTOM]
    assert rules(one().writes(1, 10, outcome=Outcome.FAILED).reads(1, 10)) == [Rule.PHANTOM]


def test_a_row_that_nobody_wrote() -> None:
    """Rows are what somebody wrote, where it was written."""
    assert rules(one().reads(1, 10)) == [Rule.PHANTOM]
    assert rules(one().writes(1, 10, item=2).reads(1, 10, item=1)) == [Rule.PHANTOM]
    assert rules(one().ends(10)) == [Rule.PHANTOM]


# --- order -----------------------------------------------------------------------------------------------


def test_writes_become_visible_in_their_order() -> None:
    """Whoever sees a write sees what its writer had written before, also on an eventual read."""
    story = one().opens(2).writes(1, 10).writes(1, 11)
    assert rules(story.reads(2, 10)) == []
    assert rules(story.reads(2, 11, level=Level.EVENTUAL)) == [Rule.MONOTONIC_WRITES]


def test_writes_follow_their_writers_tokens_and_reads() -> None:
    """The order holds over tokens, and for what the writer had only read."""
    story = one().writes(1, 10).opens(2, Past(1, 1)).writes(2, 20).opens(3)
    assert rules(story.reads(3, 20, level=Level.EVENTUAL)) == [Rule.MONOTONIC_WRITES]
    story = one().opens(2).writes(1, 10).reads(2, 10).writes(2, 20).opens(3)
    assert rules(story.reads(3, 20, level=Level.EVENTUAL)) == [Rule.MONOTONIC_WRITES]


def test_it_does_not_matter_whose_session_was_opened_first() -> None:
    """A reader who came before the writer sees the causes of what is written later as well."""
    story = one().opens(2)
    story.writes(1, 10).writes(1, 11).opens(4, Past(1, 2)).writes(4, 12)
    assert rules(story.reads(2, 10, 12, level=Level.EVENTUAL)) == [Rule.MONOTONIC_WRITES]


# --- freshness -------------------------------------------------------------------------------------------


def test_a_strong_read_sees_all_that_was_acknowledged() -> None:
    """Also of sessions that it knows nothing of; not what is still under way."""
    story = one().opens(2).writes(1, 10)
    assert rules(story.reads(2, 10, level=Level.STRONG)) == []
    assert rules(story.reads(2, level=Level.STRONG)) == [Rule.FRESHNESS]
    assert rules(one().opens(2).writes(1, 10, ended=99.0).reads(2, level=Level.STRONG)) == []


def _moved(*, kept: bool, **given: Any) -> list[Rule]:
    """Return what is wrong with a strong read after the new primary, b, has acknowledged a write."""
    story = one().opens(2).fails_over(clean=True, kept=kept)  # ends half a second later
    given["began"] = story.now + given.get("began", 2.4)
    story.writes(1, 10, ended=story.now + 1.0, node="b")
    return rules(story.reads(2, **{"level": Level.STRONG, "node": "a", **given}))


def test_a_strong_read_may_go_to_who_was_the_primary_until_that_is_noticed() -> None:
    """Where that one keeps its connections, for as long as its process has not asked; nothing else."""
    assert _moved(kept=True) == []
    assert _moved(kept=True, began=2.6) == [Rule.FRESHNESS]
    assert _moved(kept=False) == [Rule.FRESHNESS]
    assert _moved(kept=True, node="b") == [Rule.FRESHNESS]
    assert _moved(kept=True, replica=True, level=Level.BOUNDED) == [Rule.FRESHNESS]
    before = one().opens(2).writes(1, 10, node="b").fails_over(clean=True, kept=True)
    assert rules(before.reads(2, level=Level.STRONG, node="a")) == [Rule.FRESHNESS]


def test_a_bounded_read_sees_what_is_old_enough() -> None:
    """It may miss what was acknowledged within its bound."""
    story = one().opens(2).writes(1, 10, ended=4.0)
    assert rules(story.reads(2, level=Level.BOUNDED, within=1.0, began=4.9)) == []
    assert rules(story.reads(2, level=Level.BOUNDED, within=1.0, began=5.1)) == [Rule.FRESHNESS]


# --- rows ------------------------------------------------------------------------------------------------


def test_duplicates() -> None:
    """A number is written once: two rows of it are a write that was done twice."""
    assert rules(one().writes(1, 10).reads(1, 10, 10)) == [Rule.DUPLICATE]
    assert rules(one().writes(1, 10).ends(10, 10)) == [Rule.DUPLICATE]


def test_rows_of_other_tenants() -> None:
    """A row says whose it is; in another's answer, or another's table, it is a leak."""
    assert rules(one().reads(1, foreign=("globex",))) == [Rule.FOREIGN]
    story = Story().opens(1, tenant="globex").writes(1, 10)
    assert rules(story.ends(10, tenant="globex", place="globex")) == []
    story.history.final = None
    assert rules(story.ends(10, tenant="globex", place="acme")) == [Rule.FOREIGN]


def test_a_row_that_moved_to_another_tenant() -> None:
    """A tenant that reads a number written for another has its row, whatever the row says."""
    story = one().opens(2, tenant="globex").writes(2, 10)
    assert rules(story.reads(1, 10)) == [Rule.PHANTOM]


# --- the end ---------------------------------------------------------------------------------------------


def test_acknowledged_writes_are_there_in_the_end() -> None:
    """An acknowledged write that is gone is lost, also after a clean failover."""
    assert rules(one().writes(1, 10).ends(10)) == []
    assert rules(one().writes(1, 10).ends()) == [Rule.LOST]
    assert rules(one().writes(1, 10).fails_over(clean=True).ends()) == [Rule.LOST]


def test_what_somebody_has_seen_is_there_in_the_end() -> None:
    """Also if its writer does not know whether it was applied."""
    assert rules(one().writes(1, 10, outcome=Outcome.UNKNOWN).reads(1, 10).ends()) == [Rule.LOST]


def test_an_unclean_failover_may_lose_writes_of_before() -> None:
    """They are counted, and no violation; a write of after it that is gone is one."""
    verdict = one().writes(1, 10).fails_over(clean=False).ends().verdict()
    assert (verdict.violations, [each.numbers for each in verdict.lost]) == ([], [(10,)])
    assert rules(one().fails_over(clean=False).writes(1, 10).ends()) == [Rule.LOST]


def test_a_lost_write_is_reported_to_those_who_know_it() -> None:
    """A session that reads on without its lost write must be told; once told, it need not see it."""
    story = one().writes(1, 10).fails_over(clean=False)
    assert rules(story.reads(1).ends()) == [Rule.UNTOLD]
    story = one().writes(1, 10).fails_over(clean=False).reads(1, told=True).reads(1).ends()
    verdict = story.verdict()
    assert (verdict.violations, verdict.reported) == ([], 1)


def test_a_session_may_be_told_when_it_takes_a_token() -> None:
    """Who follows that token knows as much."""
    story = one().writes(1, 10).fails_over(clean=False)
    story._does(1, Kind.TOKEN, (), 0, {"told": True})
    assert rules(story.opens(2, Past(1, 2)).reads(2).ends()) == []


def test_a_failover_excuses_nothing_that_came_before_it() -> None:
    """A stale read is none the better for a failover that followed."""
    assert rules(one().writes(1, 10).reads(1).fails_over(clean=False).ends()) == [Rule.READ_YOUR_WRITES]
    assert rules(one().writes(1, 10).fails_over(clean=False).reads(1).ends(10)) == [Rule.READ_YOUR_WRITES]


# --- the history itself ----------------------------------------------------------------------------------


def test_a_history_that_contradicts_itself_is_refused() -> None:
    """A checker that guessed would find what is not there, or miss what is."""
    story = one()
    with pytest.raises(ValueError, match="nobody opened"):
        check(replace_session(story.writes(1, 10).history, 7))
    with pytest.raises(ValueError, match="written twice"):
        one().writes(1, 10).writes(1, 10).verdict()
    with pytest.raises(ValueError, match="follows what is not there"):
        one().opens(2, Past(1, 3)).verdict()


def replace_session(history: History, session: int) -> History:
    """Return a history whose operations claim to be of another session."""
    return replace(history, operations=[replace(each, session=session) for each in history.operations])


def test_a_history_is_the_same_once_it_was_saved(tmp_path: Path) -> None:
    """What a failing run leaves behind can be checked again."""
    story = one().writes(1, 10).opens(2, Past(1, 1)).reads(2, foreign=("globex",), outcome=Outcome.OK)
    story.fails_over(clean=False).ends(10).history.notes["seed"] = 7
    story.history.save(tmp_path / "history")
    assert History.load(tmp_path / "history") == story.history


def test_the_command_judges_a_history_that_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says in words what contradicts what, and by its exit code whether anything does."""
    one().writes(1, 10).reads(1).history.save(tmp_path / "bad")
    assert main(["--history", str(tmp_path / "bad")]) == 1
    said = capsys.readouterr().out
    assert "read-your-writes: 10 missing" in said and said.endswith("violations: 1\n")
    one().writes(1, 10).reads(1, 10).history.save(tmp_path / "good")
    assert main(["--history", str(tmp_path / "good")]) == 0
