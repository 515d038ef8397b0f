"""Tenants that have no file: looked up in a table or by a function, or following a pattern."""

import asyncio
import gc
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router import Router
from router.config import Config, TableConfig, parse
from router.errors import (
    CatalogUnavailable,
    ConfigurationError,
    TenantNotAsked,
    TenantSuspended,
    UnknownTenant,
)
from router.events import CatalogChanged, LookupRefused, TenantChanged, TenantRefused
from router.metrics.families import Family
from router.metrics.merging import merged
from router.statements import Dialect
from router.table_source import TableSource
from router.tenant_table import ddl, texts
from tests.auditing import writes
from tests.doubles import Server, opened
from tests.engines import Recorder

SQLITE = texts(Dialect.SQLITE, "router_tenants")


def described(name: str, **more: Any) -> dict[str, Any]:
    """Return what a source says of a tenant."""
    return {"cluster": "main", "isolation": "database", "database": name, **more}


def config(
    place: Path, *, patterns: Any = (), tenants: Any = None, observability: Any = None, **catalog: Any
) -> Config:
    """Return a configuration of one SQLite cluster whose tenant ``control`` has the database of the table."""
    control = {"cluster": "main", "isolation": "database", "database": "control"}
    return parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(place)}, "readers": 1}},
            "tiers": {"gold": {"timeouts": {"statement": "7s"}}},
            "tenants": {"control": control, **(tenants or {})},
            "patterns": list(patterns),
            "catalog": catalog,
            "observability": observability or {},
        },
        place,
    )


class Control:
    """Write the table of tenants."""

    def __init__(self, router: Router) -> None:
        self.router = router

    async def create(self) -> None:
        """Create the table."""
        for text in ddl(Dialect.SQLITE):
            await self.router.execute_raw(text, tenant="control")

    async def put(self, tenant: str, **settings: Any) -> None:
        """Write a tenant's row."""
        given = {"tenant": tenant, "settings": json.dumps(settings)}
        await self.router.execute(SQLITE.put, given, tenant="control")


@asynccontextmanager
async def tabled(folder: Path, **catalog: Any) -> AsyncIterator[tuple[Router, Control]]:
    """Open a router with a table of tenants."""
    table = {"cluster": "main", "database": "control", "poll": "50ms"}
    async with Router.open(config(folder, **{"table": table, **catalog})) as router:
        control = Control(router)
        await control.create()
        yield router, control


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.005)


# --- asking ----------------------------------------------------------------------------------------------


async def test_a_tenant_of_the_table_is_served(tmp_path: Path) -> None:
    """A session looks its tenant up when it is entered; the one-shot forms do by themselves."""
    async with tabled(tmp_path) as (router, control):
        await control.put("acme", **described("acme"), tier="gold", schemas={"more": "more"})
        await router.execute("CREATE TABLE t (a)", tenant="acme")
        async with router.session("acme") as session:
            await session.execute("INSERT INTO t VALUES (1)")
            async with session.transaction() as transaction:
                await transaction.execute("INSERT INTO t VALUES (2)")
            assert (session.tenant, session.schema) == ("acme", None)
        assert await router.fetch_value("SELECT sum(a) FROM t", tenant="acme") == 3
        assert [row[0] async for row in router.stream("SELECT a FROM t", tenant="acme")] == [1, 2]
        assert (await router.find("acme")).settings.statement_timeout == 7.0
        assert router.explain("SELECT 1", tenant="acme", schema="more").physical_schema == "more"


async def test_a_tenant_is_asked_for_once(tmp_path: Path) -> None:
    """Who asks at the same time shares one question, and afterwards nobody asks."""
    asked: list[str] = []

    async def find(tenant: str) -> dict[str, Any] | None:
        asked.append(tenant)
        await asyncio.sleep(0.01)
        return described(tenant)

    async with Router.open(config(tmp_path), catalog=find) as router:
        await asyncio.gather(*(router.fetch_all("SELECT 1", tenant="acme") for _ in range(20)))
        assert asked == ["acme"]
        session = router.session("acme")  # known by now: nothing is left to wait for
        async with session.transaction() as transaction:
            await transaction.fetch_all("SELECT 1")
        assert asked == ["acme"]


