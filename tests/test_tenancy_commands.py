"""The commands of tenants, as a person types them, and those on the page that describes them."""

import json
import shlex
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from router.cli.app import app
from tests.test_docs import DOCS, blocks
from tests.test_tenancy_onboarding import ACME, files
from tests.test_tenancy_onboarding import folder as folder

PAGE = DOCS / "how-to" / "onboard-tenants.md"


def run(folder: Path, *arguments: str, **given: Any) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["tenants", *arguments, "--config", str(folder)], **given)


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_goes_through_a_tenants_life(folder: Path) -> None:
    """Add, show, list, suspend, resume and remove, as a person types them; the codes say how it went."""
    add = ("add", "globex", "--cluster", "main", "--isolation", "database", "--provision")
    dry = run(folder, *add, "--dry-run")
    assert (dry.exit_code, files(folder)) == (0, ["acme.yaml"])
    assert dry.stdout.endswith("PRAGMA journal_mode = WAL;  -- if it is not there\n")
    added = run(folder, *add)
    assert added.stdout == f"made  the file globex.db\nwritten  {folder}/tenants/globex.yaml\n"
    assert (added.exit_code, run(folder, *add).exit_code) == (0, 2)
    assert "  file globex.db" in run(folder, "show", "globex").stdout
    assert run(folder, "suspend", "globex").stdout == "globex is suspended\n"
    assert run(folder, "suspend", "globex").stdout == "globex is suspended already\n"
    listed = run(folder, "list", "--suspended")
    assert "globex" in listed.stdout
    assert listed.stdout.endswith("1 tenant\n")
    assert json.loads(run(folder, "resume", "globex", "--json").stdout)["changed"] is True
    assert run(folder, "remove", "globex").exit_code == 2  # nobody can be asked
    removed = run(folder, "remove", "globex", "--yes")
    assert "Its rows are still there" in removed.stdout
    assert (removed.exit_code, files(folder)) == (0, ["acme.yaml"])


def test_list_filters_and_ends(folder: Path) -> None:
    """A table says how many it leaves out; JSON has all; a name that is not there is wrong usage."""
    for number in range(5):
        text = ACME.replace("acme", f"t{number}").replace("tier: gold\n", "")
        (folder / "tenants" / f"t{number}.yaml").write_text(text)
    shown = run(folder, "list", "--limit", "2").stdout
    assert shown.endswith("6 tenants; 2 are shown, --limit 0 shows all\n")
    assert "t2" not in shown
    found = json.loads(run(folder, "list", "--json").stdout)
    assert (found["total"], len(found["tenants"])) == (6, 6)
    gold = json.loads(run(folder, "list", "--tier", "gold", "--cluster", "main", "--json").stdout)
    assert [each["tenant"] for each in gold["tenants"]] == ["acme"]
    assert run(folder, "list", "--tier", "silver").exit_code == 2


def test_dry_run_shows_what_a_server_would_be_asked(folder: Path) -> None:
    """Names are quoted by the one place that does, and a grant for a_b is none for axb."""
    add = (
        "add",
        "big-co",
        "--isolation",
        "schema",
        "--schema",
        "big_co",
        "--provision",
        "--dry-run",
        "--json",
    )
    shared = json.loads(run(folder, *add, "--cluster", "shared", "--role", "big_co").stdout)
    assert [each["sql"] for each in shared["steps"]] == [
        'CREATE ROLE "big_co" NOLOGIN',
        'GRANT "big_co" TO "app"',
        'GRANT "big_co" TO "ro"',
        'GRANT "big_co" TO CURRENT_USER',
        'CREATE SCHEMA "big_co" AUTHORIZATION "big_co"',
        'GRANT USAGE, CREATE ON SCHEMA "big_co" TO "big_co"',
    ]
    orders = json.loads(run(folder, *add, "--cluster", "orders").stdout)
    assert orders["steps"][0]["sql"] == "CREATE DATABASE IF NOT EXISTS `big_co`"
    assert r"ON `big\_co`.* TO `app`@`%`" in orders["steps"][1]["sql"]
    rows = ("add", "r1", "--cluster", "shared", "--isolation", "row", "--provision", "--dry-run")
    assert "nothing to make" in run(folder, *rows).stdout


def test_the_admins_password_is_needed_and_not_shown(folder: Path) -> None:
    """It comes from the environment; without it nothing begins, and an error does not repeat it."""
    add = ("add", "g", "--cluster", "shared", "--isolation", "schema", "--provision", "--admin-user", "root")
    missing = run(folder, *add)
    assert (missing.exit_code, "ROUTER_ADMIN_PASSWORD" in missing.stderr) == (2, True)
    failed = run(folder, *add, env={"ROUTER_ADMIN_PASSWORD": "canary-71ab"})
    assert failed.exit_code == 1
    assert "was not written" in failed.stderr
    assert "canary" not in failed.stdout + failed.stderr
    assert files(folder) == ["acme.yaml"]


# --- the page --------------------------------------------------------------------------------------------


def test_the_commands_on_the_page_work(tmp_path: Path) -> None:
    """Each command of the how-to does what it says, one after the other, in the folder that it shows."""
    (configuration,) = blocks(PAGE, "yaml")
    folder = tmp_path / "config"
    (folder / "tenants").mkdir(parents=True)
    (folder / "router.yaml").write_text(configuration.code)
    typed = [block.code.splitlines() for block in blocks(PAGE, "shell") if block.info != "no-run"]
    commands = [shlex.split(line) for lines in typed for line in lines]
    assert len(commands) == 9
    for program, group, *arguments in commands:
        assert (program, group) == ("router", "tenants")
        done = run(folder, *arguments)
        assert done.exit_code == 0, (arguments, done.output)
    assert files(folder) == []
