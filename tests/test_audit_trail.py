"""Every write has its record, with what became of it, before its caller has the answer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from router import Router, acting, parse
from router.audit.audit import Audit
from router.audit.findings import Flaw
from router.audit.records import Outcome
from router.config import AuditConfig
from router.errors import AuditUnavailable, InvalidStatement, UsageError
from router.events import RequestEvent
from router.metrics.audited import families
from tests.auditing import KEY, config, records, trail, verified, writes

TABLE = "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT)"


@pytest.fixture
async def audited(tmp_path: Path) -> Any:
    """Open a router whose writes are recorded, with a table."""
    async with Router.open(config(tmp_path, trail=trail(tmp_path))) as router:
        await router.execute(TABLE, tenant="acme")
        yield router


def _said(folder: Path) -> list[tuple[str, str]]:
    return [(each["text"], each["outcome"]) for each in writes(folder / "journal")[1:]]


async def test_a_write_is_in_the_journal_when_its_caller_has_the_answer(
    audited: Router, tmp_path: Path
) -> None:
    """The file is read right after the answer, and says who wrote what, where, and for what."""
    with acting(actor="alice", context_id="r-1", trace_id="a" * 32, tags={"route": "/plans"}):
        await audited.execute("INSERT INTO plans VALUES (1, 'secret')", tenant="acme")
    (record,) = writes(tmp_path / "journal")[1:]
    assert {name: record[name] for name in ("actor", "context", "trace", "tags")} == {
        "actor": "alice",
        "context": "r-1",
        "trace": "a" * 32,
        "tags": {"route": "/plans"},
    }
    assert {name: record[name] for name in ("tenant", "cluster", "node", "database", "tables", "rows")} == {
        "tenant": "acme",
        "cluster": "main",
        "node": "primary",
        "database": "acme",
        "tables": ["plans"],
        "rows": 1,
    }
    assert (record["kind"], record["outcome"]) == ("write", "committed")


async def test_no_value_is_in_the_journal(audited: Router, tmp_path: Path) -> None:
    """Literals are question marks, parameters are names; neither a value nor the key is in any byte."""
    await audited.execute("INSERT INTO plans VALUES (1, 'secret-literal')", tenant="acme")
    await audited.execute(
        "INSERT INTO plans VALUES (:id, :name)",
        {"id": 770_017_700_177, "name": "secret-value"},
        tenant="acme",
    )
    with pytest.raises(InvalidStatement):
        await audited.execute("INSERT INTO nope VALUES ('secret-literal')", tenant="acme")
    await audited.execute_raw("INSERT INTO plans VALUES (5, 'secret-literal')", tenant="acme")
    content = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.jsonl"))
    assert b"secret" not in content
    assert b"770017700177" not in content
    assert KEY.encode() not in content


async def test_reads_are_not_recorded(audited: Router, tmp_path: Path) -> None:
    """Not on a replica, not on the primary, not in a transaction: what is proven to read changes nothing."""
    session = audited.session("acme")
    await session.fetch_all("SELECT * FROM plans")
    await session.fetch_all("SELECT * FROM plans", primary=True)
    async with session.transaction() as tx:
        await tx.fetch_all("SELECT * FROM plans")
    async with session.transaction(readonly=True) as tx:
        await tx.fetch_all("SELECT * FROM plans")
    assert _said(tmp_path) == []


async def test_the_writes_of_a_transaction_have_its_outcome(audited: Router, tmp_path: Path) -> None:
    """Committed, rolled back, undone to a savepoint: the record says what became of it in the end."""
    session = audited.session("acme")
    async with session.transaction() as tx:
        await tx.execute("INSERT INTO plans VALUES (1, 'a')")
        assert _said(tmp_path) == []  # nobody knows yet
        with pytest.raises(ValueError):
            async with tx.savepoint():
                await tx.execute("UPDATE plans SET name = 'b'")
                raise ValueError
        with pytest.raises(InvalidStatement):
            await tx.execute("DELETE FROM nope")
    with pytest.raises(ValueError):
        async with session.transaction() as tx:
            await tx.execute("DELETE FROM plans")
            raise ValueError
    await session.fetch_all("SELECT 1")
    await audited.execute("UPDATE plans SET name = 'c'", tenant="acme")
    assert _said(tmp_path) == [
        ("insert into plans values (?, ?)", "committed"),
        ("update plans set name = ?", "rolled_back"),
        ("delete from nope", "failed"),
        ("delete from plans", "rolled_back"),
        ("update plans set name = ?", "committed"),
    ]


async def test_the_orm_is_recorded_as_well(audited: Router, tmp_path: Path) -> None:
    """Its statements, bulk writes and savepoints have records when its commit has returned."""
    async with audited.session("acme").orm() as orm:
        await orm.execute(
            text("INSERT INTO plans VALUES (:id, :name)"), [{"id": n, "name": "x"} for n in (1, 2, 3)]
        )
        nested = await orm.begin_nested()
        await orm.execute(text("DELETE FROM plans"))
        await nested.rollback()
        await orm.commit()
        assert _said(tmp_path) == [
            ("insert into plans values (?, ?)", "committed"),
            ("delete from plans", "rolled_back"),
        ]
    assert writes(tmp_path / "journal")[1]["rows"] == 3


async def test_a_transaction_of_very_many_writes_is_counted(audited: Router, tmp_path: Path) -> None:
    """After the first thousand equal writes share a record, so that memory is bounded; the sum is right."""
    async with audited.session("acme").transaction() as tx:
        for _ in range(1200):
            await tx.execute("UPDATE plans SET name = 'x'")
        await tx.execute("DELETE FROM plans")
    found = writes(tmp_path / "journal")[1:]
    assert len(found) == 1002
    assert sum(each.get("times", 1) for each in found) == 1201


async def test_a_tenant_may_be_left_out(tmp_path: Path) -> None:
    """``audit: false`` in a tenant's settings: its writes are neither recorded nor waited for."""
    given = {
        "version": 1,
        "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(tmp_path / "data")}}},
        "observability": {"audit": {"key": KEY, "trail": trail(tmp_path)}},
        "tenants": {
            "acme": {"cluster": "main", "isolation": "database", "database": "acme"},
            "quiet": {"cluster": "main", "isolation": "database", "database": "quiet", "audit": False},
        },
    }
    async with Router.open(parse(given)) as router:
        for tenant in ("acme", "quiet"):
            async with router.session(tenant).transaction() as tx:
                await tx.execute(TABLE)
    assert {each["tenant"] for each in writes(tmp_path / "journal")} == {"acme"}