async def test_that_there_is_no_such_tenant_is_believed_for_a_while(tmp_path: Path) -> None:
    """A missing tenant is asked for once in the time of ``negative``; an impossible id is never asked for."""
    asked: list[str] = []
    now = [1000.0]

    def find(tenant: str) -> None:
        asked.append(tenant)

    async with Router.open(config(tmp_path, negative="5s"), catalog=find) as router:
        router._finder.found._clock = lambda: now[0]  # type: ignore[union-attr]
        for _ in range(3):
            with pytest.raises(UnknownTenant):
                await router.fetch_all("SELECT 1", tenant="nobody")
        with pytest.raises(UnknownTenant):  # known to be missing: said at once
            router.session("nobody")
        for impossible in ("../etc", "A", "", "a" * 64, None):
            with pytest.raises(UnknownTenant):
                await router.fetch_all("SELECT 1", tenant=impossible)  # type: ignore[arg-type]
        assert asked == ["nobody"]
        now[0] += 5.1
        with pytest.raises(UnknownTenant):
            await router.fetch_all("SELECT 1", tenant="nobody")
        assert asked == ["nobody"] * 2


async def test_what_needs_the_tenant_at_once_says_so(tmp_path: Path) -> None:
    """Before a session is entered, what cannot wait raises TenantNotAsked and not something strange."""
    async with Router.open(config(tmp_path), catalog=lambda tenant: described(tenant)) as router:
        session = router.session("acme")
        with pytest.raises(TenantNotAsked, match="async with"):
            session.transaction()
        with pytest.raises(TenantNotAsked, match="find"):
            router.explain("SELECT 1", tenant="acme")
        assert (session.tenant, session.schema) == ("acme", None)
        assert repr(session) == "<Session acme not yet asked for>"
        assert not hasattr(session, "nonsense")
        async with session:
            assert repr(session) == "<Session acme open>"
        await router.session("globex").close()


async def test_a_suspended_tenant_of_the_table_is_refused(tmp_path: Path) -> None:
    """It is known, and nothing is sent for it; its configuration may still be looked at."""
    async with tabled(tmp_path) as (router, control):
        await control.put("acme", **described("acme"), suspended=True)
        for _ in range(2):
            with pytest.raises(TenantSuspended):
                await router.fetch_all("SELECT 1", tenant="acme")
        assert (await router.find("acme")).suspended


# --- mistakes and failures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster": "other", "isolation": "database", "database": "x"}, "'other' is not in router.yaml"),
        ({**described("x"), "teir": "gold"}, "unknown key"),
        ({**described("x"), "tenant": "globex"}, "but the name is 'acme'"),
        (described("control"), "the tenant 'control' has too"),
        (described("${env:HOME}"), "not a valid"),
        ({**described("x"), "timeouts": {"statement": "1h"}}, "longer than that of any tier"),
        ([], "must be a mapping"),
    ],
)
async def test_a_mistake_in_what_is_found_is_an_error(tmp_path: Path, settings: Any, words: str) -> None:
    """A tenant with a mistake is never served by a default; the mistake is told once, with its place."""
    async with Router.open(config(tmp_path), catalog=lambda tenant: settings) as router:
        heard = Recorder(router)
        for _ in range(3):
            with pytest.raises(ConfigurationError, match=words) as caught:
                await router.fetch_all("SELECT 1", tenant="acme")
            assert caught.value.problems[0].file.startswith("catalog.acme")
        assert [event.tenant for event in heard.of(TenantRefused)] == ["acme"]


async def test_two_found_tenants_never_share_a_place(tmp_path: Path) -> None:
    """The second one is refused, until the first has left."""
    rows = {"acme": described("one"), "globex": described("one")}
    async with Router.open(config(tmp_path), catalog=rows.get) as router:
        await router.fetch_all("SELECT 1", tenant="acme")
        with pytest.raises(ConfigurationError, match="'acme' has too"):
            await router.fetch_all("SELECT 1", tenant="globex")
        rows["acme"] = described("two")
        router._finder.heard("acme")  # type: ignore[union-attr]
        await until(lambda: router._executor.targets.catalog.tenant("acme").database == "two")  # type: ignore[union-attr]
        router._finder.heard("globex")  # type: ignore[union-attr]
        await router.fetch_all("SELECT 1", tenant="globex")


