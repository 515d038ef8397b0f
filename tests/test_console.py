"""The console in a real browser: live, only for who knows the token, and showing text as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from router import Router, acting, capture, parse, web
from router.events import BreakerChanged, PrimaryChanged
from router.topology import Node, Role
from router.web import feed
from tests.conftest import start_or_skip
from tests.servers.chromium import Chromium

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all, on one loop

TOKEN = "canary-token-of-the-console"
MARKUP = "<img src=x onerror=\"document.title='owned'\">"
SCRIPT = "</script><script>document.title='owned'</script>"
WAIT = 10_000  # milliseconds


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait a second for each picture."""
    monkeypatch.setattr(feed, "INTERVAL", 0.1)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Find the browser."""
    found = start_or_skip(Chromium)
    yield found
    found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: Chromium) -> AsyncIterator[BrowserContext]:
    """Start the browser; what it wants to ask anybody else but this machine is refused."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            chromium.data,
            executable_path=chromium.program,
            headless=True,
            args=[*chromium.arguments, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            viewport={"width": 1440, "height": 1000},
        )
        yield context
        await context.close()


@dataclass
class Seen:
    """Hold a page, and what went wrong on it."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Take note of errors, and of requests to anybody else."""
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith("http://127.0.0.1:"):
            self.wrong.append(f"asked {url}")


@asynccontextmanager
async def opened(browser: BrowserContext) -> AsyncIterator[Seen]:
    """Open a page of a browser that knows nothing of the pages before."""
    await browser.clear_cookies()
    page = await browser.new_page()
    page.set_default_timeout(WAIT)
    seen = Seen(page)
    seen.listen()
    try:
        yield seen
    finally:
        await page.close()


async def log_in(page: Page, url: str, token: str = TOKEN) -> None:
    """Type the token into the form, and send it by the keyboard."""
    await page.goto(f"{url}/console")
    await page.get_by_label("Token of the console").fill(token)
    await page.keyboard.press("Enter")


async def enter(page: Page, url: str) -> None:
    """Log in, and return when the page is live: from then on requests are recorded."""
    await log_in(page, url)
    await expect(page.locator("#state")).to_have_text("live", timeout=WAIT)


@asynccontextmanager
async def served(folder: Path, port: int = 0, **options: Any) -> AsyncIterator[tuple[Router, str]]:
    """Serve a router of one tenant on SQLite with a table ``items``."""
    config = parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(folder)}}},
            "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
        }
    )
    async with (
        Router.open(config) as router,
        web.serve(router, port=port, console=True, token=TOKEN, **options) as address,
    ):
        await router.execute("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY)", tenant="acme")
        yield router, address.url


async def test_console_shows_what_happens_while_it_is_open(browser: BrowserContext, tmp_path: Path) -> None:
    """Requests, failures and failovers appear without a reload; the page tells no error."""
    async with served(tmp_path) as (router, url), opened(browser) as seen:
        page = seen.page
        await enter(page, url)
        await expect(page.locator("#nodes tbody tr")).to_have_count(3)
        await page.evaluate("window.here = true")
        await router.fetch_all("SELECT * FROM items WHERE id = 4711", tenant="acme")
        row = page.locator("#requests tbody tr", has_text="select * from items where id = ?")
        await expect(row).to_contain_text("replica", timeout=WAIT)
        await expect(row).to_contain_text("read")
        await capture(router.fetch_all("SELECT nope FROM items", tenant="acme"))
        failed = page.locator("#failures tbody tr", has_text="select nope from items")
        await expect(failed).to_contain_text("InvalidStatement", timeout=WAIT)
        new, old = (Node(name, "main", Role.PRIMARY, "db", 1) for name in ("db-2", "db-1"))
        router.dispatcher.emit(PrimaryChanged(1.0, "main", new, old, ""))
        router.dispatcher.emit(BreakerChanged(2.0, old, True, 3, "ConnectionLost"))
        changes = page.locator("#changes tbody")
        await expect(changes).to_contain_text("db-2 is the primary, before it was db-1", timeout=WAIT)
        await expect(changes).to_contain_text("is left alone for a while: ConnectionLost, 3 in a row")
        assert await page.evaluate("window.here")  # it is the same page still
        assert "4711" not in await page.content()
        (cookie,) = await browser.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], TOKEN in cookie["value"]) == (True, "Lax", False)
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Token of the console")).to_be_focused()
        assert await browser.cookies() == []
        assert seen.wrong == []


