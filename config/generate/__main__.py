"""Write config/grafana/dashboards and the rules in config/prometheus, and say which files changed."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from config.generate import alerts, boards, recording, situations

CONFIG = Path(__file__).resolve().parents[1]
RUNBOOK = "docs/dashboards.md"
_HEAD = "# Written by `make dashboards` from config/generate: change it there.\n"


class _Dumper(yaml.SafeDumper):
    """Write texts of several lines as blocks, and repeat nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(data: object) -> str:
    """Return the data as a file that says where it is from."""
    return _HEAD + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def files(runbook: str = RUNBOOK) -> dict[str, str]:
    """Return the text of every generated file by its path below ``config``."""
    dashboards = {
        f"grafana/dashboards/{board.uid}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n"
        for board in boards.BOARDS
    }
    return dashboards | {
        "prometheus/rules/recording.yml": as_yaml(recording.groups()),
        "prometheus/rules/alerts.yml": as_yaml(alerts.groups(runbook)),
        "prometheus/tests.yml": as_yaml(situations.suite()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what differs."""
    parser = argparse.ArgumentParser("python -m config.generate", description=__doc__)
    parser.add_argument("--runbook", default=RUNBOOK, help="where your copy of docs/dashboards.md is, a URL")
    for name, text in files(parser.parse_args(arguments).runbook).items():
        path = CONFIG / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written: config/{name}")


if __name__ == "__main__":
    main()