async def test_while_the_source_fails_the_known_are_served(tmp_path: Path) -> None:
    """Who is known goes on, whatever changes; who is not known gets an error that may be retried."""
    failing: list[bool] = []

    def find(tenant: str) -> dict[str, Any]:
        if failing:
            raise ConnectionError("the canary password")
        return described(tenant)

    async with Router.open(config(tmp_path), catalog=find) as router:
        heard = Recorder(router)
        await router.fetch_all("SELECT 1", tenant="acme")
        failing.append(True)
        for _ in range(2):
            with pytest.raises(CatalogUnavailable, match="ConnectionError") as caught:
                await router.fetch_all("SELECT 1", tenant="globex")
            assert caught.value.retryable and "canary" not in str(caught.value)
        router._finder.heard("acme")  # type: ignore[union-attr]
        await until(lambda: router._finder.counts["failed"] == 3)  # type: ignore[union-attr]
        await router.fetch_all("SELECT 1", tenant="acme")
        failing.clear()
        await router.fetch_all("SELECT 1", tenant="globex")
        assert [(each.usable, each.error) for each in heard.of(CatalogChanged)] == [
            (False, "ConnectionError"),
            (True, ""),
        ]


async def test_its_metrics_are_told_with_all_others(tmp_path: Path) -> None:
    """Of one process, and as several processes show theirs as one: the worst counts, questions add up."""

    def shown(router: Router) -> dict[str, Family]:
        names = {f"router_catalog_{name}" for name in ("lookups", "tenants", "usable")}
        return {each.name: each for each in router.metrics.families() if each.name in names}

    def absent(tenant: str) -> None:
        raise ConnectionError

    async with (
        Router.open(config(tmp_path), catalog=described) as one,
        Router.open(config(tmp_path), catalog=absent) as two,
    ):
        await one.find("acme")
        await one.find("globex")
        with pytest.raises(CatalogUnavailable):
            await two.find("acme")
        mine, other = shown(one), shown(two)
        both = {name: merged("router_", each, [other[name]], []) for name, each in mine.items()}
        assert {
            (sample.name, *sample.labels.values()): sample.value
            for family in both.values()
            for sample in family.samples
            if sample.value or not sample.labels
        } == {
            ("router_catalog_lookups_total", "found"): 2,
            ("router_catalog_lookups_total", "failed"): 1,
            ("router_catalog_tenants",): 2,
            ("router_catalog_usable",): 0,
        }
        assert b"router_catalog_usable 1.0" in one.metrics.render()


async def test_a_source_that_does_not_answer_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    """The session's own timeout bounds its wait, ``catalog.timeout`` the question."""
    never = asyncio.Event()

    async def find(tenant: str) -> None:
        await never.wait()

    async with Router.open(config(tmp_path, timeout="50ms"), catalog=find) as router:
        for limit in (0.01, None):
            with pytest.raises(CatalogUnavailable, match="TimeoutError"):
                async with router.session("acme", timeout=limit):
                    raise AssertionError
        first = asyncio.create_task(router.find("globex"))
        await asyncio.sleep(0)
        first.cancel()  # who shares the question goes on
        with pytest.raises(CatalogUnavailable):
            await router.find("globex")


# --- changes ---------------------------------------------------------------------------------------------


async def test_changes_of_the_table_are_found_by_polling(tmp_path: Path) -> None:
    """New settings hold for new sessions, a removed tenant is unknown, an added one is found at once."""
    async with tabled(tmp_path, negative="1h") as (router, control):
        heard = Recorder(router)
        await control.put("acme", **described("one"))
        session = router.session("acme")
        await session.execute("CREATE TABLE one (a)")
        await control.put("acme", **described("two"))
        await until(lambda: heard.of(TenantChanged))
        await router.execute("CREATE TABLE two (a)", tenant="acme")
        assert await session.fetch_all("SELECT * FROM one") == []  # it keeps the place that it began with
        with pytest.raises(UnknownTenant):
            await router.find("globex")
        await control.put("globex", **described("three"))
        await until(lambda: "globex" not in router._finder.found._missing)  # type: ignore[union-attr]
        await router.fetch_all("SELECT 1", tenant="globex")
        await router.execute(SQLITE.remove, {"tenant": "acme"}, tenant="control")
        await until(lambda: len(heard.of(TenantChanged)) > 1)
        with pytest.raises(UnknownTenant):
            router.session("acme")
        assert [(event.tenant, event.gone) for event in heard.of(TenantChanged)] == [
            ("acme", False),
            ("acme", True),
        ]


