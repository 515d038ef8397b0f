"""A row beside each write, in the same transaction: there if the write is, and gone if it is not."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from router import Router, acting
from router.audit.chain import Seal
from router.audit.findings import Flaw
from router.audit.outbox import Outbox, ddl, everything, heads_of
from router.audit.verify import Report
from router.audit.verify_rows import Stored, verify_rows
from router.enclosing import enclose
from router.errors import AuditUnavailable, InvalidStatement, UniqueViolation, UsageError
from router.events import CommitResolved
from router.statements import Dialect
from router.units import Unit
from tests.auditing import KEY, SEAL, trail, writes
from tests.engines import Engine, Postgresql, Recorder, only
from tests.faults import Break, Cut, Direction
from tests.faults.cluster import Proxied
from tests.test_audit_crash import killed

OUTBOX = {"observability": {"audit": {"key": KEY, "outbox": {}}}}


@pytest.fixture(scope="module")
def created(engine: Engine) -> Engine:
    """Create the audit's table in acme's place as its DDL says, and the triggers that it has on SQLite."""

    async def create() -> None:
        async with engine.open() as router:
            for statement in re.split(r";\n(?=CREATE|--)", ddl("router_audit", Dialect(engine.dialect))):
                if not statement.startswith("--"):
                    await router.execute_raw(statement, tenant="acme")

    asyncio.run(create())
    return engine


async def stored(router: Router) -> list[Stored]:
    """Return all rows."""
    rows = await router.fetch_all(everything("router_audit"), tenant="acme", primary=True)
    return [Stored(*row) for row in rows]


def verified(rows: list[Stored], **more: Any) -> Report:
    """Verify rows."""
    return verify_rows(rows, SEAL, **more)


def facts(rows: list[Stored]) -> list[dict[str, Any]]:
    """Return what rows say."""
    from router.audit.chain import read

    found = [read(row.record.encode()) for row in rows]
    return [each.facts for each in found if each is not None]


@pytest.fixture
async def audited(engine: Engine, created: Engine) -> AsyncIterator[Router]:
    """Open a router with an outbox and an empty table of it."""
    async with engine.open() as plain:
        if engine.dialect == "sqlite":
            await plain.execute("DROP TRIGGER IF EXISTS router_audit_remains", tenant="acme")
        await plain.execute("DELETE FROM router_audit", tenant="acme")
    async with engine.open(**OUTBOX) as router:
        yield router


@pytest.fixture
async def table(engine: Engine) -> str:
    """Create a table of acme's, unrecorded."""
    name = engine.name()
    async with engine.open() as plain:
        await plain.execute(f"CREATE TABLE {name} (id {engine.key}, name VARCHAR(40) UNIQUE)", tenant="acme")
    return name


async def test_each_way_to_write_has_its_row(audited: Router, table: str) -> None:
    """By itself, many at once, in a transaction, run(), the ORM: what is committed is said, by whom."""
    insert = f"INSERT INTO {table} (name) VALUES (:name)"
    session = audited.session("acme")
    with acting(actor="alice"):
        await session.execute(insert, {"name": "a"})
        await session.execute_many(insert, [{"name": "b"}, {"name": "c"}])
        async with session.transaction() as tx:
            await tx.execute(insert, {"name": "d"})
            await tx.execute(f"UPDATE {table} SET name = 'e' WHERE name = 'd'")
            await tx.fetch_all(f"SELECT * FROM {table}")
        await session.run(lambda tx: tx.execute(insert, {"name": "f"}))
        async with session.orm() as orm:
            await orm.execute(text(insert), {"name": "g"})
            await orm.commit()
            await orm.execute(text(insert), {"name": "h"})
    rows = await stored(audited)
    said = facts(rows)
    assert [each["length"] for each in said if "length" in each] == [1, 1, 2, 1, 1, 1]
    assert {each["actor"] for each in said} == {"alice"}
    assert {each["outcome"] for each in said} == {"committed"}
    assert [each["text"][:6] for each in said] == ["insert"] * 3 + ["update"] + ["insert"] * 3
    report = verified(rows)
    assert report.ok, report.findings
    assert len(report.heads) == 1


