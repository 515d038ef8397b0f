"""One Prometheus server, and its tool ``promtool``."""

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.servers.binaries import Account, find
from tests.servers.process import HOST, Folder, Server

CONFIG = Path(__file__).resolve().parents[2] / "config" / "prometheus"
SCRAPE = 1.1  # seconds; a process shows the same for one
HASTE = 60
"""How many times faster time passes in rules here: an hour is a minute."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def hastened(text: str, least: float = 4 * SCRAPE) -> str:
    """Return an expression with all its durations shortened, to no less than can hold a rate."""

    def short(found: re.Match[str]) -> str:
        seconds = max(int(found[1]) * _UNITS[found[2]] / HASTE, least)
        return f"{1000 * seconds:.0f}ms"

    return re.sub(r"\b(\d+)([smhd])\b", short, text)


def promtool(*arguments: str, cwd: Path | None = None, text: str | None = None) -> str:
    """Run promtool and return what it says; raise with that if it is not content."""
    command = [str(find("promtool") / "promtool"), *arguments]
    done = subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class PrometheusServer(Server):
    """Run Prometheus with the project's own configuration: other targets, and rules in haste."""

    def __init__(self, *targets: str) -> None:
        self._program = find("prometheus", "promtool") / "prometheus"
        self._folder = Folder("prometheus", Account())
        super().__init__("prometheus", self._folder.path, Account())
        self._write(targets)

    def _write(self, targets: tuple[str, ...]) -> None:
        shipped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
        shipped["global"] = {"scrape_interval": f"{SCRAPE * 1000:g}ms", "evaluation_interval": "500ms"}
        (scrape,) = shipped["scrape_configs"]
        scrape["static_configs"] = [{"targets": list(targets)}]
        scrape["scrape_timeout"] = f"{SCRAPE * 1000:g}ms"
        (self.home / "rules").mkdir()
        for name in shipped["rule_files"]:
            rules = yaml.safe_load((CONFIG / name).read_text())
            for rule in (rule for group in rules["groups"] for rule in group["rules"]):
                rule["expr"] = hastened(rule["expr"])
                if "for" in rule:
                    rule["for"] = hastened(rule["for"], least=0)
            (self.home / name).write_text(yaml.safe_dump(rules))
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(shipped))

    def command(self) -> list[str]:
        """Return the command that becomes the server."""
        return [
            str(self._program),
            f"--config.file={self.home / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.home / 'data'}",
            f"--web.listen-address={self.host}:{self.port}",
            "--enable-feature=exemplar-storage",
            "--query.lookback-delta=3s",  # a series that ended is gone, as fast as the rest
            "--log.level=warn",
        ]

    def environment(self) -> dict[str, str]:
        """Return an empty environment: Prometheus needs none."""
        return {}

    def ready(self) -> bool:
        """Wait for it to say so."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    def close(self) -> None:
        """End the server and delete its folder."""
        super().close()
        self._folder.remove()

    @property
    def url(self) -> str:
        """Return the address of its web pages."""
        return f"http://{HOST}:{self.port}"

    def api(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of its HTTP API; raise with its complaint."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {json.load(error)['error']}: {parameters}") from None

    def between(self, expr: str, begin: float, end: float) -> list[Mapping[str, Any]]:
        """Return the series of an expression between two moments, twice a second."""
        found: list[Mapping[str, Any]] = self.api("query_range", query=expr, start=begin, end=end, step=0.5)[
            "result"
        ]
        return found