async def test_console_shows_what_has_not_ended(browser: BrowserContext, tmp_path: Path) -> None:
    """A request that runs is seen with who makes it, until it ends."""
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with served(tmp_path) as (router, url), opened(browser) as seen:
        await enter(seen.page, url)
        with acting(actor="ada"):
            task = asyncio.create_task(router.fetch_all(slow, tenant="acme", timeout=60), name="report")
        running = seen.page.locator("#running tbody tr")
        await expect(running).to_contain_text("report", timeout=WAIT)
        await expect(running).to_contain_text("ada")
        task.cancel()
        await asyncio.wait((task,))
        await expect(running).to_have_text("No request is under way.", timeout=WAIT)


async def test_console_refuses_a_wrong_token(browser: BrowserContext, tmp_path: Path) -> None:
    """Who does not know it sees the form again and nothing else; after five tries he has to wait."""
    async with served(tmp_path) as (_, url), opened(browser) as seen:
        for _ in range(5):
            await log_in(seen.page, url, "wrong")
            await expect(seen.page.get_by_role("alert")).to_have_text("This is not the token.")
        await log_in(seen.page, url)
        await expect(seen.page.get_by_role("alert")).to_contain_text("Too many wrong tokens.")
        assert await seen.page.locator("#live").count() == 0
        assert TOKEN not in await seen.page.content()


async def test_console_shows_markup_as_text(browser: BrowserContext, tmp_path: Path) -> None:
    """Statements, errors, tasks and actors with markup are shown as they are, at first and later."""
    evil = f'SELECT 1 AS "{MARKUP}{SCRIPT}" FROM "{MARKUP}"'
    async with served(tmp_path) as (router, url), opened(browser) as seen:
        page = seen.page
        with acting(actor=MARKUP, context_id=SCRIPT):
            await capture(router.fetch_all(evil, tenant="acme"))
            await enter(page, url)
            await expect(page.locator("#failures")).to_contain_text(MARKUP, timeout=WAIT)
            await capture(router.fetch_all(evil, tenant="acme"))
            await expect(page.locator("#requests")).to_contain_text(MARKUP, timeout=WAIT)
            await expect(page.locator("#requests")).to_contain_text(SCRIPT)
        node = Node(MARKUP, "main", Role.REPLICA, "db", 1)
        router.dispatcher.emit(BreakerChanged(1.0, node, True, 3, SCRIPT))
        await expect(page.locator("#changes")).to_contain_text(SCRIPT, timeout=WAIT)
        assert await page.locator("main img, main script").count() == 0
        assert await page.title() != "owned"
        assert seen.wrong == []


async def test_console_keeps_what_the_reader_does(browser: BrowserContext, tmp_path: Path) -> None:
    """Opened details, a filter and the focus outlive an update; paused, nothing changes until it goes on."""
    async with served(tmp_path) as (router, url), opened(browser) as seen:
        page = seen.page
        await enter(page, url)
        await router.fetch_all("SELECT id FROM items", tenant="acme")
        await router.fetch_all("SELECT count(*) FROM items", tenant="acme")
        rows = page.locator("#requests tbody tr:visible")
        await expect(rows).to_have_count(2, timeout=WAIT)
        await page.get_by_role("searchbox").fill("select id")
        await expect(rows).to_have_count(1)
        await rows.locator("summary").focus()
        await page.keyboard.press("Enter")
        await expect(rows.locator("dd code").first).to_be_visible()
        before = await page.locator("#at").text_content()
        await expect(page.locator("#at")).not_to_have_text(before or "", timeout=WAIT)
        await expect(rows).to_have_count(1)
        await expect(rows.locator("summary")).to_be_focused()
        await expect(rows.locator("dd code").first).to_be_visible()
        await page.get_by_role("searchbox").fill("")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#state")).to_have_text("paused")
        await router.fetch_all("SELECT max(id) FROM items", tenant="acme")
        await asyncio.sleep(0.5)
        await expect(rows).to_have_count(2)
        await page.get_by_role("button", name="Go on").click()
        await expect(rows).to_have_count(3, timeout=WAIT)