async def test_what_is_rolled_back_leaves_no_row(audited: Router, table: str) -> None:
    """The row is undone with the write, by whatever undoes it; the chain of those that stay is whole."""
    session, insert = audited.session("acme"), f"INSERT INTO {table} (name) VALUES ('a')"
    await session.execute(insert)
    with pytest.raises(UniqueViolation):
        await session.execute(insert)
    with pytest.raises(ValueError):
        async with session.transaction() as tx:
            await tx.execute(f"DELETE FROM {table}")
            raise ValueError
    with pytest.raises(ValueError):
        async with session.orm() as orm:
            await orm.execute(text(f"DELETE FROM {table}"))
            raise ValueError
    await session.execute(f"UPDATE {table} SET name = 'b'")
    rows = await stored(audited)
    assert [each["text"][:6] for each in facts(rows)] == ["insert", "update"]
    assert verified(rows).ok


async def test_what_a_savepoint_has_undone_is_said_so(audited: Router, table: str) -> None:
    """The transaction is committed, and its row says that this part of it is not."""
    async with audited.session("acme").transaction() as tx:
        await tx.execute(f"INSERT INTO {table} (name) VALUES ('a')")
        with pytest.raises(ValueError):
            async with tx.savepoint():
                await tx.execute(f"DELETE FROM {table}")
                raise ValueError
    assert [each["outcome"] for each in facts(await stored(audited))] == ["committed", "rolled_back"]


async def test_reads_have_no_rows_and_no_transactions(audited: Router, table: str) -> None:
    """Only writes pay."""
    session = audited.session("acme")
    await session.fetch_all(f"SELECT * FROM {table}")
    async with session.transaction() as tx:
        await tx.fetch_all(f"SELECT * FROM {table}")
    async with session.transaction(readonly=True) as tx:
        await tx.fetch_all(f"SELECT * FROM {table}")
    assert await stored(audited) == []


async def test_many_at_once_make_a_sound_chain(audited: Router, table: str) -> None:
    """Commits end in any order, some not at all: every committed batch is named by another, or is a head."""

    async def write(number: int) -> None:
        session = audited.session("acme")
        for turn in range(6):
            with pytest.raises(ValueError) if turn % 3 == 2 else _nothing():
                async with session.transaction() as tx:
                    await tx.execute(f"INSERT INTO {table} (name) VALUES ('{number}-{turn}')")
                    if turn % 3 == 2:
                        raise ValueError

    await asyncio.gather(*map(write, range(8)))
    rows = await stored(audited)
    assert len(rows) == 32
    report = verified(rows)
    assert report.ok, report.findings
    for gone in rows:
        left = [row for row in rows if row is not gone]
        assert not verified(left, heads=report.heads).ok, "a row was taken out, and nobody noticed"


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


async def test_the_next_process_names_the_last_rows(engine: Engine, audited: Router, table: str) -> None:
    """A fresh router looks once where the table ends, so what the one before has left cannot be taken out."""
    insert = f"INSERT INTO {table} (name) VALUES (:name)"
    await audited.execute(insert, {"name": "a"}, tenant="acme")
    before = await stored(audited)
    async with engine.open(**OUTBOX) as second:
        await second.execute(insert, {"name": "b"}, tenant="acme")
        rows = await stored(second)
    assert facts(rows)[-1]["parents"] == [facts_hash(before[-1])]
    assert verified(rows).ok
    assert [each.flaw for each in verified(rows[1:]).findings] == [Flaw.MISSING]


def facts_hash(row: Stored) -> str:
    """Return the hash of a row."""
    return row.record[-66:-2]


async def test_without_the_table_nothing_is_written(engine: Engine, table: str) -> None:
    """A write that cannot have its row is refused as a whole, and the error says what to do."""
    outbox = {"observability": {"audit": {"key": KEY, "outbox": {"table": "nowhere"}}}}
    async with engine.open(**outbox) as router:
        for write in (
            router.execute(f"INSERT INTO {table} (name) VALUES ('a')", tenant="acme"),
            router.session("acme").run(lambda tx: tx.execute(f"INSERT INTO {table} (name) VALUES ('b')")),
        ):
            with pytest.raises(AuditUnavailable, match="router audit schema"):
                await write
        assert await router.fetch_all(f"SELECT * FROM {table}", tenant="acme", primary=True) == []


