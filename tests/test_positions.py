"""Positions: what has reached what, on each engine's terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.positions import LONGEST, Lsn, MariadbGtid, MysqlGtids, Position, parse_position
from tests.servers.mariadb import MariadbCluster
from tests.servers.postgresql import PostgresqlCluster

BLOCK, SEGMENT = 8192, 16 * 1024 * 1024


def test_bytes_of_a_log_are_compared_and_counted() -> None:
    """A later byte has reached an earlier one, and the difference is known."""
    early, later = Lsn(100), Lsn(260)
    assert later.reached(early) and early.reached(early) and not early.reached(later)
    assert (early.behind(later), later.behind(early)) == (160, 0)
    assert str(Lsn(0x16_B374D848)) == "16/B374D848"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5 * BLOCK, 5 * BLOCK),
        (5 * BLOCK + 24, 5 * BLOCK),  # past the header of a page that holds nothing yet
        (SEGMENT + 40, SEGMENT),  # a segment's first page has a longer header
        (SEGMENT + 24, SEGMENT),
        (5 * BLOCK + 40, 5 * BLOCK + 40),  # on any other page that is data
        (5 * BLOCK + 25, 5 * BLOCK + 25),
    ],
)
def test_an_insert_pointer_past_a_page_header_means_the_page_before(value: int, expected: int) -> None:
    """No replica gets into a header before more is written, so waiting for it could last (fault case 14)."""
    assert Lsn.of_insert(value, BLOCK, SEGMENT) == Lsn(expected)


@given(st.integers(0, 1 << 40))
def test_normalising_never_goes_past_what_was_written(value: int) -> None:
    """It moves back by a header at most, and a second time changes nothing."""
    once = Lsn.of_insert(value, BLOCK, SEGMENT)
    assert 0 <= value - once.value <= 40
    assert Lsn.of_insert(once.value, BLOCK, SEGMENT) == once


def test_mariadb_compares_each_domain_for_itself() -> None:
    """Every domain of the other must be there, as far as the other is."""
    here = MariadbGtid.parse("0-1-270,5-2-7")
    assert here.reached(MariadbGtid.parse("0-9-270"))
    assert here.reached(MariadbGtid.parse(""))
    assert not here.reached(MariadbGtid.parse("0-1-271"))
    assert not here.reached(MariadbGtid.parse("0-1-1,6-1-1"))
    assert here.behind(MariadbGtid.parse("0-1-1")) == 0
    assert here.behind(MariadbGtid.parse("0-1-271")) is None


def test_mysql_compares_sets() -> None:
    """Gaps count: what is missing in between was not reached."""
    a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
    here = MysqlGtids.parse(f"{a}:1-5:8-10,\n{b}:1")
    assert here.reached(MysqlGtids.parse(f"{a}:2-4"))
    assert here.reached(MysqlGtids.parse(f"{a}:8:10,{b}:1"))
    assert not here.reached(MysqlGtids.parse(f"{a}:5-8"))
    assert not here.reached(MysqlGtids.parse(f"{b}:1-2"))
    assert not here.reached(MysqlGtids.parse(f"{a}:tag:1"))
    assert MysqlGtids.parse(f"{a}:tag:1-3").reached(MysqlGtids.parse(f"{a}:tag:2"))


A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"


def test_mysql_keeps_the_transactions_of_each_tag_apart() -> None:
    """MySQL 8.3 shows a server's untagged transactions, then those of each tag: they are not mixed."""
    here = MysqlGtids.parse(f"{A}:1-5:7:backup:1-3:jobs:1-2")
    assert here == MysqlGtids({A: ((1, 5), (7, 7)), f"{A}:backup": ((1, 3),), f"{A}:jobs": ((1, 2),)})
    assert here.reached(MysqlGtids.parse(f"{A}:2-4:jobs:2"))
    assert not here.reached(MysqlGtids.parse(f"{A}:backup:4"))
    assert not here.reached(MysqlGtids.parse(f"{A}:1:jobs:3"))


def test_mysql_joins_what_touches() -> None:
    """A server named twice, in capitals, and intervals that touch are one set."""
    here = MysqlGtids.parse(f"{A.upper()}:4-6:1-3,{A}:6-9:11")
    assert here == MysqlGtids({A: ((1, 9), (11, 11))})
    assert here.reached(MysqlGtids.parse(f"{A}:2-8"))


# --- as text, and together -------------------------------------------------------------------------------

SOURCES = [A, B, f"{A}:backup"]
NUMBERS = st.integers(1, 12)  # few, so that positions meet
INTERVALS = st.builds(lambda first, more: f"{first}-{first + more}", NUMBERS, st.integers(0, 3))
SETS = st.dictionaries(st.sampled_from(SOURCES), st.lists(INTERVALS, min_size=1, max_size=4))
LSNS = st.builds(Lsn, st.integers(0, 12) | st.integers(0, (1 << 64) - 1))
GTIDS = st.builds(MariadbGtid, st.dictionaries(st.sampled_from([0, 5, (1 << 32) - 1]), NUMBERS))
MYSQL = st.builds(
    lambda sets: MysqlGtids.parse(",".join(":".join([source, *each]) for source, each in sets.items())), SETS
)


def three(kind: st.SearchStrategy[Position]) -> st.SearchStrategy[tuple[Position, Position, Position]]:
    return st.tuples(kind, kind, kind)


