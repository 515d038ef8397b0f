"""What becomes of the writes of a transaction, while nobody knows yet: bounded, and undone by savepoints."""

from typing import Any

from router import events
from router.audit.pending import SINGLE, Pending
from router.audit.records import Outcome, Place, outcome_of
from router.audit.trail import Trail
from tests.telling import PRIMARY, failed, finished


def _write(fingerprint: str = "f", at: float = 1.0, **more: Any) -> dict[str, Any]:
    facts = {"type": "write", "at": at, "fingerprint": fingerprint, "actor": "alice", "text": fingerprint}
    return {**facts, "tables": [], "rows": 2, "outcome": "committed", **more}


def _outcomes(pending: Pending, outcome: Outcome = Outcome.COMMITTED) -> list[str]:
    return [each["outcome"] for each in pending.end(outcome)]


def test_the_end_decides_unless_a_write_has_failed_by_itself() -> None:
    """Unknown and rolled back hold for what had succeeded."""
    for outcome in (Outcome.COMMITTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN):
        pending = Pending()
        pending.add(_write())
        pending.add(_write(outcome="failed"))
        assert _outcomes(pending, outcome) == [outcome, "failed"]


def test_savepoints_undo_what_came_after_them() -> None:
    """Nested, used twice, released, and of the same name inside of one another."""
    pending = Pending()
    pending.add(_write("a"))
    pending.save("one")
    pending.add(_write("b"))
    pending.save("one")
    pending.add(_write("c"))
    pending.undo("one")
    pending.add(_write("d"))
    pending.undo("one")
    pending.release("one")
    pending.add(_write("e"))
    pending.undo("one")
    pending.add(_write("f"))
    pending.release("one")
    pending.undo("one")  # there is none any more
    pending.undo("never")
    pending.release("never")
    undone = "rolled_back"
    assert _outcomes(pending) == ["committed", undone, undone, undone, undone, "committed"]


def test_after_a_thousand_equal_writes_are_counted_together() -> None:
    """Their rows add up, and it is said when the last was made."""
    pending = Pending()
    for number in range(SINGLE + 50):
        pending.add(_write("f", float(number)))
    *_, shared = pending.end(Outcome.COMMITTED)
    assert len(pending) == SINGLE + 1
    assert (shared["times"], shared["rows"], shared["until"]) == (50, 100, SINGLE + 49.0)


def test_what_a_savepoint_undoes_is_not_counted_with_the_rest() -> None:
    """A shared record is of one savepoint only."""
    pending = Pending()
    for _ in range(SINGLE + 5):
        pending.add(_write())
    pending.save("s")
    for _ in range(7):
        pending.add(_write())
    pending.undo("s")
    for _ in range(3):
        pending.add(_write())
    found = [(each["outcome"], each["times"]) for each in pending.end(Outcome.COMMITTED) if "times" in each]
    assert found == [("committed", 5), ("rolled_back", 7), ("committed", 3)]


def test_memory_is_bounded_whatever_a_transaction_does() -> None:
    """Ten thousand different statements, each in a savepoint: some two thousand records, all counted."""
    pending = Pending()
    for number in range(10_000):
        pending.save("s")
        pending.add(_write(f"f{number}"))
        pending.release("s")
    found = pending.end(Outcome.COMMITTED)
    assert len(found) <= 2 * SINGLE + 1
    assert sum(each.get("times", 1) for each in found) == 10_000


def _trail(**place: Any) -> tuple[Trail, list[tuple[str, str]]]:
    kept: list[tuple[str, str]] = []
    trail = Trail(
        lambda event: Place("main", "app", None, None, **place),
        lambda records: kept.extend((each["text"], each["outcome"]) for each in records),
        lambda error: None,
        100,
    )
    return trail, kept


def _ended(kind: type[events.TransactionEvent]) -> events.TransactionEvent:
    return kind(1.0, "acme", None, PRIMARY, 0.1, 1, False, 7)


def test_mysql_commits_at_ddl_and_what_follows_commits_by_itself() -> None:
    """A rollback afterwards undoes none of it, so the record does not say so."""
    trail, kept = _trail(ddl_commits=True)
    for kind, text in (("write", "a"), ("ddl", "b"), ("write", "c")):
        trail.on_request(finished(PRIMARY, kind=kind, normalized=text, writes=True, unit=7))
    trail.on_transaction(_ended(events.TransactionRolledBack))
    assert kept == [("a", "committed"), ("b", "committed"), ("c", "committed")]


def test_elsewhere_ddl_is_undone_like_all_else() -> None:
    """PostgreSQL and SQLite."""
    trail, kept = _trail()
    trail.on_request(finished(PRIMARY, kind="ddl", normalized="b", writes=True, unit=7))
    trail.on_transaction(_ended(events.TransactionRolledBack))
    assert kept == [("b", "rolled_back")]


def test_an_unknown_commit_is_unknown() -> None:
    """Nobody says that it was applied, or that it was not."""
    trail, kept = _trail()
    trail.on_request(finished(PRIMARY, normalized="a", writes=True, unit=7))
    trail.on_transaction(_ended(events.CommitUnknown))
    trail.on_transaction(_ended(events.CommitUnknown))  # of a unit that nobody knows
    assert kept == [("a", "unknown")]


def test_a_failed_write_is_failed_only_if_the_server_has_said_so() -> None:
    """No node, an answer: failed. No answer, cancelled: unknown."""
    assert outcome_of(failed(None, error="NoPrimary")) is Outcome.FAILED
    assert outcome_of(failed(error="Deadlock")) is Outcome.FAILED
    assert outcome_of(failed(error="PoolTimeout")) is Outcome.FAILED
    for error in ("CommitOutcomeUnknown", "ConnectionLost", "StatementTimeout", "CancelledError"):
        assert outcome_of(failed(error=error)) is Outcome.UNKNOWN