async def test_what_runs_outside_of_transactions_has_two_rows(audited: Router, table: str) -> None:
    """A script is looked at by nobody: one row says that it is sent, before, and one what became of it."""
    await audited.execute_raw(f"INSERT INTO {table} (name) VALUES ('secret')", tenant="acme")
    with pytest.raises(InvalidStatement):
        await audited.execute_raw("INSERT INTO nope VALUES ('secret')", tenant="acme")
    rows = await stored(audited)
    assert [each["outcome"] for each in facts(rows)] == ["sent", "committed", "sent", "failed"]
    assert "secret" not in "".join(row.record for row in rows)
    assert verified(rows).ok


async def test_ddl_is_recorded_on_every_engine(engine: Engine, audited: Router) -> None:
    """In its own transaction where the engine can, else by two rows."""
    await audited.execute(f"CREATE TABLE {engine.name()} (id INTEGER)", tenant="acme")
    outcomes = [each["outcome"] for each in facts(await stored(audited))]
    assert outcomes == (["sent", "committed"] if engine.dialect == "mysql" else ["committed"])


@only("mariadb")
async def test_mysql_does_not_end_a_transaction_behind_the_audit(audited: Router, table: str) -> None:
    """DDL commits the transaction that it is in: refused where its rows could not be undone."""
    with pytest.raises(UsageError, match="commits the transaction"):
        async with audited.session("acme").transaction() as tx:
            await tx.execute(f"INSERT INTO {table} (name) VALUES ('a')")
            await tx.execute("CREATE TABLE other (id INTEGER)")
    assert await stored(audited) == []


async def test_a_lent_connection_is_announced(audited: Router, table: str) -> None:
    """What is done on it nobody sees; that it was lent, and to whom, is recorded before."""
    with acting(actor="alice"):
        async with audited.session("acme").connection() as lease:
            await lease.run("execute_raw", f"DELETE FROM {table}", None)
    (record,) = facts(await stored(audited))
    assert (record["outcome"], record["actor"]) == ("sent", "alice")


async def test_no_committed_write_is_without_its_row_after_a_kill(
    engine: Engine, audited: Router, table: str
) -> None:
    """Killed under load: what is in the table has its row, and the other way round, to the last."""
    answered = await killed(engine, table, {"outbox": {}})
    # a commit that was sent may still be under way on the server
    async with asyncio.timeout(10):
        while True:
            names = {
                row[0]
                for row in await audited.fetch_all(f"SELECT name FROM {table}", tenant="acme", primary=True)
            }
            rows = await stored(audited)
            if names == {each["actor"] for each in facts(rows)}:
                break
            await asyncio.sleep(0.1)
    assert set(answered) <= names
    assert verified(rows).ok