TRIPLES = three(LSNS) | three(GTIDS) | three(MYSQL)


@given(LSNS | GTIDS | MYSQL)
def test_a_position_comes_back_from_its_text(position: Position) -> None:
    """One string is enough to have the same position in another process."""
    again = parse_position(position.tagged)
    assert again == position and again.tagged == position.tagged
    assert position.tagged == f"{position.kind}:{position}"


@given(TRIPLES)
def test_having_reached_is_a_partial_order(triple: tuple[Position, Position, Position]) -> None:
    """Reflexive, antisymmetric and transitive, on every engine."""
    a, b, c = triple
    assert a.reached(a)
    assert (a.reached(b) and b.reached(a)) == (a == b)
    assert not (a.reached(b) and b.reached(c)) or a.reached(c)


@given(TRIPLES)
def test_a_union_is_the_least_position_that_has_both(triple: tuple[Position, Position, Position]) -> None:
    """It has reached both, and whoever has reached both has reached it; it is the same either way round."""
    a, b, c = triple
    both = a.union(b)
    assert both.reached(a) and both.reached(b)
    assert c.reached(both) == (c.reached(a) and c.reached(b))
    assert both == b.union(a) and a.union(a) == a
    assert parse_position(both.tagged) == both


def test_the_text_of_a_position_is_what_its_server_takes() -> None:
    """MASTER_GTID_WAIT and WAIT_FOR_EXECUTED_GTID_SET get it as it is."""
    assert str(MariadbGtid.parse("5-2-7,0-1-270")) == "0-0-270,5-0-7"
    assert str(MysqlGtids.parse(f"{B}:1,\n{A}:1-5:tag:7-7:9")) == f"{A}:1-5,{A}:tag:7:9,{B}:1"
    assert MariadbGtid.parse("").tagged == "mariadb:" and MysqlGtids.parse("").tagged == "mysql:"


def test_mariadb_waits_for_a_position_as_we_write_it(mariadb: MariadbCluster) -> None:
    """The server that wrote is 0 in our text, and a replica waits for the rest: domain and number."""
    replica = mariadb.replicas[0]
    mariadb.run("CREATE TABLE waited (id INT); DROP TABLE waited")
    done = MariadbGtid.parse(mariadb.primary.run("SELECT @@gtid_binlog_pos").strip())
    assert done.last and "-0-" in str(done)
    assert replica.run(f"SELECT MASTER_GTID_WAIT('{done}', 10)").strip() == "0"
    assert MariadbGtid.parse(replica.run("SELECT @@gtid_slave_pos").strip()).reached(done)
    ahead = done.union(MariadbGtid({domain: number + 1000 for domain, number in done.last.items()}))
    assert replica.run(f"SELECT MASTER_GTID_WAIT('{ahead}', 0.05)").strip() == "-1"
    assert replica.run(f"SELECT MASTER_GTID_WAIT('{MariadbGtid({})}', 0)").strip() == "0"


def test_postgresql_takes_a_position_as_we_write_it(postgresql: PostgresqlCluster) -> None:
    """Our text is a pg_lsn, and what a server shows of one is read as the same."""
    for position in (Lsn(0), Lsn(0x16_B374D848), Lsn((1 << 64) - 1)):
        shown = postgresql.run(f"SELECT '{position}'::pg_lsn").strip()
        assert Lsn.checked(shown) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "lsn",
        "lsn:",
        "LSN:0/1",
        "lsn:0/1 ",
        "lsn:0",
        "lsn:0/123456789",
        "lsn:-1/0",
        "lsn:0/1/2",
        "lsn:\u0660/\u0661",
        "oracle:1",
        "mariadb:0-1",
        "mariadb:0-1-2,",
        "mariadb:,",
        "mariadb:0-1-2, 1-1-1",
        "mariadb:0-1-2,0-1-3",
        "mariadb:4294967296-1-1",
        "mariadb:1-4294967296-1",
        "mariadb:1-1-18446744073709551616",
        "mariadb:1-1--1",
        "mariadb:1-1-\u0663",
        f"mysql:{A}",
        f"mysql:{A}:",
        f"mysql:{A}:1,",
        f"mysql:{A}:tag",
        f"mysql:{A}:tag:",
        f"mysql:{A}:a:1:b:1",
        f"mysql:{A}:{'t' * 33}:1",
        f"mysql:{A}:0",
        f"mysql:{A}:3-2",
        f"mysql:{A}:1-9223372036854775808",
        f"mysql:{A}:1-2-3",
        f"mysql:{A[:-1]}:1",
        f"mysql:{A}0:1",
        f"mysql:{A.replace('3', 'x', 1)}:1",
        f"mysql:{A}:1'--",
        "mariadb:" + ",".join(f"{domain}-1-1" for domain in range(LONGEST // 5)),
        "lsn:" + "0" * 10_000_000 + "/0",
    ],
    ids=lambda text: text[:50],
)
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    """Text from outside is taken only if a server could have meant it."""
    with pytest.raises(ValueError):
        parse_position(text)


@given(st.text() | st.builds(str.__add__, st.sampled_from(["lsn:", "mariadb:", "mysql:"]), st.text()))
def test_any_text_is_a_position_or_a_value_error(text: str) -> None:
    """Nothing else comes of parsing."""
    try:
        position = parse_position(text)
    except ValueError:
        return
    assert parse_position(position.tagged) == position
