"""``router status``: nodes, the budget of connections and the tenants of running processes, asked once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from router.cli.app import app
from router.cli.asking import VARIABLE, Answer
from router.cli.merging import together
from router.cli.statusviews import show_status
from tests.test_slow_cli import TOKEN, Running, running
from tests.test_slow_top import node, picture


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give two routers that share their databases."""
    with running(tmp_path_factory.mktemp("status")) as made:
        made.start()
        made.start()
        yield made


def run(*arguments: str) -> Result:
    """Run the command with the token in its environment."""
    return CliRunner().invoke(app, ["status", *arguments], env={VARIABLE: TOKEN})


def test_the_budget_is_shown_of_each_process_and_of_all(processes: Running) -> None:
    """Connections and their bound are added up by node, over all pools and processes."""
    processes.read(0, 3)
    found = run(*processes.urls, "--json")
    value = json.loads(found.stdout)
    assert (found.exit_code, value["ok"]) == (0, True)
    apart = [{each["node"]: each for each in one["budgets"]}["main/primary"] for one in value["processes"]]
    (both,) = (each for each in value["together"]["budgets"] if each["node"] == "main/primary")
    assert both["size"] == sum(each["size"] for each in apart) >= 2
    assert both["max"] == sum(each["max"] for each in apart)
    shown = run(*processes.urls)
    assert f" {both['size']} of {both['max']} " in shown.stdout
    assert all(url in shown.stdout for url in processes.urls)


def test_a_process_that_does_not_answer_is_a_no(processes: Running) -> None:
    """What the others say is shown, the code is 1, and the message says who is missing."""
    found = run(processes.urls[0], "http://127.0.0.1:1")
    assert found.exit_code == 1
    assert "main/primary" in found.stdout
    assert "http://127.0.0.1:1: " in found.stderr
    assert TOKEN not in found.output


def show(*pictures: dict[str, Any]) -> str:
    """Return what is printed for some pictures."""
    screen = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    answers = [Answer(f"http://app-{number}", {"pid": 7, **each}) for number, each in enumerate(pictures)]
    with screen.file:
        show_status(screen, answers, together(pictures))
        return screen.export_text()


def test_what_is_wrong_is_told() -> None:
    """A node that is out, a budget at its end, who waits for it, and a listener that has missed events."""
    text = show(
        picture(
            refused="tenants/bad.yaml:1:1: it has no 'cluster'",
            troubles=[
                {"level": "bad", "topic": "changes", "where": "configuration", "text": "is not in force"}
            ],
            nodes=[node(usable=False, reason="too_late"), node(name="p", role="primary", lag_seconds=None)],
            budgets=[
                {"node": "main/r1", "size": 10, "idle": 0, "in_use": 10, "opening": 0, "waiting": 4,
                 "max": 10, "pools": 3}
            ],
            queues=[{"tenant": "acme", "in_use": 9, "waiting": 4}, {"tenant": "", "in_use": 1, "waiting": 0}],
            listeners=[
                {"name": "log", "delivered": 1, "failed": 0, "dropped": 12, "queued": 0, "muted": False}
            ],
        )
    )  # fmt: skip
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert next(row for row in rows if row[0] == "main/r1")[2:] == [
        "out:", "too", "late", "0.1", "s", "10", "of", "10", "10", "0", "4", "3"
    ]  # fmt: skip
    assert next(row for row in rows if row[0] == "main/p")[2:] == ["ok", "none", "yet"]
    assert next(row for row in rows if row[0] == "acme") == ["acme", "9", "4"]
    assert "12 events missed, 0 muted" in text
    assert "3 tenants, configuration 1  (a newer one is refused)" in text
    assert "configuration  is not in force" in text
