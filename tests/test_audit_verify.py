"""Nobody changes a journal unseen: whatever is done to its lines, verifying says so, and where."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.audit.chain import Chain, Head, Seal, read
from router.audit.findings import REMEDIES, Flaw
from router.audit.lanes import lanes, segment, segments
from tests.auditing import SEAL, lines, records, verified, written


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Name a journal of two chains in one lane and one file each."""
    written(tmp_path / "journal")
    return tmp_path / "journal"


def _flaws(folder: Path, **more: object) -> set[Flaw]:
    return {each.flaw for each in verified(folder, **more).findings if each.flaw}  # type: ignore[arg-type]


def _change(path: Path, change: object) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))  # type: ignore[operator]


def test_what_was_written_verifies(journal: Path) -> None:
    """A journal that nobody has touched is whole: two chains of seven records, the second names the first."""
    report = verified(journal)
    assert report.ok
    assert report.notes == []
    assert (report.records, report.chains) == (14, 2)
    assert report.heads == [records(journal)[-1].head]


def test_an_empty_folder_is_whole_and_says_nothing(tmp_path: Path) -> None:
    """No lane, no record, no finding."""
    assert verified(tmp_path).ok
    assert verified(tmp_path).records == 0


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda found: [*found[:2], *found[3:]], Flaw.MISSING),
        (lambda found: [*found[:3], *found[2:]], Flaw.DUPLICATED),
        (lambda found: [*found[:2], found[3], found[2], *found[4:]], Flaw.REORDERED),
        (lambda found: [*found[:2], found[2].replace(b"plans", b"users"), *found[3:]], Flaw.ALTERED),
        (lambda found: [*found[:2], b"{}\n", *found[2:]], Flaw.UNREADABLE),
        (lambda found: found[:-2], Flaw.TRUNCATED),
        (lambda found: found[1:], Flaw.MISSING),
    ],
    ids=["missing", "duplicated", "reordered", "altered", "unreadable", "truncated", "beheaded"],
)
def test_each_kind_of_change_has_its_name(journal: Path, change: object, flaw: Flaw) -> None:
    """A line that is gone, doubled, moved, changed, put in, and an end or a beginning that was cut off."""
    (lane,) = lanes(journal)
    _change(segment(lane, 1), change)
    report = verified(journal)
    assert flaw in {each.flaw for each in report.findings}
    assert all(each.remedy for each in report.findings)
    assert all("0000000001.jsonl" in each.place or flaw is Flaw.TRUNCATED for each in report.findings[:1])


def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    """The first of three, one in the middle, and, by the next chain's word, the last of a chain."""
    written(tmp_path / "whole", (10, 3), largest=1000)
    (lane,) = lanes(tmp_path / "whole")
    for number, _ in segments(lane)[:-1]:
        shutil.copytree(tmp_path / "whole", tmp_path / f"without-{number}")
        segment(lanes(tmp_path / f"without-{number}")[0], number).unlink()
        assert not verified(tmp_path / f"without-{number}").ok, number


def test_the_last_end_that_was_cut_off_shows_by_a_head_that_was_kept(journal: Path) -> None:
    """Nothing in the files names the last record; who has kept its name elsewhere sees that it is gone."""
    head = records(journal)[-1].head
    (lane,) = lanes(journal)
    _change(segment(lane, 2), lambda found: found[:-1])
    assert verified(journal).ok
    report = verified(journal, heads=[head])
    assert [each.flaw for each in report.findings] == [Flaw.TRUNCATED]
    assert verified(journal, heads=[records(journal)[-1].head]).ok


def test_a_forged_record_needs_the_key(journal: Path) -> None:
    """Who does not have the key cannot write on: neither in the chain nor in a chain of his own."""
    last = records(journal)[-1]
    (lane,) = lanes(journal)
    for chain in (
        Chain(Seal(b"another key than that"), last.head.chain, last.head.seq + 1, last.hash),
        Chain(Seal(), last.head.chain, last.head.seq + 1, last.hash),
    ):
        kept = segment(lane, 2).read_bytes()
        segment(lane, 2).write_bytes(kept + chain.line({"type": "write", "at": 2.0}) + b"\n")
        assert _flaws(journal) == {Flaw.ALTERED}
        segment(lane, 2).write_bytes(kept)


