"""The router over HTTP: who may see what, what health means, and answers that nobody stores."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router import Router, parse, web
from router.errors import UsageError
from router.status import NodeStatus
from router.web import feed
from router.web.guard import Attempts
from router.web.health import Readiness, missing

TOKEN = "canary-token-of-the-web"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def config(folder: Path, **more: Any) -> Any:
    """Return a configuration of one tenant on SQLite."""
    tenants = {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}}
    main = {"engine": "sqlite", "primary": {"path": str(folder)}}
    return parse({"version": 1, "clusters": {"main": main}, "tenants": tenants, **more})


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Router]:
    """Open a router of one tenant with a table ``items``."""
    async with Router.open(config(tmp_path)) as router:
        await router.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)", tenant="acme")
        yield router


def client(app: Any) -> httpx.AsyncClient:
    """Return a client that calls the application without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router")


# --- metrics ---------------------------------------------------------------------------------------------


async def test_metrics_come_in_the_format_that_is_asked_for(opened: Router) -> None:
    """A Prometheus that prefers OpenMetrics gets it, anybody else the text format."""
    async with client(web.app(opened)) as http:
        plain = await http.get("/metrics")
        asked = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")
    counted = 'router_requests_total{cluster="main",role="primary",kind="ddl",outcome="ok"} 1'
    assert counted in plain.text
    assert counted in asked.text


# --- health ----------------------------------------------------------------------------------------------


async def test_web_is_alive_and_ready(opened: Router) -> None:
    """A router whose clusters have their primaries is ready."""
    async with client(web.app(opened)) as http:
        alive, ready = await http.get("/health/live"), await http.get("/health/ready")
    assert (alive.status_code, alive.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


async def test_web_is_not_ready_before_the_router_is_open(tmp_path: Path) -> None:
    """Alive, but not ready: no request must be sent here yet."""
    async with client(web.app(Router.open(config(tmp_path)))) as http:
        alive, ready = await http.get("/health/live"), await http.get("/health/ready")
    assert alive.status_code == 200
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "reasons": [{"cluster": "", "reason": "not_open"}]}


def _node(cluster: str, role: str, usable: bool) -> NodeStatus:
    return NodeStatus(cluster, role, role, "db:1", usable, "" if usable else "silent", None, None, 0, 0.0)


def test_web_readiness_needs_a_primary_in_each_cluster() -> None:
    """Unless the options ask for less: for some clusters only, or for any node."""
    nodes = [_node("a", "primary", True), _node("b", "primary", False), _node("b", "replica", True)]
    assert missing(("a", "b", "c"), nodes, Readiness()) == (("b", "no_primary"), ("c", "no_primary"))
    assert missing(("a", "b", "c"), nodes, Readiness(needs="node")) == (("c", "no_node"),)


def test_web_readiness_names_clusters_that_there_are(tmp_path: Path) -> None:
    """A cluster that is not configured could never become ready."""
    with pytest.raises(UsageError, match="no cluster nope"):
        web.app(Router.open(config(tmp_path)), readiness=Readiness(frozenset({"main", "nope"})))


async def test_web_shows_addresses_to_who_knows_the_token_only(opened: Router, tmp_path: Path) -> None:
    """Health is for everybody, the nodes are not."""
    async with client(web.app(opened, token=TOKEN)) as http:
        anybody, friend = await http.get("/health/ready"), await http.get("/health/ready", headers=BEARER)
    assert str(tmp_path) not in anybody.text
    assert {node["address"] for node in friend.json()["nodes"]} == {str(tmp_path)}


# --- protection ------------------------------------------------------------------------------------------


async def test_web_status_needs_the_token(opened: Router) -> None:
    """Without it, with a wrong one or with another scheme there is no status."""
    async with client(web.app(opened, token=TOKEN)) as http:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            refused = await http.get("/status", headers=header)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (
                401,
                'Bearer realm="router"',
            )
        assert (await http.get("/status", headers=BEARER)).status_code == 200


async def test_web_without_a_token_has_no_status(opened: Router) -> None:
    """What nobody may see is not there."""
    async with client(web.app(opened)) as http:
        for path in ("/status", "/status/stream", "/console"):
            assert (await http.get(path)).status_code == 404


async def test_web_looks_at_no_further_token_after_five_wrong_ones(opened: Router) -> None:
    """Not even at the right one, so that trying tells nothing."""
    async with client(web.app(opened, token=TOKEN)) as http:
        for _ in range(5):
            assert (await http.get("/status", headers={"Authorization": "Bearer wrong"})).status_code == 401
        paused = await http.get("/status", headers=BEARER)
    assert paused.status_code == 429
    assert 1 <= int(paused.headers["retry-after"]) <= 11


def test_web_counts_wrong_tokens_by_client_within_bounds() -> None:
    """After five wrong ones there is one more try every ten seconds; only so many clients are remembered."""
    now = 1000.0
    attempts = Attempts(lambda: now)
    for _ in range(5):
        assert attempts.pause("a") == 0
        attempts.count("a")
    assert attempts.pause("a") == pytest.approx(10)
    assert attempts.pause("b") == 0
    now += 10
    assert attempts.pause("a") == pytest.approx(0)
    for number in range(5000):
        attempts.count(str(number))
    assert len(attempts._used) <= 1024


@pytest.mark.parametrize("options", [{"console": True}, {"protect_metrics": True}])
async def test_web_refuses_to_protect_without_a_token(options: Any, tmp_path: Path) -> None:
    """A console without a token is a mistake that is told at once."""
    with pytest.raises(UsageError, match="needs a token"):
        web.app(Router.open(config(tmp_path)), **options)
    with pytest.raises(UsageError, match="fewer than 16 characters"):
        web.app(Router.open(config(tmp_path)), **options, token="short")


