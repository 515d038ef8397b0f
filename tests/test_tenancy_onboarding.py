"""Taking tenants in, suspending them and letting them go: one file at a time, whole or not at all."""

import asyncio
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from router import Router, onboarding
from router.config import Config, SettingsConfig, load
from router.config.folder import held
from router.config.origins import SETTINGS
from router.config.problems import Flaw
from router.config.reader import read_string
from router.config.section import Section
from router.config.writing import marked, written
from router.errors import ConfigurationError, TenantSuspended, UnknownTenant, UsageError
from router.events import LookupRefused
from router.provisioning import Provision
from router.testing import record

ROUTER = """\
version: 1
clusters:
  main:
    engine: sqlite
    primary: {path: data}
  orders:
    engine: mariadb
    primary: {host: 127.0.0.1, port: 1}
    credentials: {writer: {username: app, password: canary-71aa}}
  shared:
    engine: postgresql
    primary: {host: 127.0.0.1, port: 1}
    database: app
    credentials: {writer: {username: app, password: canary-71aa}, reader: {username: ro}}
defaults:
  timeouts: {acquire: 3s, statement: 20s}
  cache: {dependencies: {orders: [stock]}}
tiers:
  gold: {timeouts: {statement: 1m}, limits: {weight: 4}}
"""
ACME = """\
# Acme pays by the year.
tenant: acme
cluster: main  # the embedded one
isolation: database
database: acme

tier: gold
limits: {rate: 50}
cache: {dependencies: {visits: []}}
"""
GLOBEX = {"tenant": "globex", "cluster": "main", "isolation": "database"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a configuration with one tenant."""
    (tmp_path / "tenants").mkdir()
    (tmp_path / "router.yaml").write_text(ROUTER)
    (tmp_path / "tenants" / "acme.yaml").write_text(ACME)
    return tmp_path


def files(folder: Path) -> list[str]:
    """Return the names of all that is in the folder of tenants, drafts included."""
    return sorted(os.listdir(folder / "tenants"))


# --- the text of a file ----------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=("Cs", "Cc")))
    | st.sampled_from(
        ["no", "1e5", "22:22", "0x1f", "", "~", "null", "a: b", "# c", "${env:X}", "2026-01-01"]
    )
    | st.booleans()
    | st.integers(-(10**9), 10**9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@hypothesis_settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["tenant", "cluster", "key", "schemas"]), _VALUES, min_size=1))
def test_a_written_file_reads_as_what_was_meant(content: Mapping[str, Any]) -> None:
    """Whatever a value is, the strict reader gives the same back."""
    found = read_string(written(content), "")
    if not any(each.message.startswith("there is the character") for each in found.problems):
        assert (found.data, found.problems) == (content, [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tenant: a\n", "tenant: a\nsuspended: true\n"),
        ("tenant: a", "tenant: a\nsuspended: true\n"),
        ("tenant: a\n# end\n", "tenant: a\n# end\nsuspended: true\n"),
        ("suspended: false # paid\ntenant: a\n", "suspended: true # paid\ntenant: a\n"),
        ("  tenant: a\n  limits:\n    rate: 5\n", "  tenant: a\n  limits:\n    rate: 5\n  suspended: true\n"),
        ("tenant: a\nschemas:\n  suspended: b\n", "tenant: a\nschemas:\n  suspended: b\nsuspended: true\n"),
    ],
)
def test_suspending_changes_one_line(before: str, after: str) -> None:
    """Comments, order and all else stay; resuming changes the same word back."""
    assert marked(before, True) == after
    assert marked(after, False) == after.replace("true", "false")


@pytest.mark.parametrize(
    "text", ["{tenant: a}", "tenant: a\n...\n", "tenant: a\nsuspended: ${env:X}\n", "- a\n"]
)
def test_what_one_line_cannot_change_is_refused(text: str) -> None:
    """A form that is not understood is left to a person: no guess is written."""
    with pytest.raises(Flaw):
        marked(text, True)


# --- taking in -------------------------------------------------------------------------------------------


async def test_a_tenant_is_taken_in_and_served(folder: Path) -> None:
    """The file is written, its place made, and the hook runs before anybody knows the tenant."""
    seen: list[Any] = []

    async def migrate(config: Config, tenant: str) -> None:
        seen.append((files(folder)[-1], tenant in load(folder).tenants))
        async with Router.open(config) as router:
            await router.execute("CREATE TABLE plans (id INTEGER)", tenant=tenant)

    added = await onboarding.add(folder, GLOBEX, provision=Provision(), after=migrate)
    assert added.where == str(folder / "tenants" / "globex.yaml")
    text = (folder / "tenants" / "globex.yaml").read_text()
    assert text == "tenant: globex\ncluster: main\nisolation: database\ndatabase: globex\n"
    assert seen == [("acme.yaml", False)]
    assert [(each.step.what, each.before) for each in added.done] == [("the file globex.db", False)]
    assert files(folder) == ["acme.yaml", "globex.yaml"]
    async with Router.open(folder) as router:
        assert await router.fetch_all("SELECT * FROM plans", tenant="globex") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tenant": "acme"}, "there already"),
        ({"tenant": "../up"}, "not a valid tenant id"),
        ({"tenant": "a-b"}, "Name one with --database"),
        ({"cluster": "mian"}, "Did you mean 'main'"),
        ({"database": "acme"}, "each tenant would see the other's rows"),
        ({"database": "x; DROP TABLE y"}, "not a valid database or schema name"),
        ({"isolation": "schema"}, "SQLite has no schemas"),
        ({"tier": "goold"}, "Did you mean 'gold'"),
    ],
)
async def test_what_would_not_load_is_refused(folder: Path, change: dict[str, str], words: str) -> None:
    """Nothing is written, and nothing made, unless the whole configuration loads with the tenant in it."""
    with pytest.raises((ConfigurationError, UsageError), match=re.escape(words)):
        await onboarding.add(folder, GLOBEX | change, provision=Provision())
    assert files(folder) == ["acme.yaml"]
    assert not (folder / "data").exists()


async def test_a_failed_migration_writes_no_file(folder: Path) -> None:
    """The place stays, the error says so, and the same again with adopt goes through."""

    async def fails(config: Config, tenant: str) -> None:
        async with Router.open(config) as router:
            await router.execute("CREATE TABLE plans (id INTEGER)", tenant=tenant)
            await router.execute("not SQL", tenant=tenant)

    with pytest.raises(Exception, match="syntax error") as caught:
        await onboarding.add(folder, GLOBEX, provision=Provision(), after=fails)
    assert "on the server there is now: the file globex.db" in str(caught.value)
    assert files(folder) == ["acme.yaml"]
    with pytest.raises(UsageError, match="exists already, with 1 tables"):
        await onboarding.add(folder, GLOBEX, provision=Provision())
    added = await onboarding.add(folder, GLOBEX, provision=Provision(adopt=True))
    assert [each.before for each in added.done] == [True]


async def test_old_rows_are_not_given_to_a_new_tenant(folder: Path) -> None:
    """Who is called like a tenant that is gone does not see its rows, unless somebody says so."""
    await onboarding.add(folder, GLOBEX, provision=Provision())
    with closing(sqlite3.connect(folder / "data" / "globex.db")) as left:
        left.execute("CREATE TABLE secrets (text)")
    removed = await onboarding.remove(folder, "globex")
    assert removed.drops == (f"rm {folder}/data/globex.db*",)
    with pytest.raises(UsageError, match="If they are this tenant's, say so"):
        await onboarding.add(folder, GLOBEX, provision=Provision())
    assert files(folder) == ["acme.yaml"]


async def test_two_at_a_time_cannot_take_one_place(folder: Path) -> None:
    """Each would load alone, both together would not: the second one is refused."""
    twice = [{**GLOBEX, "tenant": name, "database": "same"} for name in ("one", "two")]
    found = await asyncio.gather(*(onboarding.add(folder, each) for each in twice), return_exceptions=True)
    assert sum(isinstance(each, ConfigurationError) for each in found) == 1
    assert len(load(folder).tenants) == 2


def test_who_holds_the_folder_is_waited_for(folder: Path) -> None:
    """A change in another process ends before the next begins, or that one is refused."""
    with (
        held(folder / "tenants"),
        pytest.raises(UsageError, match="being changed by another process"),
        held(folder / "tenants", patience=0.0),
    ):
        pass
    with held(folder / "tenants", patience=0.0):
        pass


async def test_a_folder_that_cannot_be_written_is_found_before_the_server(folder: Path) -> None:
    """Nothing is made for a tenant whose file could not be written then."""
    os.remove(folder / "tenants" / "acme.yaml")
    (folder / "tenants").rmdir()
    (folder / "tenants").write_text("no folder")
    with pytest.raises(UsageError, match="cannot be written"):
        await onboarding.add(folder, GLOBEX, provision=Provision())
    assert not (folder / "data").exists()


# --- suspending and removing -----------------------------------------------------------------------------


async def test_a_suspended_tenant_is_refused_until_resumed(folder: Path) -> None:
    """Sessions and one-shots raise TenantSuspended; nothing else of the file has changed."""
    assert await onboarding.suspend(folder, "acme")
    assert not await onboarding.suspend(folder, "acme")
    assert (folder / "tenants" / "acme.yaml").read_text() == f"{ACME}suspended: true\n"
    async with Router.open(folder) as router:
        with record(router, LookupRefused) as heard:
            with pytest.raises(TenantSuspended, match=r"suspended.*tenant=acme"):
                router.session("acme")
            with pytest.raises(TenantSuspended):
                await router.fetch_all("SELECT 1", tenant="acme")
            with pytest.raises(TenantSuspended):
                router.explain("SELECT 1", tenant="acme")
            with pytest.raises(UnknownTenant):
                router.session("nobody")
        told = [(each.tenant, each.error) for each in heard.of(LookupRefused)]
        assert told == [("acme", "TenantSuspended")] * 3 + [("", "UnknownTenant")]
        scraped = (await router.metrics.scrape()).decode()
        assert 'router_lookups_refused_total{error="TenantSuspended"} 3.0' in scraped
    assert await onboarding.resume(folder, "acme")
    assert not await onboarding.resume(folder, "acme")
    async with Router.open(folder) as router:
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1


async def test_a_running_router_follows(folder: Path) -> None:
    """What is taken in, suspended and removed is so in an open router once it has reloaded."""
    async with Router.open(folder) as router:
        with pytest.raises(UnknownTenant):
            router.session("globex")
        await onboarding.add(folder, GLOBEX)
        await router.reload()
        assert await router.fetch_value("SELECT 1", tenant="globex") == 1
        await onboarding.suspend(folder, "globex")
        await router.reload()
        with pytest.raises(TenantSuspended):
            await router.fetch_value("SELECT 1", tenant="globex")
        await onboarding.resume(folder, "globex")
        await router.reload()
        assert await router.fetch_value("SELECT 1", tenant="globex") == 1
        await onboarding.remove(folder, "globex")
        (folder / "tenants" / "bad.yaml").write_text("tenant: bad\n")
        with pytest.raises(ConfigurationError):
            await router.reload()
        assert (router.status().generation, "bad.yaml" in router.status().refused) == (4, True)
        await onboarding.remove(folder, "bad")
        await router.reload()
        assert (router.status().generation, router.status().refused) == (5, "")
        with pytest.raises(UnknownTenant):
            await router.fetch_value("SELECT 1", tenant="globex")


async def test_a_changed_file_keeps_its_mode(folder: Path) -> None:
    """Who could not read a tenant's file before cannot read it afterwards."""
    file = folder / "tenants" / "acme.yaml"
    file.chmod(0o640)
    await onboarding.suspend(folder, "acme")
    assert file.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("verb", [onboarding.suspend, onboarding.resume, onboarding.remove, onboarding.show])
async def test_unknown_tenants_are_refused(folder: Path, verb: Any) -> None:
    """No verb invents a tenant, nor leaves the folder by its name."""
    for name in ("nobody", "../router", ""):
        with pytest.raises(UnknownTenant):
            await verb(folder, name)
    assert files(folder) == ["acme.yaml"]


async def test_a_link_is_left_to_who_made_it(folder: Path) -> None:
    """A file that Kubernetes puts there would be put there again."""
    file = folder / "tenants" / "acme.yaml"
    file.rename(folder / "elsewhere.yaml")
    file.symlink_to(folder / "elsewhere.yaml")
    with pytest.raises(UsageError, match="is a link"):
        await onboarding.suspend(folder, "acme")
    assert (folder / "elsewhere.yaml").read_text() == ACME


async def test_a_broken_file_can_be_removed_but_not_left(folder: Path) -> None:
    """What is wrong with one tenant is put right by removing it; other changes are refused meanwhile."""
    (folder / "tenants" / "bad.yaml").write_text("tenant: bad\n")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml"):
        await onboarding.suspend(folder, "acme")
    assert (folder / "tenants" / "acme.yaml").read_text() == ACME
    assert (await onboarding.remove(folder, "bad")).drops == ()
    assert await onboarding.suspend(folder, "acme")


async def test_files_that_are_looked_up_are_changed_where_they_are(folder: Path) -> None:
    """With catalog.folder the verbs write there; a tenant with a file in tenants is changed in that."""
    (folder / "router.yaml").write_text(ROUTER + "catalog: {folder: customers}\n")
    (folder / "customers").mkdir()
    added = await onboarding.add(folder, GLOBEX)
    assert added.where == str(folder / "customers" / "globex.yaml")
    for database, words in (("globex", "globex"), ("acme", "acme")):
        with pytest.raises(ConfigurationError, match=words):
            await onboarding.add(folder, GLOBEX | {"tenant": "thief", "database": database})
    with pytest.raises(UsageError, match="comes first"):
        await onboarding.add(folder, GLOBEX | {"tenant": "acme"})
    assert await onboarding.suspend(folder, "globex")
    assert await onboarding.suspend(folder, "acme")
    assert (folder / "tenants" / "acme.yaml").read_text().endswith("suspended: true\n")
    async with Router.open(folder) as router:
        with pytest.raises(TenantSuspended):
            await router.fetch_value("SELECT 1", tenant="globex")
    assert await onboarding.resume(folder, "globex")
    assert (await onboarding.show(folder, "globex")).tenant.database == "globex"
    (folder / "customers" / "bad.yaml").write_text("tenant: bad\n")
    listing = await onboarding.every(folder)
    assert ([each.tenant for each in listing.tenants], len(listing.refused)) == (["acme", "globex"], 1)
    for tenant in ("globex", "bad"):
        await onboarding.remove(folder, tenant)
    assert os.listdir(folder / "customers") == []


# --- where settings come from ----------------------------------------------------------------------------


async def test_show_says_where_each_setting_comes_from(folder: Path) -> None:
    """The tenant's file wins over its tier, that over the defaults; dependencies add up."""
    found = {each.name: (each.value, each.where) for each in (await onboarding.show(folder, "acme")).settings}
    assert found["timeouts.statement"] == (60.0, "tier gold")
    assert found["timeouts.acquire"] == (3.0, "defaults")
    assert found["limits.rate"] == (50.0, "tenant")
    assert found["limits.weight"] == (4.0, "tier gold")
    assert found["retries.attempts"] == (3, "")
    assert found["cache.dependencies"] == ((("orders", ("stock",)), ("visits", ())), "defaults+tenant")


def test_show_leaves_no_setting_out() -> None:
    """Every key that a tenant may set is among those shown."""

    def keys(section: type[Section]) -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            inner = field.annotation
            nested = isinstance(inner, type) and issubclass(inner, Section)
            found += [f"{name}.{each}" for each in keys(inner)] if nested else [name]  # type: ignore[arg-type]
        return found

    assert set(keys(SettingsConfig)) == set(SETTINGS)