async def test_a_cancelled_write_is_recorded_as_unknown(audited: Router, tmp_path: Path) -> None:
    """Nobody waits for its record any more, but it is written."""
    slow = (
        "INSERT INTO plans WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n"
    )
    task = asyncio.create_task(audited.execute(slow, tenant="acme"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await audited.execute("DELETE FROM plans", tenant="acme")
    assert [outcome for _, outcome in _said(tmp_path)] == ["unknown", "committed"]


async def test_long_texts_and_tags_do_not_break_a_record(tmp_path: Path) -> None:
    """A text is cut to what the configuration allows; odd characters survive, and all of it verifies."""
    given = config(tmp_path, trail=trail(tmp_path), longest="128B")
    async with Router.open(given) as router:
        await router.execute(TABLE, tenant="acme")
        many = " UNION ALL ".join(["SELECT 'x', 'y'"] * 500)
        with acting(actor="zo\u00eb\n\ud800\u0000", tags={"n": "\u2028"}):
            await router.execute(
                f"INSERT INTO plans (name, id) SELECT * FROM ({many}) LIMIT 0", tenant="acme"
            )
    (record,) = writes(tmp_path / "journal")[1:]
    assert len(record["text"]) == 128
    assert record["characters"] > 5000
    assert record["actor"] == "zo\u00eb\n\ud800\u0000"
    assert verified(tmp_path / "journal").ok


async def test_many_at_once_are_one_chain(audited: Router, tmp_path: Path) -> None:
    """Concurrent writers of one process have their records in one order, without a gap."""

    async def write(number: int) -> None:
        with acting(actor=f"user-{number}"):
            for _ in range(20):
                await audited.execute("UPDATE plans SET name = 'x'", tenant="acme")

    await asyncio.gather(*map(write, range(10)))
    assert len(_said(tmp_path)) == 200
    report = verified(tmp_path / "journal")
    assert report.ok
    assert report.heads == [audited.audit.head()]


async def test_two_routers_have_a_lane_each(tmp_path: Path) -> None:
    """Processes that share a folder do not mix their chains; the next one goes on where one has ended."""
    given = config(tmp_path, tenants=("acme", "globex"), trail=trail(tmp_path))
    async with Router.open(given) as one, Router.open(given) as two:
        await one.execute(TABLE, tenant="acme")
        await two.execute(TABLE, tenant="globex")
    async with Router.open(given) as three:
        await three.execute("DELETE FROM plans", tenant="acme")
    report = verified(tmp_path / "journal")
    assert report.ok
    assert (len(report.heads), report.chains) == (2, 3)


async def test_without_a_configuration_nothing_listens(tmp_path: Path) -> None:
    """Off costs nothing: no listener, no record, no thread; asking for it is refused."""
    async with Router.open(config(tmp_path)) as router:
        await router.execute(TABLE, tenant="acme")
        assert not any("audit" in each.name for each in router.status().listeners)
        assert not router.audit.on
        with pytest.raises(UsageError, match="not recorded"):
            router.audit.status()
    assert not (tmp_path / "journal").exists()


async def test_a_journal_that_cannot_be_begun_refuses_to_open(tmp_path: Path) -> None:
    """An operator learns of a wrong folder at once, not with the first write."""
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(AuditUnavailable, match="cannot be begun"):
        async with Router.open(config(tmp_path, trail=trail(tmp_path))):
            pass


async def test_a_router_without_its_journal_stays_closed(tmp_path: Path) -> None:
    """Trying again does not open it without the audit."""
    (tmp_path / "journal").write_text("a file")
    router = Router.open(config(tmp_path, trail=trail(tmp_path)))
    for _ in range(2):
        with pytest.raises(AuditUnavailable):
            await router.connect()
    (tmp_path / "journal").unlink()
    await router.connect()
    await router.execute(TABLE, tenant="acme")
    await router.close()
    assert len(writes(tmp_path / "journal")) == 1


async def test_events_say_what_writes(audited: Router) -> None:
    """``writes`` is true of what is no proven read, in a transaction as well."""
    heard: list[tuple[str, bool]] = []
    audited.dispatcher.subscribe(RequestEvent, lambda event: heard.append((event.normalized, event.writes)))
    session = audited.session("acme")
    await session.fetch_all("SELECT 1")
    await session.execute("DELETE FROM plans")
    async with session.transaction() as tx:
        await tx.fetch_all("SELECT 2")
        await tx.execute("DELETE FROM plans")
    assert [writes for _, writes in heard] == [False, True, False, True]


async def test_the_listener_failing_inside_is_no_silence(
    audited: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should making a record fail, the chain says how many are missing, and status and metrics do."""
    monkeypatch.setattr("router.audit.trail.record", lambda *_: 1 / 0)
    await audited.execute("DELETE FROM plans", tenant="acme")
    monkeypatch.undo()
    await audited.execute("DELETE FROM plans", tenant="acme")
    assert audited.audit.status().lost == 1
    assert [
        each.facts["count"] for each in records(tmp_path / "journal") if each.facts["type"] == "lost"
    ] == [1]


def test_the_page_lists_every_metric_and_every_flaw() -> None:
    """docs/audit.md is as the code is."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "audit.md").read_text()
    audit = Audit(AuditConfig(), Path(), lambda event: None, lambda event: None)
    for family in families(audit.status(), "router_"):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` | {family.type} | {family.documentation} |" in page
    assert [flaw for flaw in Flaw if f"`{flaw}`" not in page] == []
    assert [outcome for outcome in Outcome if f"`{outcome}`" not in page] == []