async def test_a_mistake_leaves_the_last_good_one(tmp_path: Path) -> None:
    """A known tenant whose row is spoiled goes on as it was, and that is told."""
    async with tabled(tmp_path) as (router, control):
        heard = Recorder(router)
        await control.put("acme", **described("acme"))
        await router.fetch_all("SELECT 1", tenant="acme")
        await control.put("acme", **described("acme"), tier="golden")
        await until(lambda: heard.of(TenantRefused))
        await router.fetch_all("SELECT 1", tenant="acme")
        assert "'golden' is not in router.yaml" in heard.of(TenantRefused)[0].problems[0]


async def test_what_is_kept_is_bounded_and_asked_for_again(tmp_path: Path) -> None:
    """The tenant found first leaves for a new one; those that stay are asked for again after ``refresh``."""
    asked: list[str] = []

    def find(tenant: str) -> dict[str, Any]:
        asked.append(tenant)
        return described(f"db_{tenant}")

    async with Router.open(config(tmp_path, cache=3, refresh="200ms"), catalog=find) as router:
        for number in range(5):
            await router.find(f"t{number}")
        found = router._executor.targets.catalog.found  # type: ignore[union-attr]
        assert found.tenants() == ("t2", "t3", "t4")
        await until(lambda: len(asked) >= 8)
        assert sorted(asked[5:8]) == ["t2", "t3", "t4"]
        assert found.tenants() == ("t2", "t3", "t4")


# --- patterns --------------------------------------------------------------------------------------------


APP = {"match": "[a-z0-9]+", "cluster": "main", "isolation": "database", "database": "app_{tenant}"}


async def test_a_pattern_makes_tenants(tmp_path: Path) -> None:
    """Who the allow-list accepts is a tenant without a file; an explicit one wins, all others are unknown."""
    (tmp_path / "ids").write_text("one\n\ntwo-3\n")
    patterns = [
        APP,
        {"tenants": ["b-c"], "cluster": "main", "isolation": "database", "database": "x", "tier": "gold"},
        {"file": "ids", "cluster": "main", "isolation": "database", "database": "never_{tenant}"},
    ]
    patterns[1]["database"] = "x_{tenant}"
    own = {"acme": {"cluster": "main", "isolation": "database", "database": "own"}}
    async with Router.open(config(tmp_path, patterns=patterns, tenants=own)) as router:
        places = {
            name: router.explain("SELECT 1", tenant=name).database for name in ("acme", "globex", "one")
        }
        assert places == {"acme": "own", "globex": "app_globex", "one": "app_one"}
        await router.execute("CREATE TABLE t (a)", tenant="globex")
        assert (tmp_path / "app_globex.db").exists()
        with pytest.raises(UnknownTenant):
            router.session("not_accepted")
        for refused in ("b-c", "two-3"):  # no character is replaced: two ids would meet in one place
            with pytest.raises(ConfigurationError, match=r"patterns\[.\].*not a valid database"):
                router.session(refused)


async def test_a_pattern_never_shares_a_place(tmp_path: Path) -> None:
    """Whoever has the place already is named, of a file or of another pattern."""
    versions = {**APP, "match": "app_[a-z]+", "database": "{tenant}"}
    own = {"own_one": {"cluster": "main", "isolation": "database", "database": "app_two2"}}
    async with Router.open(config(tmp_path, patterns=[APP, versions], tenants=own)) as router:
        with pytest.raises(ConfigurationError, match="'own_one' has too"):
            router.session("two2")
        with pytest.raises(ConfigurationError, match="'three' has too"):
            router.session("app_three")
        with pytest.raises(ConfigurationError, match="'app_three' has too"):
            router.session("three")
        router.session("four4")  # no other pattern accepts what would be there


