"""Boards, rules and alerts: as their code has them, in order, and alarming when they must."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.generate import alerts, recording, situations
from config.generate.__main__ import CONFIG, files, main
from config.generate.alerts import ALERTS
from config.generate.board import COLUMNS, VARIABLES
from config.generate.boards import BOARDS
from config.generate.objectives import WRITES
from router.metrics.reference import reference
from router.reasons import Reason
from tests.observe.boards import expressions, filled
from tests.servers.binaries import ServerMissing
from tests.servers.prometheus import hastened, promtool

ROOT = CONFIG.parent
EACH = pytest.mark.parametrize("board", [board.json() for board in BOARDS], ids=lambda board: board["uid"])
KINDS = {"timeseries", "stat", "table", "heatmap", "bargauge", "state-timeline"}

Json = dict[str, Any]


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.fixture
def tool() -> None:
    """Skip where Prometheus is not installed."""
    try:
        promtool("--version")
    except ServerMissing as missing:
        pytest.skip(str(missing))


# --- files -----------------------------------------------------------------------------------------------


def test_the_files_are_as_their_code_is(capsys: pytest.CaptureFixture[str]) -> None:
    """`make dashboards` changes nothing, and no file is left of a board that is gone."""
    assert {name: (CONFIG / name).read_text() for name in files()} == files()
    main([])
    assert capsys.readouterr().out == ""
    written = {f"grafana/dashboards/{path.name}" for path in (CONFIG / "grafana" / "dashboards").iterdir()}
    assert written == {name for name in files() if name.startswith("grafana")}


def test_the_files_are_the_same_in_every_process() -> None:
    """No order of a set, no time and no chance gets into them."""
    code = "import json; from config.generate.__main__ import files; print(json.dumps(files()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == files()


def test_the_runbook_may_be_elsewhere() -> None:
    """Who keeps the page on a site of his own has the alerts link there."""
    rules = yaml.safe_load(files("https://runbooks.example/router")["prometheus/rules/alerts.yml"])
    (links,) = [[rule["annotations"]["runbook_url"] for rule in group["rules"]] for group in rules["groups"]]
    assert links[0] == "https://runbooks.example/router#routererrorsburnfast"


# --- boards ----------------------------------------------------------------------------------------------


def test_boards_have_addresses_of_their_own() -> None:
    """A uid is in people's links: one a board, and short enough for Grafana."""
    assert len({board.uid for board in BOARDS}) == len(BOARDS) == 6
    assert all(re.fullmatch(r"router-[a-z]{1,33}", board.uid) for board in BOARDS)