@only("postgresql", "mariadb")
async def test_the_row_decides_an_unknown_outcome(
    audited: Router, proxied: Proxied, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a COMMIT is lost: the row is there, so the transaction is committed; nobody need ask."""
    cut = Cut(0, Break.CLOSE, direction=Direction.TO_CLIENT, times=1)

    async def enclose_and_cut(unit: Unit) -> None:
        await enclose(unit)
        proxied.primary.add(cut)

    async with proxied.engine.open(**OUTBOX) as router:
        heard = Recorder(router)
        await router.execute(f"INSERT INTO {table} (name) VALUES ('a')", tenant="acme")
        monkeypatch.setattr("router.transaction.enclose", enclose_and_cut)
        async with router.session("acme").transaction() as tx:
            await tx.execute(f"INSERT INTO {table} (name) VALUES ('b')")
        assert cut.fired
        assert [event.committed for event in heard.of(CommitResolved)] == [True]
    rows = await stored(audited)
    assert len(facts(rows)) == 2
    assert verified(rows).ok


async def test_trail_and_outbox_together(engine: Engine, audited: Router, table: str, tmp_path: Path) -> None:
    """Both tell the same."""
    both = {"observability": {"audit": {"key": KEY, "outbox": {}, "trail": trail(tmp_path)}}}
    async with engine.open(**both) as router:
        await router.execute(f"INSERT INTO {table} (name) VALUES ('a')", tenant="acme")
        rows = await stored(router)
    assert [each["text"] for each in facts(rows)] == [each["text"] for each in writes(tmp_path / "journal")]


# --- without a database ----------------------------------------------------------------------------------


def _rows(counts: list[int], ends: list[bool], seal: Seal = SEAL) -> list[Stored]:
    """Return the rows of batches, of which some did not land, two of them under way at a time."""
    outbox, rows = Outbox(seal), []
    strand = outbox.strand(("main", "app", None))
    waiting: list[int] = []
    for unit, (count, landed) in enumerate(zip(counts, ends, strict=True)):
        made = outbox.box(unit, strand, [{"type": "write", "n": n} for n in range(count)])
        if landed:
            rows += made
        waiting.append(unit)
        if len(waiting) > 1:
            first = waiting.pop(0)
            outbox.ended(first, committed=ends[first])
    for unit in waiting:
        outbox.ended(unit, committed=ends[unit])
    return [Stored(number, *row) for number, row in enumerate(rows, 1)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_done_to_rows_is_found(data: st.DataObject) -> None:
    """Changed, taken out, doubled, relabelled, put in from another table: with the heads all is found."""
    counts = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=6))
    ends = [True, *(data.draw(st.booleans()) for _ in counts[1:])]
    rows = _rows(counts, ends)
    whole = verified(rows)
    assert whole.ok
    before = sorted(row[1:] for row in rows)  # the numbers of rows mean nothing
    for _ in range(data.draw(st.integers(1, 2))):
        if not rows:
            break
        at = data.draw(st.integers(0, len(rows) - 1))
        row = rows[at]
        match data.draw(st.sampled_from(["flip", "drop", "double", "relabel", "foreign"])):
            case "flip":
                place = data.draw(st.integers(0, len(row.record) - 1))
                letter = data.draw(st.sampled_from('0aZ{}\\"'))
                rows[at] = row._replace(record=row.record[:place] + letter + row.record[place + 1 :])
            case "drop":
                del rows[at]
            case "double":
                rows.append(row._replace(id=1000))
            case "relabel":
                rows[at] = row._replace(seq=row.seq + 1)
            case "foreign":
                rows.append(_rows([1], [True], Seal(b"another key"))[0])
    if sorted(row[1:] for row in rows) != before:
        assert not verified(rows, heads=whole.heads).ok


def test_the_heads_of_the_last_rows_are_those_that_none_names() -> None:
    """What a fresh process begins with."""
    rows = _rows([2, 1, 1, 2], [True, True, False, True])
    heads = {head.hash for head in verified(rows).heads}
    assert set(heads_of(row.record for row in reversed(rows))) == heads
    assert heads_of(["nonsense"]) == []


def test_a_name_that_is_none_is_refused() -> None:
    """The table's name goes into SQL as it is."""
    with pytest.raises(UsageError, match="no name"):
        everything("a; DROP TABLE b")


async def test_a_failover_loses_a_write_and_its_row_together(
    postgresql_factory: Callable[..., Any], tmp_path: Path
) -> None:
    """The new primary never had either; the row that names the lost one says that it is missing."""
    cluster = postgresql_factory(replicas=1)
    engine = Postgresql(tmp_path, cluster)
    engine.create("acme")
    quick = {"checks": {"interval": "200ms", "timeout": "500ms"}}
    insert, new = "INSERT INTO plans (name) VALUES (:name)", cluster.replicas[0]
    async with engine.open(tenants=("acme",)) as plain:
        await plain.execute_raw(ddl("router_audit", Dialect.POSTGRESQL), tenant="acme")
        await plain.execute("CREATE TABLE plans (name TEXT)", tenant="acme")
    async with engine.open(tenants=("acme",), cluster=quick, **OUTBOX) as router:
        with acting(actor="a"):
            await router.execute(insert, {"name": "a"}, tenant="acme")
        await engine.settle()
        await asyncio.to_thread(new.cut_off)
        with acting(actor="b"):
            await router.execute(insert, {"name": "b"}, tenant="acme")
        await asyncio.to_thread(cluster.primary.kill)
        await asyncio.to_thread(new.promote)
        with acting(actor="c"):
            await router.session("acme").run(lambda tx: tx.execute(insert, {"name": "c"}))
        names = await router.fetch_all("SELECT name FROM plans", tenant="acme", primary=True)
        rows = await stored(router)
    assert [row[0] for row in names] == [each["actor"] for each in facts(rows)] == ["a", "c"]
    assert [(each.place, each.flaw) for each in verified(rows).findings] == [
        (f"row {rows[-1].id}", Flaw.MISSING)
    ]
