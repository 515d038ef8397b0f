"""The command, as a user runs it: output, exit codes, and nothing that should stay secret."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from router.cli import app as commands
from router.cli.app import app
from router.cli.screen import printable
from router.cli.sentences import SENTENCES
from router.reasons import Reason

ROOT = Path(__file__).parent.parent
CANARY = "canary-5e1f"
EXPLAIN = ["explain", "--config", str(ROOT / "config"), "--tenant", "acme"]

CLUSTER = f"""\
version: 1
clusters:
  main:
    engine: postgresql
    primary: {{host: 127.0.0.1, port: 1}}
    database: app
    credentials: {{writer: {{username: app, password: {CANARY}}}}}
"""
TENANT = "tenant: acme\ncluster: main\nisolation: schema\nschema: acme\nschemas: {analytics: acme_more}\n"


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(arguments))


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a configuration of a server that nobody runs."""
    (tmp_path / "tenants").mkdir()
    (tmp_path / "router.yaml").write_text(CLUSTER)
    (tmp_path / "tenants" / "acme.yaml").write_text(TENANT)
    return tmp_path


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """Write a configuration of SQLite."""
    (tmp_path / "tenants").mkdir()
    primary = "{path: data}"
    (tmp_path / "router.yaml").write_text(
        f"version: 1\nclusters:\n  main:\n    engine: sqlite\n    primary: {primary}\n    readers: 0\n"
    )
    (tmp_path / "tenants" / "acme.yaml").write_text(
        "tenant: acme\ncluster: main\nisolation: database\ndatabase: acme\n"
    )
    return tmp_path


# --- check -----------------------------------------------------------------------------------------------


def test_check_accepts_the_sample() -> None:
    """The shipped configuration is right, and the default path of a process started in the project."""
    found = spawn("check")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "config: ok, 3 clusters, 4 tenants\n"


def wrong(folder: Path) -> Path:
    """Put three mistakes into two files."""
    router, tenant = folder / "router.yaml", folder / "tenants" / "acme.yaml"
    router.write_text(CLUSTER.replace("port: 1", "prot: 1") + "    balancing: best\n")
    tenant.write_text(TENANT + "slow_query: 5\n")
    return folder


def test_check_lists_every_mistake_with_its_place(folder: Path) -> None:
    """Each mistake is one line, file:line:column first, and the exit code says no."""
    found = spawn("check", str(wrong(folder)))
    places = re.findall(r"^\S+:\d+:\d+(?= )", found.stdout, re.MULTILINE)
    assert places == [
        f"{folder}/router.yaml:5:32",
        f"{folder}/router.yaml:8:16",
        f"{folder}/tenants/acme.yaml:6:13",
    ]
    assert "Did you mean 'port'?" in found.stdout
    assert found.stdout.endswith("3 mistakes in 2 files\n")
    assert (found.returncode, found.stderr) == (1, "")
    assert "\x1b" not in found.stdout  # plain where nobody sees colours


def test_check_as_json(folder: Path) -> None:
    """The same mistakes as one JSON value, field by field."""
    found = run("check", str(wrong(folder)), "--json")
    value = json.loads(found.stdout)
    assert found.exit_code == 1
    assert (value["ok"], value["warnings"], value["clusters"], value["tenants"]) == (False, [], None, None)
    assert [(each["line"], each["column"]) for each in value["problems"]] == [(5, 32), (8, 16), (6, 13)]
    assert set(value["problems"][0]) == {"file", "line", "column", "message", "remedy"}


def test_check_counts_what_is_right(folder: Path) -> None:
    """A right configuration is counted."""
    value = json.loads(run("check", str(folder), "--json").stdout)
    assert value == {"ok": True, "problems": [], "warnings": [], "clusters": 1, "tenants": 1}


def test_check_shows_warnings_without_refusing(folder: Path) -> None:
    """A remark is shown with its place, and the answer is still yes."""
    text = CLUSTER.replace("127.0.0.1", "db.example.com") + "    tls: {mode: require}\n"
    (folder / "router.yaml").write_text(text)
    found, value = run("check", str(folder)), json.loads(run("check", str(folder), "--json").stdout)
    assert found.exit_code == 0
    assert f"{folder}/router.yaml:5:14 " in found.stdout
    assert "1 warning\n" in found.stdout
    assert [each["line"] for each in value["warnings"]] == [5]


def test_check_without_a_folder(tmp_path: Path) -> None:
    """A path that is no folder is a mistake, without a line."""
    found = run("check", str(tmp_path / "nothing"))
    assert found.exit_code == 1
    assert found.stdout.startswith(f"{tmp_path}/nothing this is not a folder. ")


# --- schema ----------------------------------------------------------------------------------------------


