"""A table of tenants on real servers: changes are heard by NOTIFY, or found by asking."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router import Router
from router.config import parse
from router.errors import ConfigurationError, UnknownTenant
from router.events import TenantChanged
from router.statements import Dialect
from router.tenant_table import ddl, decode, texts
from tests.engines import Engine, Recorder, make


class Place:
    """Hold an engine whose tenant ``control`` has the database of the table."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.database = engine.tenant("control")["database"]
        self.dialect = Dialect.POSTGRESQL if engine.dialect == "postgresql" else Dialect.MYSQL
        self.texts = texts(self.dialect, "router_tenants")

    @asynccontextmanager
    async def open(self, **table: Any) -> AsyncIterator[Router]:
        """Open a router that looks tenants up in the table."""
        given = {"cluster": "main", "database": self.database, **table}
        document = self.engine.document(("control",), catalog={"table": given, "negative": "1h"})
        async with Router.open(parse(document, self.engine.folder)) as router:
            yield router

    async def put(self, router: Router, tenant: str, **more: Any) -> None:
        """Write a tenant's row."""
        settings = {"cluster": "main", **self.engine.tenant(tenant), **more}
        given = {"tenant": tenant, "settings": json.dumps(settings)}
        await router.execute(self.texts.put, given, tenant="control")

    async def create(self) -> None:
        """Create the table."""
        async with self.open() as router:
            for text in ddl(self.dialect):
                await router.execute_raw(text, tenant="control")


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    engine = make(request.param, tmp_path_factory.mktemp("catalog"), request)
    engine.create("control", "acme", "globex")
    place = Place(engine)
    asyncio.run(place.create())
    yield place
    engine.drop()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)


async def test_a_table_on_a_server(place: Place) -> None:
    """Its tenants are served; what is changed, removed and added is found out by asking."""
    async with place.open(poll="100ms") as router:
        heard = Recorder(router)
        await place.put(router, "acme")
        await router.fetch_all("SELECT 1", tenant="acme")
        with pytest.raises(UnknownTenant):
            await router.find("globex")
        await place.put(router, "acme", suspended=True)
        await place.put(router, "globex")
        await until(lambda: heard.of(TenantChanged))
        assert (await router.find("acme")).suspended
        await until(lambda: "globex" not in router._finder.found._missing)  # type: ignore[union-attr]
        await router.fetch_all("SELECT 1", tenant="globex")
        page = await router.fetch_all(place.texts.page, {"after": "", "most": 10}, tenant="control")
        assert [(row[0], decode(row[1])["cluster"]) for row in page] == [("acme", "main"), ("globex", "main")]
        for tenant in ("acme", "globex"):
            await router.execute(place.texts.remove, {"tenant": tenant}, tenant="control")
        await until(lambda: len(heard.of(TenantChanged)) == 3)
        with pytest.raises(UnknownTenant):
            router.session("acme")


async def test_changes_are_heard_by_notify(place: Place) -> None:
    """A change, a new tenant and a deleted row are known at once, also after a lost connection."""
    if place.dialect is not Dialect.POSTGRESQL:
        with pytest.raises(ConfigurationError, match="no NOTIFY"):
            async with place.open(notify=True):
                pass
        return
    async with place.open(notify=True, poll="1h") as router:
        heard = Recorder(router)
        found = router._finder.found  # type: ignore[union-attr]
        with pytest.raises(UnknownTenant):
            await router.find("acme")
        listening = (
            "SELECT pid FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()"
        )
        pids: list[int] = []

        async def listens() -> None:
            while not (rows := await router.fetch_all(listening, tenant="control", primary=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            pids[:] = [row[0] for row in rows]

        await listens()
        await place.put(router, "acme")
        await until(lambda: "acme" not in found._missing)
        await router.fetch_all("SELECT 1", tenant="acme")
        place.engine.server.run(f"SELECT pg_terminate_backend({pids[0]})", place.database)
        await place.put(router, "acme", suspended=True)  # while nobody listens
        await until(lambda: heard.of(TenantChanged))
        assert (await router.find("acme")).suspended
        await listens()
        await router.execute("DELETE FROM router_tenants", tenant="control")
        await until(lambda: len(heard.of(TenantChanged)) == 2)
        with pytest.raises(UnknownTenant):
            router.session("acme")