async def test_web_protects_metrics_if_asked_to(opened: Router) -> None:
    """Then they need the token too, which Prometheus can send."""
    async with client(web.app(opened, token=TOKEN, protect_metrics=True)) as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers=BEARER)).status_code == 200


# --- answers ---------------------------------------------------------------------------------------------


async def test_web_answers_are_not_stored_and_know_their_methods(opened: Router) -> None:
    """HEAD is answered like GET without a body, other methods are refused, and nobody keeps an answer."""
    async with client(web.app(opened, token=TOKEN)) as http:
        for path in ("/metrics", "/health/live", "/health/ready", "/status", "/status/stream"):
            head = await http.head(path, headers=BEARER)
            assert (head.status_code, head.content) == (200, b"")
            refused = await http.post(path, headers=BEARER)
            assert refused.status_code == 405
            assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}
            for answer in (head, refused, await http.get("/nowhere")):
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["x-content-type-options"] == "nosniff"


async def test_web_status_is_one_picture(opened: Router) -> None:
    """It names nodes, pools and requests, and never a bound value."""
    async with client(web.app(opened, token=TOKEN)) as http:
        await http.get("/status", headers=BEARER)
        await opened.execute("INSERT INTO items (name) VALUES (:name)", {"name": "canary"}, tenant="acme")
        answer = await http.get("/status", headers=BEARER)
    picture = answer.json()
    assert picture["format"] == 1
    assert [(row["name"], row["primary"]) for row in picture["clusters"]] == [("main", "primary")]
    (request,) = picture["requests"]
    assert (request["tenant"], request["reason"], request["rows"]) == ("acme", "write", 1)
    assert "canary" not in answer.text.replace(TOKEN, "")


# --- a real server ---------------------------------------------------------------------------------------


async def events(http: httpx.AsyncClient, count: int, path: str = "/status/stream") -> list[Any]:
    """Return the first events of a stream."""
    found = []
    async with http.stream("GET", path, headers=BEARER) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == count:
                    break
    return found


async def test_web_serves_on_the_loop_of_the_router(opened: Router) -> None:
    """A server of its own on a free port; pictures come about once a second."""
    async with web.serve(opened, token=TOKEN) as served, httpx.AsyncClient(base_url=served.url) as http:
        assert served.url.startswith("http://127.0.0.1:")
        assert (await http.get("/health/ready")).json()["ready"]
        first, second = await events(http, 2)
    assert 0.5 < second["at"] - first["at"] < 3


async def test_web_refuses_a_port_that_is_taken(opened: Router) -> None:
    """It is told before anything is served."""
    async with web.serve(opened) as served:
        with pytest.raises(UsageError, match="Choose another port"):
            async with web.serve(opened, port=served.port):
                pass


async def test_web_sends_viewers_away_at_the_end(opened: Router) -> None:
    """Closing waits for nobody who watches: they hear that it ends."""
    async with httpx.AsyncClient() as http:
        async with web.serve(opened, token=TOKEN) as served:
            seen = asyncio.Event()
            watching = asyncio.create_task(_watch(http, served.url, seen))
            await seen.wait()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1
        assert (await watching)[-2:] == ["event: bye", "data: {}"]


async def _watch(http: httpx.AsyncClient, url: str, seen: asyncio.Event) -> list[str]:
    lines = []
    async with http.stream("GET", f"{url}/status/stream", headers=BEARER) as answer:
        async for line in answer.aiter_lines():
            seen.set()
            lines += [line] if line else []
    return lines


async def test_web_lets_go_of_a_viewer_that_takes_nothing(
    opened: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again after a while; the others have missed nothing."""
    monkeypatch.setattr(feed, "_PATIENCE", 0.05)
    monkeypatch.setattr(feed, "INTERVAL", 0.01)
    app = web.app(opened, token=TOKEN, viewers=1)
    headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/status/stream", "headers": headers}
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 4:
            await asyncio.Event().wait()  # nobody reads on

    async def receive() -> Any:
        await asyncio.Event().wait()

    common = {"query_string": b"", "root_path": "", "server": ("router", 80), "scheme": "http"}
    await asyncio.wait_for(app({**scope, **common}, receive, send), 5)
    assert sent[2]["body"].startswith(b"event: picture")
    assert sent[-1]["more_body"]  # without an end, so that the server cuts the connection
    async with client(app) as http:
        assert (await http.head("/status/stream", headers=BEARER)).status_code == 200


async def test_web_says_so_when_the_router_is_closed(tmp_path: Path) -> None:
    """Health stays truthful, and there is no picture any more."""
    router = Router.open(config(tmp_path))
    app = web.app(router, token=TOKEN, console=True)
    async with router:
        pass
    async with client(app) as http:
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).json()["reasons"][0]["reason"] == "not_open"
        for path in ("/status", "/console"):
            closed = await http.get(path, headers=BEARER)
            assert (closed.status_code, "closed" in closed.json()["error"]) == (503, True)


def test_web_says_which_extra_it_needs() -> None:
    """Without its packages the import tells what to install."""
    code = "import sys; sys.modules['starlette'] = None; import router.web"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "starlette is not installed. Install it with: pip install 'tenant-router[web]'" in done.stderr


async def test_web_lets_only_so_many_watch(opened: Router) -> None:
    """Who comes when all places are taken is told to come later, and gets one that is free again."""
    async with (
        web.serve(opened, token=TOKEN, viewers=1) as served,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        async with http.stream("GET", "/status/stream", headers=BEARER) as first:
            await anext(first.aiter_lines())
            refused = await http.get("/status/stream", headers=BEARER)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        for _ in range(100):
            if (await http.head("/status/stream", headers=BEARER)).status_code == 200:
                break
            await asyncio.sleep(0.02)
        assert len(await events(http, 1)) == 1