def test_a_wrong_key_is_said_to_be_one(journal: Path) -> None:
    """Verifying signed records without the key finds all of them altered, and says why that may be."""
    report = verified(journal, Seal())
    assert {each.flaw for each in report.findings} == {Flaw.ALTERED}
    assert "hmac-sha256" in report.notes[0].text


def test_half_a_record_at_the_end_is_a_crash_and_no_crime(tmp_path: Path) -> None:
    """A process that dies in the middle of a line leaves half of it; the next follows the last whole."""
    folder = tmp_path / "journal"
    written(folder, (3,), closed=False)
    (lane,) = lanes(folder)
    with segment(lane, 1).open("ab") as file:
        file.write(b'{"actor":"al')
    assert [each.flaw for each in verified(folder).notes] == [None]
    written(folder, (3,))
    report = verified(folder)
    assert report.ok
    assert len(report.notes) == 1


def test_half_a_line_where_nothing_crashed_is_found(journal: Path) -> None:
    """After a chain that was closed in order nobody can have been interrupted."""
    (lane,) = lanes(journal)
    with segment(lane, 1).open("ab") as file:
        file.write(b'{"actor":"al')
    assert _flaws(journal) == {Flaw.UNREADABLE}


def test_two_histories_from_one_end_show(tmp_path: Path) -> None:
    """A backup that was restored and written on forks: two chains name the same record as the one before."""
    folder = tmp_path / "journal"
    written(folder, (3,))
    shutil.copytree(folder, tmp_path / "backup")
    written(folder, (3,))
    written(tmp_path / "backup", (4,))
    (lane,), (other,) = lanes(folder), lanes(tmp_path / "backup")
    shutil.copy(segment(other, 2), segment(lane, 3))
    assert _flaws(folder) == {Flaw.FORKED}


def test_every_flaw_has_a_remedy() -> None:
    """Whoever is told of a flaw is told what to do."""
    assert set(REMEDIES) == set(Flaw)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_changed_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, lines removed, doubled, moved or taken from elsewhere: with a kept head all is found."""
    folder = tmp_path_factory.mktemp("chain") / "journal"
    written(folder, (4, 3), largest=900)
    head = records(folder)[-1].head
    before = lines(folder)
    (lane,) = lanes(folder)
    files = [path for _, path in segments(lane)]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(files))
        found = path.read_bytes().splitlines(keepends=True)
        if not found:
            continue
        at = data.draw(st.integers(0, len(found) - 1))
        match data.draw(st.sampled_from(["flip", "drop", "double", "swap", "cut", "insert", "foreign"])):
            case "flip":
                line = bytearray(found[at])
                place = data.draw(st.integers(0, len(line) - 1))
                line[place] ^= data.draw(st.integers(1, 255))
                found[at] = bytes(line)
            case "drop":
                del found[at]
            case "double":
                found.insert(data.draw(st.integers(0, len(found))), found[at])
            case "swap":
                other = data.draw(st.integers(0, len(found) - 1))
                found[at], found[other] = found[other], found[at]
            case "cut":
                found = found[: at + 1]
                found[at] = found[at][: data.draw(st.integers(0, len(found[at]) - 1))]
            case "insert":
                found.insert(at, data.draw(st.binary(max_size=20)) + b"\n")
            case "foreign":
                found.insert(at, data.draw(st.sampled_from(before)))
        path.write_bytes(b"".join(found))
    if lines(folder) == before:
        return  # changed and changed back
    assert not verified(folder, heads=[head]).ok


def test_a_head_is_a_line_of_text() -> None:
    """What is kept elsewhere can be read again; what is none is refused."""
    head = Head("lane", 3, "a" * 64)
    assert Head.parsed(f" {head}\n") == head
    for wrong in ("", "a:b", "a:1:short", f"a:x:{'a' * 64}", f":1:{'a' * 64}"):
        with pytest.raises(ValueError):
            Head.parsed(wrong)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"a":1}',
        b'{"v":1,"hash":"' + b"0" * 64 + b'"}',
        b"\xff" * 200,
        b'[],"hash":"' + b"0" * 64,
    ],
)
def test_what_is_no_record_is_read_as_none(line: bytes) -> None:
    """Reading never raises."""
    assert read(line) is None


def test_the_order_of_what_is_hashed_does_not_depend_on_who_says_it() -> None:
    """Equal facts give equal bytes, whatever order they come in."""
    one, two = Chain(SEAL, "c"), Chain(SEAL, "c")
    assert one.line({"a": 1, "b": [2]}) == two.line({"b": [2], "a": 1})
