"""The bench itself: what it makes of samples, and that its plan leaves nothing out."""

import json
from typing import Any

import pytest

from tests.bench import decision, markdown, plan
from tests.bench.arms import NAMES
from tests.bench.figures import Figure, figures
from tests.bench.measure import Sample, measure
from tests.bench.place import Node, Place, World, redact
from tests.bench.report import print_json
from tests.bench.results import Cell, Line, Results
from tests.bench.workloads import ALONE, WORKLOADS


def _results(*rounds: tuple[float, float]) -> Results:
    """Return results of a point read: requests a second of ours and of the bare driver, round by round."""
    results = Results()
    for number, (mine, bare) in enumerate(rounds):
        results.rounds[Cell("point_read", "router", 16, "uvloop")][number] = Sample(mine, 30.0, 1.0, 2.0)
        results.rounds[Cell("point_read", "bare_asyncpg", 16, "uvloop")][number] = Sample(
            bare, 20.0, 1.0, 2.0
        )
    return results


def test_ratio_is_taken_within_a_round() -> None:
    """A slow round of the machine slows both arms and must not change their ratio."""
    results = _results((90.0, 100.0), (9.0, 10.0), (900.0, 1000.0))
    bare = dict.fromkeys(NAMES, ("bare_asyncpg",))
    ours = {line.cell.arm: line for line in results.all_lines(bare)}["router"]
    assert ours.vs_bare == pytest.approx(0.9)
    assert ours.rps == 90.0
    assert ours.json()["spread"] == [9.0, 900.0]


def test_rounds_that_only_one_arm_has_do_not_count() -> None:
    """An arm that failed half-way is compared by the rounds that both ran."""
    results = _results((90.0, 100.0), (50.0, 100.0))
    del results.rounds[Cell("point_read", "bare_asyncpg", 16, "uvloop")][1]
    mine, bare = (Cell("point_read", arm, 16, "uvloop") for arm in ("router", "bare_asyncpg"))
    assert results.ratio(mine, bare) == pytest.approx(0.9)


def test_figures_only_of_what_was_measured() -> None:
    """A filter must not make figures of workloads that did not run."""
    found = list(figures(_results((79.0, 100.0))))
    assert [figure.name for figure in found] == ["point_read: router vs bare_asyncpg, throughput"]
    assert not found[0].ok


@pytest.mark.parametrize(("value", "least", "ok"), [(2, True, True), (1.9, True, False), (2.0, False, False)])
def test_limits_are_floors_or_ceilings(value: float, least: bool, ok: bool) -> None:
    """'At least' includes the limit; 'under' does not."""
    assert Figure("f", value, 2.0, least).ok is ok


def test_quick_plan_has_every_workload_and_arm() -> None:
    """The quick run prints a line for each workload and arm, so it leaves none out."""
    cells = list(plan.quick([*WORKLOADS, *ALONE], NAMES, plan.LOOPS))
    for workload in WORKLOADS.values():
        arms = {cell.arm for cell in cells if cell.workload == workload.name}
        others = {"bare_aiomysql", "router_mysql", "bare_aiosqlite", "router_sqlite"}
        assert arms == set(NAMES) - (others if workload.narrow else set())


def test_full_plan_has_both_loops_and_numbers_of_tasks() -> None:
    """Throughput and CPU are shown at 1 and 16 tasks, on uvloop and on asyncio."""
    cells = set(plan.full(["point_read"], ["router"], plan.LOOPS))
    assert cells == {Cell("point_read", "router", tasks, loop) for tasks in (1, 16) for loop in plan.LOOPS}


async def test_each_client_does_one_request_at_least() -> None:
    """A request longer than the slice is measured all the same, once for each task."""
    seen = []

    async def operation(task: int, key: int) -> None:
        seen.append(task)

    sample = await measure(operation, 3, 0.0)
    assert sorted(seen) == [0, 1, 2]
    assert sample.rps > 0


async def test_the_parts_of_a_request_can_be_timed_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Each of those that need a connection takes some time; they call what is inside of the router.

    No request of theirs is a slow one, which is told otherwise and costs several times as much.
    """
    assert min((await decision._around(1)).values()) > 0
    assert "slow" not in caplog.text


def test_no_password_in_a_reason() -> None:
    """What a peer says when it fails may repeat the address that it was given."""
    world = World({"postgresql": Place("postgresql", Node("h"), (), "secret")})
    assert "secret" not in redact("cannot connect to postgresql://u:secret@h/db\nmore", world)
    assert "secret" not in repr(world)


KEYS = {"workload", "arm", "tasks", "loop", "rps", "cpu_us", "p50_us", "p99_us", "vs_bare"}


def _printed(results: Results, capsys: pytest.CaptureFixture[str], *, check: bool) -> list[dict[str, Any]]:
    """Return the objects that are printed of a run of three arms, one of which has no samples."""
    cells = [Cell("point_read", arm, 16, "uvloop") for arm in ("bare_asyncpg", "hasql", "router")]
    lines = results.all_lines(dict.fromkeys(NAMES, ("bare_asyncpg",)))
    print_json(results, list(lines), cells, check)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_line_has_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Who reads the lines need not look whether a key is there; a missing peer says why it is missing."""
    results = _results((90.0, 100.0))
    results.missing["", "hasql"] = "not installed"
    printed = _printed(results, capsys, check=False)
    assert [line["arm"] for line in printed] == ["bare_asyncpg", "router", "hasql"]
    assert all(line.keys() >= KEYS for line in printed)
    assert [line.get("missing") for line in printed] == [None, None, "not installed"]
    assert printed[2]["rps"] is None


def test_figures_are_printed_when_they_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of another form come only if asked for."""
    *_, figure = _printed(_results((90.0, 100.0)), capsys, check=True)
    assert figure == {
        "name": "point_read: router vs bare_asyncpg, throughput",
        "value": 0.9,
        "limit": 0.8,
        "ok": True,
    }


def test_an_arm_that_stopped_half_way_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The rounds that it ran are shown together with what ended them, in one line."""
    results = _results((90.0, 100.0))
    results.missing["point_read", "router"] = "failed: OSError"
    printed = [line for line in _printed(results, capsys, check=False) if line["arm"] == "router"]
    assert [(line["rps"], line["missing"]) for line in printed] == [(90.0, "failed: OSError")]


def test_the_page_shows_what_was_measured() -> None:
    """The tables of the documentation are made of the lines of a run, and replace those of the last."""
    results = _results((90.0, 100.0))
    lines = [line.json() for line in results.all_lines(dict.fromkeys(NAMES, ("bare_asyncpg",)))]
    lines.append(Line(Cell("write", "pgpool", 16, "uvloop")).json() | {"missing": "no such | program"})
    page = "before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n"
    once = markdown.inserted(page, markdown.tables(lines))
    assert "| `router` | 90 | 30 | 1 | 2 | 0.90 | 0.90..0.90 |" in once
    assert "| `pgpool` | write | no such   program |" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert markdown.inserted(once, markdown.tables(lines)) == once
    with pytest.raises(ValueError, match="0 pairs"):
        markdown.inserted("no marks", "")


def test_the_page_of_figures_names_every_workload_and_arm() -> None:
    """Nothing that is measured is left out of the documentation."""
    text = markdown.PAGE.read_text()
    assert [name for name in (*WORKLOADS, *ALONE, *NAMES) if f"`{name}`" not in text] == []