def test_schema_prints_both_or_one() -> None:
    """Both schemas by name, or the one that is asked for; JSON with and without --json."""
    both = json.loads(run("schema").stdout)
    assert set(both) == {"router.yaml", "tenant"}
    assert json.loads(run("schema", "--part", "router", "--json").stdout) == both["router.yaml"]
    assert json.loads(run("schema", "--part", "tenant").stdout) == both["tenant"]
    assert run("schema", "--part", "nothing").exit_code == 2


# --- explain ---------------------------------------------------------------------------------------------


def test_explain_sends_a_hidden_write_to_the_primary() -> None:
    """A data-changing CTE goes to the primary, a plain SELECT to a replica; no server is there to ask."""
    written = spawn(*EXPLAIN, "--json", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d")
    value = json.loads(written.stdout)
    assert (value["role"], value["reason"], value["tables"]) == ("primary", "writing_cte", ["t"])
    assert (written.returncode, written.stderr) == (0, "")
    read = json.loads(run(*EXPLAIN, "--json", "SELECT 1").stdout)
    assert (read["role"], read["reason"], read["candidates"]) == ("replica", "read", ["r1", "r2"])
    assert read["node"] in read["candidates"]


def test_explain_names_everything() -> None:
    """The keys of the JSON are a contract."""
    value = json.loads(run(*EXPLAIN, "--schema", "analytics", "--json", "SELECT lower(a) FROM t").stdout)
    assert list(value) == [
        "tenant", "schema", "cluster", "database", "physical_schema", "role", "node", "candidates",
        "reason", "kind", "tables", "functions", "fingerprint", "normalized",
        "notes", "nodes", "cacheable", "uncached", "ttl", "depends", "runs_as", "rows",
    ]  # fmt: skip
    assert (value["schema"], value["physical_schema"]) == ("analytics", "acme_analytics")
    assert (value["database"], value["functions"]) == ("app", ["lower"])


def test_explain_speaks_to_people() -> None:
    """The reason comes with its sentence."""
    found = run(*EXPLAIN, "DELETE FROM t").stdout
    assert re.search(r"^role +primary *$", found, re.MULTILINE)
    assert re.search(r"^reason +write +It changes rows\. *$", found, re.MULTILINE)


def test_explain_says_whose_rows_they_are(tmp_path: Path) -> None:
    """A tenant by row, or with a role, is shown with what its sessions are bound to."""
    cluster = {"engine": "postgresql", "primary": {"host": "127.0.0.1"}, "database": "app"}
    cluster["credentials"] = {"writer": {"username": "app"}}
    (tmp_path / "tenants").mkdir()
    (tmp_path / "router.yaml").write_text(json.dumps({"version": 1, "clusters": {"main": cluster}}))
    tenant = {"tenant": "acme", "cluster": "main", "isolation": "row", "key": 4711, "role": "shop"}
    (tmp_path / "tenants" / "acme.yaml").write_text(json.dumps(tenant))
    asked = ("explain", "--tenant", "acme", "--config", str(tmp_path), "SELECT 1")
    found = run(*asked).stdout
    assert re.search(r"^physical schema +\(none: by the user's search path\) *$", found, re.MULTILINE)
    assert re.search(r"^rows +app\.tenant = 4711 *$", found, re.MULTILINE)
    assert re.search(r"^runs as +shop *$", found, re.MULTILINE)
    value = json.loads(run(*asked, "--json").stdout)
    assert (value["rows"], value["runs_as"], value["physical_schema"]) == ("app.tenant = 4711", "shop", None)


def test_explain_takes_declarations() -> None:
    """--readonly and --primary are what the caller would declare; both at once make no sense."""
    assert json.loads(run(*EXPLAIN, "--readonly", "--json", "SELECT f()").stdout)["reason"] == "declared_read"
    assert json.loads(run(*EXPLAIN, "--primary", "--json", "SELECT 1").stdout)["reason"] == "declared_primary"
    assert run(*EXPLAIN, "--readonly", "--primary", "SELECT 1").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tenant", "nobody", "SELECT 1"], "there is no tenant 'nobody'"),
        (["--tenant", "acme", "--schema", "billing", "SELECT 1"], "the tenant has no schema 'billing'"),
        (["--tenant", "acme", "SELECT 'a"], "is not closed"),
        (["--tenant", "acme", "--config", "nothing", "SELECT 1"], "this is not a folder"),
        (["SELECT 1"], "--tenant"),
    ],
)
def test_explain_refuses_in_words(arguments: list[str], message: str) -> None:
    """Wrong usage is told on stderr, without a traceback, with exit code 2 and an empty stdout."""
    found = run("explain", "--config", str(ROOT / "config"), "--json", *arguments)
    assert (found.exit_code, found.stdout) == (2, "")
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_every_reason_has_a_sentence() -> None:
    """A new reason needs a sentence for people."""
    assert set(SENTENCES) == set(Reason)
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in SENTENCES.values())