async def test_a_found_tenant_never_has_the_place_of_a_pattern(tmp_path: Path) -> None:
    """What a table says cannot put a tenant where a pattern would put another one."""
    patterns = [{**APP, "match": "acme"}]
    async with Router.open(
        config(tmp_path, patterns=patterns), catalog={"globex": described("app_acme")}.get
    ) as router:
        router.session("acme")
        with pytest.raises(ConfigurationError, match="'acme' has too"):
            await router.find("globex")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"match": None}, "no 'match', 'tenants' or 'file'"),
        ({"tenants": ["a"]}, "has match and tenants"),
        ({"match": "("}, "no regular expression"),
        ({"database": "app"}, "puts all its tenants into one place"),
        ({"database": "{tenant}_{tenant}"}, "other braces"),
        ({"database": "{id}"}, "other braces"),
        ({"database": "App_{tenant}"}, "not a valid database"),
        ({"cluster": "other"}, "'other' is not in router.yaml"),
        ({"tier": "golden"}, "'golden' is not in router.yaml"),
        ({"isolation": "schema"}, "SQLite has no schemas"),
        ({"match": None, "file": "nowhere"}, "cannot be read"),
        ({"match": None, "file": "ids"}, "has in line 2"),
    ],
)
def test_what_a_pattern_may_not_say(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Mistakes of a pattern show when the configuration is loaded, before any tenant asks."""
    (tmp_path / "ids").write_text("good\nNot Good\n")
    pattern = {key: value for key, value in {**APP, **changes}.items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        config(tmp_path, patterns=[pattern])
    told = list(map(str, caught.value.problems))
    assert len(told) == 1 and told[0].startswith("patterns[0]") and words in told[0], told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster": "other"}, "'other' is not in router.yaml"),
        ({"notify": True}, "has no NOTIFY"),
        ({"schema": "x"}, "the engine is sqlite"),
    ],
)
def test_what_a_table_may_not_say(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """A table that its cluster cannot serve is refused when the configuration is loaded."""
    with pytest.raises(ConfigurationError) as caught:
        config(tmp_path, table={"cluster": "main", "database": "control", **changes})
    assert len(caught.value.problems) == 1 and words in str(caught.value)
    assert caught.value.problems[0].file.startswith("catalog.table.")


async def test_who_has_left_is_served_to_the_end(tmp_path: Path) -> None:
    """A session goes on when its tenant has left memory or is no more, with the cache in use as well."""
    rows = {name: described(name, schemas={"more": f"{name}_more"}) for name in ("acme", "globex")}
    async with (
        Router.open(config(tmp_path, cache=1), catalog=rows.get) as router,
        router.session("acme") as session,
    ):
        await session.execute("CREATE TABLE t (a)")
        await router.execute("CREATE TABLE t (a)", tenant="globex")  # acme leaves for it
        assert await session.fetch_all("SELECT * FROM t", cache=60) == []
        await session.execute("INSERT INTO t VALUES (1)")
        assert [tuple(row) for row in await session.fetch_all("SELECT * FROM t", cache=60)] == [(1,)]
        del rows["acme"]
        with pytest.raises(UnknownTenant):
            await router.find("acme")
        await session.execute("INSERT INTO t VALUES (2)")
        assert len(await session.fetch_all("SELECT * FROM t", cache=60)) == 2


async def test_the_writes_of_who_has_left_are_recorded(tmp_path: Path) -> None:
    """The journal has a session's writes also when its tenant is no more in memory, or no more at all."""
    rows = {name: described(name) for name in ("acme", "globex")}
    given = {"audit": {"key": "a-key-of-the-tests-only", "trail": {"folder": str(tmp_path / "journal")}}}
    async with (
        Router.open(config(tmp_path, cache=1, observability=given), catalog=rows.get) as router,
        router.session("acme") as session,
    ):
        await session.execute("CREATE TABLE t (a)")
        await router.find("globex")  # acme leaves for it
        await session.execute("INSERT INTO t VALUES (1)")
        async with session.transaction() as transaction:
            await transaction.execute("INSERT INTO t VALUES (2)")
            del rows["acme"]
            router._finder.heard(None)  # type: ignore[union-attr]
        with pytest.raises(UnknownTenant):
            await router.find("acme")
        await session.execute("INSERT INTO t VALUES (3)")
    assert [(each["tenant"], each["kind"]) for each in writes(tmp_path / "journal")] == [
        ("acme", kind) for kind in ("ddl", "write", "write", "write")
    ]


async def test_a_reload_holds_for_tenants_without_a_file(tmp_path: Path) -> None:
    """Who was found or follows a pattern gets new defaults; a file wins over both, and takes the place."""
    rows = {name: described(name) for name in ("acme", "globex")}
    before = config(tmp_path, patterns=[APP | {"match": "p[0-9]"}])
    async with Router.open(before, catalog=rows.get) as router:
        for tenant in ("acme", "globex", "p1", "p2"):
            await router.fetch_all("SELECT 1", tenant=tenant)
        session = router.session("globex")
        own = {"p1": described("p1_own", tier="gold"), "hooli": described("globex")}
        after = config(tmp_path, patterns=[APP | {"match": "p[0-9]", "tier": "gold"}], tenants=own)
        await router.reload(after)
        places = {name: router.explain("SELECT 1", tenant=name).database for name in ("p1", "p2", "hooli")}
        assert places == {"p1": "p1_own", "p2": "app_p2", "hooli": "globex"}
        assert (await router.find("p2")).settings.statement_timeout == 7.0
        await session.fetch_all("SELECT 1")  # it goes on where it was
        with pytest.raises(ConfigurationError, match="'hooli' has too"):
            await router.find("globex")
        await router.fetch_all("SELECT 1", tenant="acme")


async def test_a_folder_is_read_when_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of ``catalog.folder`` are read one by one, and again when they have changed."""
    monkeypatch.setattr("router.table_source.POLL", 0.02)
    folder = tmp_path / "customers"
    folder.mkdir()
    text = "cluster: main\nisolation: database\ndatabase: {0}\n"
    (folder / "acme.yaml").write_text(text.format("one"))
    (folder / "bad.yaml").write_text("cluster: [main\n")
    async with Router.open(config(tmp_path, folder="customers", negative="1h")) as router:
        heard = Recorder(router)
        assert (await router.find("acme")).database == "one"
        for tenant, error in (("bad", ConfigurationError), ("globex", UnknownTenant)):
            with pytest.raises(error):
                await router.find(tenant)
        (folder / "globex.yaml").write_text(text.format("two"))
        (folder / "acme.yaml").unlink()
        await until(lambda: heard.of(TenantChanged))
        await until(lambda: "globex" not in router._finder.found._missing)  # type: ignore[union-attr]
        assert (await router.find("globex")).database == "two"
        with pytest.raises(UnknownTenant):
            router.session("acme")
        assert not heard.of(CatalogChanged)


@pytest.mark.parametrize(
    ("given", "words"), [("nowhere", "is no folder"), ("tenants", "all loaded at the start")]
)
def test_what_a_folder_of_tenants_may_not_be(tmp_path: Path, given: str, words: str) -> None:
    """A folder that is not there, or whose files are loaded anyway, is refused."""
    (tmp_path / "tenants").mkdir()
    with pytest.raises(ConfigurationError, match=words):
        config(tmp_path, folder=given)


async def test_settings_that_are_no_json_are_a_mistake_of_their_tenant(tmp_path: Path) -> None:
    """One spoiled row is refused; the table is not taken for broken."""
    async with tabled(tmp_path) as (router, control):
        heard = Recorder(router)
        await control.put("acme", **described("acme"))
        for text in ("{", "[]", '{"cluster": "main", "cluster": "main"}'):
            await router.execute(SQLITE.put, {"tenant": "spoiled", "settings": text}, tenant="control")
            with pytest.raises(ConfigurationError, match="it has settings"):
                await router.find("spoiled")
        await router.find("acme")
        assert [event.tenant for event in heard.of(TenantRefused)] == ["spoiled"]
        assert not heard.of(CatalogChanged)


async def test_who_is_not_found_is_told(tmp_path: Path) -> None:
    """Who has waited for a look-up is refused by what came of it, and that is told as any other refusal."""
    async with Router.open(config(tmp_path, negative="100ms"), catalog={}.get) as router:
        heard = Recorder(router)
        for _ in range(3):
            with pytest.raises(UnknownTenant):
                await router.fetch_all("SELECT 1", tenant="nobody")
        assert [event.error for event in heard.of(LookupRefused)] == ["UnknownTenant"] * 3


async def test_a_router_that_nobody_closed_asks_no_more(tmp_path: Path) -> None:
    """What runs beside requests ends with the router, also when it is only collected."""
    router = Router(config(tmp_path), catalog={"acme": described("acme")}.get)
    await router.connect()
    await router.find("acme")
    finder = router._finder
    with pytest.warns(ResourceWarning, match="not closed"):
        del router
        gc.collect()
    await until(lambda: finder is not None and all(task.done() for task in finder._tasks))


async def test_a_replica_is_asked_while_there_is_no_primary(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant is found in time while its table's cluster waits for a primary; a change may show later."""
    monkeypatch.setattr("router.table_source.decode", lambda text: {"answered by": text})
    async with opened() as router:
        table = TableConfig(cluster="main", database="control")
        source = TableSource(
            router._running(),
            router._backends["main"],
            table,
            patience=0.05,
            clock=time.monotonic,
            rng=random.Random(7),
        )
        assert await source.find("acme") == {"answered by": "primary"}
        server.down.add("primary")
        for connection in server.open:
            connection.terminate()
        found = await source.find("acme")
        assert found is not None and found["answered by"] in ("r1", "r2")