@EACH
def test_panels_fill_the_grid_without_touching(board: Json) -> None:
    """Every panel has its place; ids are unique; nothing sticks out."""
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: dict[tuple[int, int], int] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, f"{panel['title']} is over another panel"
            taken[cell] = panel["id"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == COLUMNS * height, "a line of panels does not reach the right border"


@EACH
def test_every_panel_says_what_it_shows_and_what_to_do(board: Json) -> None:
    """A title, a meaning, an advice, a unit, a source, and at least one question."""
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        means, _, advice = panel["description"].partition("\n\n**Do:** ")
        assert means.endswith("."), panel["title"]
        assert advice.endswith("."), panel["title"]
        assert panel["type"] in KINDS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert all(target["legendFormat"] for target in panel["targets"] if len(panel["targets"]) > 1)


@EACH
def test_thresholds_rise(board: Json) -> None:
    """Grafana takes the last step that a value has reached: they are in order, the first has no value."""
    for panel in panels(board):
        first, *steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert first["value"] is None
        assert [step["value"] for step in steps] == sorted(step["value"] for step in steps)


@EACH
def test_variables_that_are_used_are_there(board: Json) -> None:
    """A board names no variable that it does not have, and has none that it does not use."""
    own = {variable["name"] for variable in board["templating"]["list"]}
    text = json.dumps([board["panels"], board["templating"], board["annotations"]])
    used = set(re.findall(r"\$\{?(\w+)", text))
    grafanas = {"__rate_interval", "__range", "__field", "__data", "__url_time_range", "__all"}
    assert used - grafanas == own
    assert own <= {"datasource", *VARIABLES}


@EACH
def test_links_lead_to_boards(board: Json) -> None:
    """A link from a value opens one of our boards, with a variable that it has."""
    variables = {each.uid: set(each.variables) for each in BOARDS}
    for panel in panels(board):
        for link in panel["fieldConfig"]["defaults"]["links"]:
            uid, chosen = re.fullmatch(r"/d/([\w-]+)\?(.*)", link["url"]).groups()  # type: ignore[union-attr]
            assert set(re.findall(r"var-(\w+)=", chosen)) <= variables[uid]


@EACH
def test_series_are_named_by_labels_that_they_have(board: Json) -> None:
    """A legend names a label by which the expression adds up, or one that selects single series."""
    for panel in panels(board):
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert named <= (kept or {"instance"}), panel["title"]


def test_reasons_of_reads_are_all_but_those_of_writes() -> None:
    """A new reason for the primary is on the board of reads, unless it is said to be of writes."""
    shown = next(
        panel for board in BOARDS for panel in board.panels if panel.title == "Why reads went to the primary"
    )
    (hidden,) = re.findall(r'reason!~"([^"]*)"', shown.queries[0].expr)
    assert set(hidden.split("|")) == set(WRITES)
    assert set(Reason) > WRITES


# --- alerts ----------------------------------------------------------------------------------------------


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """Who is woken up finds what it means, what to look at and what to do; no section is left over."""
    page = (ROOT / "docs" / "dashboards.md").read_text()
    sections = dict(re.findall(r"^### (Router\w+)\n\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == [alert.name for alert in ALERTS]
    for name, text in sections.items():
        for part in ("**Means:**", "**Look at:**", "**Do:**"):
            assert part in text, f"{name} does not say {part}"
    links = [
        rule["annotations"]["runbook_url"]
        for rule in alerts.groups("docs/dashboards.md")["groups"][0]["rules"]
    ]
    assert links == [f"docs/dashboards.md#{name.lower()}" for name in sections]


def test_every_alert_fires_in_one_situation_and_is_silent_in_another() -> None:
    """None is untested, and none always fires."""
    every = [each for _, family in situations.FAMILIES for each in family] + [situations.NOTHING]
    fired = {name for each in every for name in each.firing}
    assert fired == {alert.name for alert in ALERTS}
    assert {name for each in every for name in fired if name not in each.firing} == fired
    assert {alert.severity for alert in ALERTS} == {"critical", "warning", "info"}


def test_alerts_fire_when_they_must_and_only_then(tool: None) -> None:
    """Prometheus itself plays every situation: exactly the named alerts fire, in the normal one none."""
    assert "SUCCESS" in promtool("test", "rules", "tests.yml", cwd=CONFIG / "prometheus")


def test_a_wrong_expectation_is_found(tool: None, tmp_path: Path) -> None:
    """The test above can fail: with one more alert expected, it does."""
    wrong = situations.suite()
    wrong["rule_files"] = [str(CONFIG / "prometheus" / name) for name in wrong["rule_files"]]
    wrong["tests"] = wrong["tests"][1:]
    wrong["tests"][0]["promql_expr_test"][0]["exp_samples"].append(
        {"labels": '{alertname="RouterDown"}', "value": 1}
    )
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="RouterDown"):
        promtool("test", "rules", "tests.yml", cwd=tmp_path)


# --- expressions -----------------------------------------------------------------------------------------


def test_prometheus_understands_configuration_and_rules(tool: None) -> None:
    """The shipped files are valid, rules included, and their rules have no doubles."""
    said = promtool("check", "config", "prometheus.yml", cwd=CONFIG / "prometheus")
    assert f"{len(ALERTS)} rules found" in said
    assert "duplicate" not in said


def test_prometheus_understands_every_panel(tool: None, tmp_path: Path) -> None:
    """Every expression of every board parses."""
    found = [filled(expr) for board in BOARDS for _, expr in expressions(board.json())]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(found)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", "panels.yml", cwd=tmp_path)


def test_recorded_names_are_used_and_those_used_are_recorded() -> None:
    """A recorded series that nobody asks for is work for nothing; one that is not there is an empty panel."""
    (group,) = recording.groups()["groups"]
    recorded = {rule["record"] for rule in group["rules"]}
    asked = [rule["expr"] for rule in group["rules"]] + [alert.expr for alert in ALERTS]
    asked += [expr for board in BOARDS for _, expr in expressions(board.json())]
    used = {name for expr in asked for name in re.findall(r"\b\w+:router_\w+:\w+", expr)}
    assert used == recorded


def _exported() -> dict[str, set[str]]:
    """Return the labels of every series that a process exports, by its name."""
    found: dict[str, set[str]] = {}
    for family in reference():
        name, labels = family.name, {"job", "instance", *family.labels}
        if family.type == "counter":
            found[f"{name}_total"] = labels
        elif family.type == "histogram":
            found[f"{name}_bucket"] = labels | {"le"}
            found[f"{name}_count"] = found[f"{name}_sum"] = labels
        else:
            found[name] = labels
    return found


def _asked() -> Iterator[tuple[str, str]]:
    """Yield every expression, and where it is."""
    for board in BOARDS:
        made = board.json()
        yield from ((board.uid, filled(expr)) for _, expr in expressions(made))
        yield from ((board.uid, VARIABLES[name][1]) for name in board.variables)
    yield from ((alert.name, alert.expr) for alert in ALERTS)
    yield from ((rule["record"], rule["expr"]) for rule in recording.groups()["groups"][0]["rules"])


def test_only_metrics_and_labels_that_exist_are_named() -> None:
    """A panel that asks for what the code does not export would be empty for ever."""
    exported = _exported()
    for where, expr in _asked():
        for name, chosen in re.findall(r"(?<![\w:])(router_\w+)(?:\{([^}]*)\})?", expr):
            assert name in exported, f"{where} asks for {name}"
            named = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))
            assert named <= exported[name], f"{where} narrows {name} by {named - exported[name]}"
        if len(set(re.findall(r"(?<![\w:])router_\w+", expr))) == 1:
            kept = {label for by in re.findall(r"\bby \(([^)]*)\)", expr) for label in re.findall(r"\w+", by)}
            assert kept <= exported[name], f"{where} keeps {kept - exported[name]} of {name}"