# --- ping ------------------------------------------------------------------------------------------------


def test_ping_asks_every_node(embedded: Path) -> None:
    """A node that answers is ok, and so is the exit code."""
    found = run("ping", "--config", str(embedded))
    assert found.exit_code == 0
    assert re.search(r"main +primary +primary +\S+ +ok +\d+\.\d", found.stdout)
    value = json.loads(run("ping", "--config", str(embedded), "--json").stdout)
    assert value["ok"] is True
    assert [(node["node"], node["error"]) for node in value["nodes"]] == [("primary", None)]


def test_ping_fails_if_a_node_does_not_answer(folder: Path) -> None:
    """A node that does not answer makes the exit code 1 and is told with its reason, not its password."""
    found, as_json = run("ping", "--config", str(folder)), run("ping", "-c", str(folder), "--json")
    assert (found.exit_code, as_json.exit_code) == (1, 1)
    assert "0 of 1 node answered" in found.stdout
    assert "main/primary: cannot connect" in found.stdout
    assert json.loads(as_json.stdout)["nodes"][0]["ok"] is False
    for each in (found, as_json):
        assert CANARY not in each.stdout + each.stderr


# --- errors and edges ------------------------------------------------------------------------------------


def test_no_output_holds_a_secret(folder: Path) -> None:
    """A password in the configuration is in no output of any command, right or wrong."""
    outputs = [run("check", str(folder)), run("check", str(folder), "--json")]
    outputs += [run("explain", "-c", str(folder), "-t", tenant, "SELECT 1") for tenant in ("acme", "nobody")]
    (folder / "router.yaml").write_text(CLUSTER.replace("password: ", "pasword: "))
    outputs += [run("check", str(folder)), run("ping", "-c", str(folder))]
    assert [each.exit_code for each in outputs] == [0, 0, 0, 2, 1, 2]
    assert all(CANARY not in each.stdout + each.stderr for each in outputs)


def _break(monkeypatch: pytest.MonkeyPatch) -> None:
    def schema() -> None:
        secret = CANARY
        raise KeyError(secret)

    monkeypatch.setattr(commands, "json_schema", schema)


def test_an_internal_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is told by its kind and place, with the way to the traceback, and exit code 70."""
    _break(monkeypatch)
    found = run("schema")
    assert (found.exit_code, found.stdout) == (70, "")
    assert re.fullmatch(
        r"internal error: KeyError at test_cli\.py:\d+\. Run it again as .*--debug.*\n", found.stderr
    )
    assert CANARY not in found.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """--debug shows where it came from, without local variables."""
    _break(monkeypatch)
    found = run("--debug", "schema")
    assert found.exit_code == 70
    assert "Traceback (most recent call last)" in found.stderr
    assert "secret = " not in found.stderr  # as rich would show a local


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_packages_are_named_with_their_extra(package: str) -> None:
    """Without the extra the library is there and the command says in one line what to install."""
    text = f"import sys; sys.modules[{package!r}] = None; import router; from router.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"{package} is not installed. Install it with: pip install 'tenant-router[cli]'\n"


def test_help_teaches() -> None:
    """The help lists the exit codes, and every command has an example."""
    text = run("--help").stdout
    assert all(f" {code} " in text for code in (0, 1, 2, 70, 130))
    for command in ("check", "schema", "explain", "ping", "demo"):
        assert command in text
        assert f"$ router {command}" in run(command, "--help").stdout


def test_usage_errors_exit_with_2() -> None:
    """An unknown command, and none at all, are wrong usage; the version is not."""
    assert run("nothing").exit_code == 2
    assert run().exit_code == 2
    assert run("--version").exit_code == 0


def test_interrupt_is_quiet() -> None:
    """Ctrl-C ends a command with 130 and without a word."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "router", "demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # nothing is read ahead: the pipe is full before the demo ends, which cannot end first
        pipesize=4096,
        preexec_fn=partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while b"Tables" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (130, b"")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_only_where_wanted(no_color: str, coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-m", "router", *EXPLAIN, "DELETE FROM t"],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        text = ""
        try:
            while chunk := os.read(ours, 4096):
                text += chunk.decode()
        except OSError:  # Linux's word for the end of a terminal
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert "primary" in text
    assert bool(re.search(r"\x1b\[[0-9;]*35m", text)) is coloured


def test_control_characters_are_shown_not_obeyed() -> None:
    """A name with an escape sequence must not command the terminal."""
    assert printable("a\x1b[2Jb\tc\nd é") == "a\\x1b[2Jb\\tc\nd é"
