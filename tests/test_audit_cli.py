"""``router audit``: whether records are whole, where they end, what they say, and the table for them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from router import Router, acting, load
from router.audit.lanes import lanes, segment
from router.cli.app import app
from tests.auditing import KEY, records, verified, written

ROUTER = """\
version: 1
clusters: {main: {engine: sqlite, primary: {path: data}}}
observability:
  audit: {key: "${env:AUDIT_KEY}", trail: {folder: journal}, outbox: {}}
"""
TENANT = "tenant: acme\ncluster: main\nisolation: database\ndatabase: acme\n"


def run(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a configuration, and some writes with it."""
    monkeypatch.setenv("AUDIT_KEY", KEY)
    (tmp_path / "tenants").mkdir()
    (tmp_path / "router.yaml").write_text(ROUTER)
    (tmp_path / "tenants" / "acme.yaml").write_text(TENANT)

    async def write() -> None:
        async with Router.open(load(tmp_path).unaudited()) as router:
            await router.execute_raw(run("schema", "--config", tmp_path).stdout, tenant="acme")
        async with Router.open(tmp_path) as router:
            with acting(actor="alice"):
                await router.execute("CREATE TABLE plans (name TEXT)", tenant="acme")
                await router.execute("INSERT INTO plans VALUES ('secret')", tenant="acme")
            await router.execute("DELETE FROM plans", tenant="acme")

    asyncio.run(write())
    return tmp_path


def test_a_whole_journal_and_a_whole_table(configured: Path) -> None:
    """Both verify by the configuration alone, and asking begins no journal."""
    for more in ((), ("--tenant", "acme")):
        found = run("verify", "--config", configured, *more)
        assert found.exit_code == 0, found.output
        assert ": whole" in found.stdout
    assert verified(configured / "journal").chains == 1


def test_a_changed_record_is_named_with_its_place_and_a_remedy(configured: Path) -> None:
    """Exit code 1, file and line first, as editors and people look for them."""
    (lane,) = lanes(configured / "journal")
    path = segment(lane, 1)
    path.write_bytes(path.read_bytes().replace(b'"alice"', b'"mallory"', 1))
    found = run("verify", "--config", configured)
    assert found.exit_code == 1
    assert found.stdout.startswith("lane-0/0000000001.jsonl:2 altered: record 1 of chain ")
    told = json.loads(run("verify", "--config", configured, "--json").stdout)
    assert not told["ok"]
    assert [(each["flaw"], each["place"]) for each in told["findings"]] == [
        ("altered", "lane-0/0000000001.jsonl:2")
    ]
    assert told["findings"][0]["remedy"]


def test_a_row_that_was_taken_out_is_missed(configured: Path) -> None:
    """By the row that names it; and the last one by the head that was kept."""
    heads = json.loads(run("verify", "--config", configured, "--tenant", "acme", "--json").stdout)["heads"]

    async def delete(number: int) -> None:
        async with Router.open(load(configured).unaudited()) as router:
            await router.execute_raw("DROP TRIGGER IF EXISTS router_audit_remains", tenant="acme")
            await router.execute("DELETE FROM router_audit WHERE id = :id", {"id": number}, tenant="acme")

    asyncio.run(delete(3))
    assert run("verify", "--config", configured, "--tenant", "acme").exit_code == 0
    cut = run("verify", "--config", configured, "--tenant", "acme", "--head", heads[0])
    assert cut.exit_code == 1
    assert "truncated" in cut.stdout
    asyncio.run(delete(1))
    gone = run("verify", "--config", configured, "--tenant", "acme")
    assert gone.exit_code == 1
    assert gone.stdout.startswith("row 2 missing: ")


def test_the_head_can_be_kept_elsewhere_and_given_back(configured: Path) -> None:
    """It is one line for each lane, and shows when the end was cut off."""
    head = run("head", "--config", configured).stdout.strip()
    assert head == str(records(configured / "journal")[-1].head)
    assert json.loads(run("head", "--config", configured, "--json").stdout) == {"heads": [head]}
    assert run("verify", "--config", configured, "--head", head).exit_code == 0
    (lane,) = lanes(configured / "journal")
    path = segment(lane, 1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert run("verify", "--config", configured).exit_code == 0
    assert run("verify", "--config", configured, "--head", head).exit_code == 1


def test_a_journal_is_verified_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup somewhere: its folder, and where the key is; never the key itself."""
    written(tmp_path / "backup")
    monkeypatch.setenv("THE_KEY", KEY)
    (tmp_path / "key").write_text(KEY)
    for reference in ("env:THE_KEY", f"file:{tmp_path / 'key'}"):
        assert run("verify", "--folder", tmp_path / "backup", "--key", reference).exit_code == 0
    unsigned = run("verify", "--folder", tmp_path / "backup")
    assert unsigned.exit_code == 1
    assert "sealed by hmac-sha256" in unsigned.stdout


def test_showing_says_who_did_what(configured: Path) -> None:
    """The newest last, by tenant and actor, as a table or as lines of JSON."""
    shown = run("show", "--config", configured, "--actor", "alice").stdout
    assert "create table plans" in shown
    assert "delete" not in shown
    last = [
        json.loads(line)
        for line in run("show", "--config", configured, "--last", 2, "--json").stdout.splitlines()
    ]
    assert [each["text"] for each in last] == ["insert into plans values (?)", "delete from plans"]
    assert "(nobody said)" in run("show", "--config", configured).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--key", "a-key-that-somebody-typed"),
        ("verify", "--key", "env:not a name"),
        ("verify", "--head", "nonsense"),
        ("verify", "--folder", "/nowhere/at/all"),
        ("verify", "--tenant", "acme", "--folder", "/tmp"),
        ("verify", "--schema", "more"),
        ("verify", "--tenant", "nobody"),
        ("schema", "--engine", "oracle"),
    ],
)
def test_wrong_usage_is_told_in_a_line(configured: Path, arguments: tuple[str, ...]) -> None:
    """Exit code 2, and what was typed as a key is not repeated."""
    found = run(*arguments, "--config", configured)
    assert found.exit_code == 2, found.output
    assert "somebody-typed" not in found.output


def test_the_table_of_each_engine_is_shown(configured: Path) -> None:
    """By the configuration, or by name."""
    assert "AUTOINCREMENT" in run("schema", "--config", configured).stdout
    assert "IDENTITY" in run("schema", "--config", configured, "--engine", "postgresql").stdout
    assert "AUTO_INCREMENT" in run("schema", "--config", configured, "--engine", "mariadb").stdout


def test_help_teaches() -> None:
    """Each command shows how it is used."""
    for command in ("verify", "head", "show", "schema"):
        assert f"$ router audit {command}" in run(command, "--help").stdout


def test_no_other_command_begins_a_journal(configured: Path) -> None:
    """Who only looks leaves no trace in the record of writes."""
    runner = CliRunner()
    for arguments in (["ping"], ["explain", "--tenant", "acme", "SELECT 1"], ["cache", "stats"]):
        runner.invoke(app, [*arguments, "--config", str(configured)])
    assert verified(configured / "journal").chains == 1


def test_the_program_itself_verifies(configured: Path) -> None:
    """As installed, in a pipe: exit code and verdict, no bar."""
    found = subprocess.run(
        [sys.executable, "-m", "router", "audit", "verify", "--config", str(configured)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "AUDIT_KEY": KEY},
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "records in 1 chain: whole" in found.stdout
