"""Tenants in a table: the same verbs as on files, on every engine that the table may be on."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from router import Router, onboarding
from router.cli.app import app
from router.errors import ConfigurationError, TenantSuspended, UnknownTenant, UsageError
from router.statements import Dialect
from router.tenant_table import ddl, texts
from tests.engines import Engine, make

DIALECTS = {"sqlite": Dialect.SQLITE, "postgresql": Dialect.POSTGRESQL, "mariadb": Dialect.MYSQL}


class Place:
    """Hold an engine whose tenant ``control`` has the database of the table."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.content = {name: {"cluster": "main", **engine.tenant(name)} for name in ("acme", "globex")}
        control = {"tenant": "control", "cluster": "main", **engine.tenant("control")}
        document = engine.document(
            (), catalog={"table": {"cluster": "main", "database": control["database"]}}
        )
        document.pop("tenants")
        if engine.dialect == "sqlite":
            document["clusters"]["main"]["primary"] = {"path": str(engine.folder / "data")}
        (folder / "tenants").mkdir()
        (folder / "router.yaml").write_text(yaml.safe_dump(document))
        (folder / "tenants" / "control.yaml").write_text(yaml.safe_dump(control))
        self.texts = texts(DIALECTS[engine.id], "router_tenants")

    async def create(self) -> None:
        """Create the table."""
        async with Router.open(self.folder) as router:
            for text in ddl(DIALECTS[self.engine.id]):
                await router.execute_raw(text, tenant="control")

    async def put(self, tenant: str, settings: Any) -> None:
        """Write a tenant's row, right or wrong."""
        async with Router.open(self.folder) as router:
            given = {"tenant": tenant, "settings": json.dumps(settings)}
            await router.execute(self.texts.put, given, tenant="control")


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    engine = make(request.param, tmp_path_factory.mktemp("engine"), request)
    engine.create("control", "acme", "globex")
    made = Place(engine, tmp_path_factory.mktemp("rows"))
    asyncio.run(made.create())
    yield made
    engine.drop()


async def test_a_row_goes_through_a_tenants_life(place: Place) -> None:
    """Taken in, served, suspended, resumed, removed and taken in again; each is one change of one row."""
    folder, content = place.folder, {"tenant": "acme", **place.content["acme"]}
    assert "row acme" not in (await onboarding.add(folder, content)).where
    async with Router.open(folder) as router:
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1
    with pytest.raises(UsageError, match="has the tenant acme already"):
        await onboarding.add(folder, content)
    assert (await onboarding.show(folder, "acme")).where.endswith("row acme")
    assert await onboarding.suspend(folder, "acme")
    assert not await onboarding.suspend(folder, "acme")
    async with Router.open(folder) as router:
        with pytest.raises(TenantSuspended):
            await router.fetch_value("SELECT 1", tenant="acme")
    assert await onboarding.resume(folder, "acme")
    assert [each.tenant for each in (await onboarding.every(folder)).tenants] == ["acme", "control"]
    await onboarding.remove(folder, "acme")
    for verb in (onboarding.suspend, onboarding.resume, onboarding.remove, onboarding.show):
        with pytest.raises(UnknownTenant):
            await verb(folder, "acme")
    assert [each.tenant for each in (await onboarding.every(folder)).tenants] == ["control"]
    await onboarding.add(folder, content)  # where an empty row is left
    await onboarding.remove(folder, "acme")


async def test_a_place_that_another_row_has_is_refused(place: Place) -> None:
    """All rows are looked at before one is added: nobody gets what another tenant has."""
    folder = place.folder
    await onboarding.add(folder, {"tenant": "acme", **place.content["acme"]})
    with pytest.raises(ConfigurationError, match="acme"):
        await onboarding.add(folder, {**place.content["acme"], "tenant": "thief"})
    with pytest.raises(ConfigurationError, match="control"):
        await onboarding.add(folder, {**place.engine.tenant("control"), "cluster": "main", "tenant": "thief"})
    with pytest.raises(UsageError, match="has a file"):
        await onboarding.add(folder, {**place.content["acme"], "tenant": "control"})
    await onboarding.remove(folder, "acme")
    assert (await onboarding.suspend(folder, "control"), await onboarding.resume(folder, "control")) == (
        True,
        True,
    )


async def test_who_is_quicker_wins(place: Place) -> None:
    """Of several who add the same tenant at once one does, and the others are refused."""
    content = {"tenant": "acme", **place.content["acme"]}
    found = await asyncio.gather(
        *(onboarding.add(place.folder, content) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(each, onboarding.Added) for each in found) == 1, found
    assert sum(isinstance(each, UsageError) for each in found) == 2
    await onboarding.remove(place.folder, "acme")


async def test_a_wrong_row_is_told_and_can_be_removed(place: Place) -> None:
    """The list shows all others and says what is wrong; it is no obstacle to anybody."""
    await place.put("acme", {"cluster": "nowhere"})
    await onboarding.add(place.folder, {"tenant": "globex", **place.content["globex"]})
    listing = await onboarding.every(place.folder)
    assert [each.tenant for each in listing.tenants] == ["control", "globex"]
    assert "router_tenants.acme" in str(listing.refused[0])
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["tenants", "list", "--config", str(place.folder), "--json"]
    )
    assert shown.exit_code == 1
    assert [each["tenant"] for each in json.loads(shown.stdout)["tenants"]] == ["control", "globex"]
    with pytest.raises(ConfigurationError):
        await onboarding.suspend(place.folder, "acme")
    for tenant in ("acme", "globex"):
        await onboarding.remove(place.folder, tenant)