def test_the_situations_are_of_series_that_exist() -> None:
    """An alert that is tested on series which no process exports would never fire."""
    exported = _exported() | {"up": {"job", "instance"}}
    for test in situations.suite()["tests"]:
        for series in test["input_series"]:
            name, labels = re.fullmatch(r"(\w+)\{(.*)\}", series["series"]).groups()  # type: ignore[union-attr]
            assert set(re.findall(r"(\w+)=", labels)) == exported[name], series["series"]


def test_haste_shortens_durations_only() -> None:
    """The tests' speed leaves names and numbers alone."""
    expr = 'a:b:ratio_rate5m > 3 and rate(x{le="0.25"}[5m] offset 1d) * 3600'
    assert hastened(expr) == 'a:b:ratio_rate5m > 3 and rate(x{le="0.25"}[5000ms] offset 1440000ms) * 3600'


# --- docker-compose.yml ----------------------------------------------------------------------------------


def test_grafana_is_given_what_is_here() -> None:
    """Grafana finds the boards where they are mounted, and the Prometheus that the other service is."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])
    provisioning = CONFIG / "grafana" / "provisioning"
    boards = yaml.safe_load((provisioning / "dashboards" / "router.yml").read_text())
    assert boards["providers"][0]["options"]["path"] == mounts["./config/grafana/dashboards"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix("/etc/router/dashboards/") in {f"{board.uid}.json" for board in BOARDS}
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert services["grafana"]["environment"][source["url"].strip("${}")] == "http://127.0.0.1:9090"
    scrape = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())["global"][
        "scrape_interval"
    ]
    assert source["jsonData"]["timeInterval"] == scrape
