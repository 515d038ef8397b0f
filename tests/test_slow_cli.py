"""``router slow``: what the statements of running processes cost, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from router import Router, parse, web
from router.cli.app import app
from router.cli.asking import VARIABLE
from router.cli.slowviews import histogram, number, span
from router.digests import Plan
from tests.servers import CANARY

TOKEN = f"{CANARY}-token-of-the-console"
SQL = f"SELECT name FROM items WHERE id = :id AND name <> '{CANARY}'"


class Running:
    """Run routers on SQLite on an event loop of their own, each with its web application."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self.routers: list[Router] = []
        self.urls: list[str] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Any) -> Any:
        """Run a coroutine where the routers live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def start(self, port: int = 0) -> str:
        """Start one more and return its address."""
        return str(self.do(self._start(port)))

    async def _start(self, port: int) -> str:
        tenants = {
            name: {"cluster": "main", "isolation": "database", "database": name}
            for name in ("acme", "globex")
        }
        main = {"engine": "sqlite", "primary": {"path": str(self._folder / "data")}}
        config = parse({"version": 1, "clusters": {"main": main}, "tenants": tenants})
        router = await self._stack.enter_async_context(Router.open(config))
        served = await self._stack.enter_async_context(web.serve(router, port=port, token=TOKEN))
        for tenant in tenants:
            create = "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT)"
            await router.execute(create, tenant=tenant)
        self.routers.append(router)
        self.urls.append(served.url)
        return served.url

    def read(self, number: int, count: int, tenant: str = "acme") -> None:
        """Have one of them read so often."""

        async def reads() -> None:
            for n in range(count):
                await self.routers[number].fetch_all(SQL, {"id": n}, tenant=tenant)

        self.do(reads())

    def close(self) -> None:
        """End all of them."""
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    made = Running(folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Give two routers that share their databases, and the token in the environment."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    with running(tmp_path) as made:
        made.start()
        made.start()
        yield made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["slow", *arguments])


def shown(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_slow_adds_up_what_several_processes_say(processes: Running) -> None:
    """Counts and tenants are those of both; no literal is shown, nor the token."""
    processes.read(0, 3)
    processes.read(1, 4, tenant="globex")
    found = shown(*processes.urls, "--sort", "count", "--limit", "1")
    assert found["ok"] is True
    assert [each["error"] for each in found["processes"]] == [None, None]
    (statement,) = found["statements"]
    assert (statement["count"], set(statement["tenants"])) == (7, {"acme", "globex"})
    assert statement["text"] == "select name from items where id = ? and name <> ?"
    assert found["known"] == 2
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize("columns", ["70", "100", "200"])
def test_slow_fits_its_terminal(processes: Running, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """Figures, statement, fingerprint and tenants are there in any width."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    processes.read(0, 3)
    result = run(*processes.urls)
    assert result.exit_code == 0
    fingerprint = shown(*processes.urls, "--sort", "count")["statements"][0]["fingerprint"]
    for text in ("select name from items", fingerprint, "acme", "total", "load", "p99", "2 statements"):
        assert text in result.stdout
    assert CANARY not in result.output


def test_slow_shows_one_statement_with_its_plan(processes: Running) -> None:
    """Everything about it: who, where, how long, and how a server means to run it."""
    processes.read(0, 5)
    fingerprint = shown(*processes.urls, "--sort", "count")["statements"][0]["fingerprint"]
    processes.routers[0].slowlog.keep(fingerprint, Plan("SCAN items", "main/reader-1", 1.0))
    result = run(*processes.urls, "--fingerprint", fingerprint)
    assert result.exit_code == 0
    for text in ("5, 0 of them slow", "acme", "main/reader", "items", "SCAN items", "durations"):
        assert text in result.stdout
    unknown = run(*processes.urls, "--fingerprint", "0" * 16)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "no process counts a statement" in unknown.stderr


def test_slow_shows_the_statements_of_a_tenant(processes: Running) -> None:
    """Only where the tenant is among those that spend most."""
    processes.read(0, 1, tenant="globex")
    names = {each["text"].split()[0] for each in shown(processes.urls[0], "--tenant", "acme")["statements"]}
    assert names == {"create"}


def test_a_process_that_is_gone_is_told_and_the_others_are_shown(processes: Running) -> None:
    """The exit code says that something is missing."""
    processes.read(0, 1)
    result = run(processes.urls[0], "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "select name from items" in result.stdout
    assert "http://127.0.0.1:1: " in result.stderr


def test_a_wrong_token_is_told(processes: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the variable, and without the token."""
    monkeypatch.setenv(VARIABLE, f"{CANARY}-another-token")
    result = run(processes.urls[0])
    assert result.exit_code == 1
    assert f"does not know this token; set {VARIABLE}" in result.stderr
    assert CANARY not in result.output


def test_without_a_token_nobody_is_asked(processes: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked for it, that is wrong usage."""
    monkeypatch.delenv(VARIABLE)
    result = run(processes.urls[0])
    assert result.exit_code == 2
    assert VARIABLE in result.stderr


@pytest.mark.parametrize("url", ["app-1:9090", "http://user:secret@app-1", "file:///etc/passwd"])
def test_urls_that_cannot_be_asked_are_wrong_usage(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """They are refused before anything is sent; a password in one is not repeated."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    result = run(url)
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_the_token_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands at an address cannot send the token elsewhere."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    heard: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/stolen")
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    monkeypatch.setenv(VARIABLE, TOKEN)
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = run(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert result.exit_code == 1
    assert heard == ["/slow?limit=1000"]
    assert "answers with 302" in result.stderr


def test_the_page_of_slow_is_protected_and_bounded(processes: Running) -> None:
    """It answers nobody without the token, and with as many statements as are asked for."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    url = f"{processes.urls[0]}/slow"
    processes.read(0, 1)
    with pytest.raises(HTTPError, match="401"):
        urlopen(url)
    for query, status in (("limit=x", 400), ("limit=-1", 400), ("limit=99999999", 400)):
        with pytest.raises(HTTPError, match=str(status)):
            urlopen(Request(f"{url}?{query}", headers={"Authorization": f"Bearer {TOKEN}"}))
    with urlopen(Request(f"{url}?limit=1", headers={"Authorization": f"Bearer {TOKEN}"})) as answer:
        assert len(json.load(answer)["digests"]) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.0012, "1.2 ms"), (0.0734, "73 ms"), (0.5, "0.5 s"), (12.34, "12.3 s"), (600, "10 min"),
     (7200, "2 h"), (7.2e6, "2,000 h")],
)  # fmt: skip
def test_times_are_short(seconds: float, text: str) -> None:
    """Three digits and a unit."""
    assert span(seconds) == text


def test_counts_are_short() -> None:
    """Whoever compares wants the size first."""
    assert [number(each) for each in (7, 1234, 5_600_000, 2e9)] == ["7", "1,234", "5.6M", "2G"]


def test_durations_are_drawn() -> None:
    """One bar for each half of a doubling, the most frequent the highest, gaps included."""
    assert histogram({}).plain == "(none)"
    assert histogram({240: 100, 241: 1, 248: 1}).plain == f"1 s █ ▁ {span(2.0**1.5)}"
    Console(width=80).print(histogram({n: n for n in range(1, 200)}))