async def test_console_says_when_the_connection_is_lost(browser: BrowserContext, tmp_path: Path) -> None:
    """It says so, dims what is old, and goes on by itself when the server is back."""
    async with opened(browser) as seen:
        async with served(tmp_path) as (_, url):
            port = int(url.rpartition(":")[2])
            await enter(seen.page, url)
        state = seen.page.locator("#state.bad")
        await expect(state).to_contain_text("Trying again", timeout=WAIT)
        await expect(seen.page.locator("#live")).to_contain_class("stale")
        async with served(tmp_path, port):
            await expect(seen.page.locator("#state")).to_have_text("live", timeout=WAIT)
            await expect(seen.page.locator("#live")).not_to_contain_class("stale")


async def test_console_can_be_read_by_everybody(browser: BrowserContext, tmp_path: Path) -> None:
    """In light and dark, on a phone and a wide screen, by keyboard and by who hears it."""
    many = f"SELECT id FROM items WHERE name_that_is_missing IN ({', '.join('1' * 200)})"
    async with served(tmp_path) as (router, url), opened(browser) as seen:
        page = seen.page
        await enter(page, url)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#live")).to_be_focused()  # the first link skips what is above it
        await capture(router.fetch_all(many, tenant="acme"))
        router.dispatcher.emit(BreakerChanged(1.0, Node("r1", "main", Role.REPLICA), True, 3, "Boom"))
        await expect(page.locator("#requests tr.error")).to_have_count(1, timeout=WAIT)
        await expect(page.locator("#changes .bad")).to_have_count(1)
        assert await page.evaluate(UNNAMED) == []  # every table and control has its name
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert await page.evaluate(CONTRAST) == []  # 4.5 to 1 at least, as WCAG AA asks for
            bright = await page.evaluate("luminance(parts(getComputedStyle(document.body).backgroundColor))")
            assert (bright > 0.5) is (scheme == "light")
        for width in (360, 1920):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_console_page_says_what_it_may_load(tmp_path: Path) -> None:
    """Scripts and styles come from here only, none is in the page, and nobody may frame it."""
    async with served(tmp_path) as (_, url), httpx.AsyncClient(base_url=url) as http:
        for header in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            page = await http.get("/console", headers=header)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert page.headers["cache-control"] == "no-store"
            assert " style=" not in page.text
            assert " on" not in page.text.partition("<body")[0]
        assert '<noscript><meta http-equiv="refresh"' in page.text  # without its script it is loaded again
        assert (await http.get("/console/stream")).status_code == 401
        assert (await http.get("/console/static/console.js")).status_code == 200
        assert (await http.get("/console/static/..%2fconsole.py")).status_code == 404


UNNAMED = """() => [
  ...[...document.querySelectorAll("table")].filter(
    (table) => !table.querySelector("thead th[scope=col]") || !table.closest("[aria-labelledby]")),
  ...[...document.querySelectorAll("input")].filter((input) => !input.labels.length && !input.ariaLabel),
  ...[...document.querySelectorAll("button, a, summary")].filter((each) => !each.textContent.trim()),
  ...[...document.querySelectorAll("svg")].filter((each) => !each.ariaHidden && !each.ariaLabel),
].map((each) => each.outerHTML.slice(0, 200))"""

CONTRAST = """() => {
  window.parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  window.luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim());
    if (!own || !element.checkVisibility({ checkVisibilityCSS: true })) continue;
    const [one, two] = [parts(getComputedStyle(element).color), behind(element)].map(luminance);
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (contrast < 4.5) poor.push([element.className, element.textContent.slice(0, 40), contrast]);
  }
  return poor;
}"""
