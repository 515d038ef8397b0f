"""Take tenants in, suspend them, and let them go: what ``router tenants`` does, for a control plane to call.

Tenants are kept in files of the configuration folder, or in the table that ``catalog.table`` names. A change
is made whole or not at all, and only if the router would accept it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.config import ClusterConfig, Config, SettingsConfig, TenantConfig, load
from router.config.loader import outline
from router.config.models import TenantFile
from router.config.origins import Origin, origins
from router.drivers.registry import engines
from router.errors import ConfigurationError, RouterError, UsageError
from router.groundwork import Step, drops, steps
from router.identifiers import InvalidName, check_physical_name, check_tenant_id
from router.provisioning import Done, Provision, make
from router.router import Router
from router.tenant_files import TenantFiles
from router.tenant_rows import TenantRows
from router.tenant_store import Store, unknown

After = Callable[[Config, str], Awaitable[None]]
"""What is called with the configuration to come and the tenant's id, such as to run its migrations."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Say what taking a tenant in would do: what is written where, and what makes its place."""

    tenant: TenantConfig
    where: str
    text: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Added:
    """Say what was done: where the tenant is written, and what became of each step."""

    tenant: TenantConfig
    where: str
    done: tuple[Done, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """Say where the tenant was, and what would drop its rows, which nobody has done."""

    where: str
    drops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """Show a tenant: what it is, where it is written, and where each setting in force comes from."""

    tenant: TenantConfig
    where: str
    cluster: ClusterConfig
    settings: tuple[Origin, ...]


async def plan(folder: str | Path, tenant: Mapping[str, Any]) -> Plan:
    """Return what :func:`add` would do with the same; nothing is written or made.

    Raises what :func:`add` raises before it begins.
    """
    name, content = _completed(tenant)
    async with _store(folder) as store:
        found = await store.rehearse(name, content)
    made = steps(found.tenant, found.config.clusters[found.tenant.cluster])
    return Plan(found.tenant, found.where, found.text, made)


async def add(
    folder: str | Path,
    tenant: Mapping[str, Any],
    *,
    provision: Provision | None = None,
    after: After | None = None,
) -> Added:
    """Take a tenant in: make its place if ``provision`` says so, then write it down.

    ``tenant`` is what its file is to say. Where it names no schema or database of its own, that is called
    like the tenant. ``after`` is called when the place is there and the tenant not yet known to anybody.

    Raises:
        ConfigurationError: it would be refused; nothing was done.
        UsageError: there is such a tenant, its place has tables already, or it cannot be written down.
    """
    name, content = _completed(tenant)
    async with _store(folder) as store, store.hold():
        found = await store.rehearse(name, content)
        draft = await store.draft(found)
        done: tuple[Done, ...] = ()
        try:
            if provision is not None:
                done = await make(found.tenant, found.config, provision)
            if after is not None:
                await after(found.config, name)
            await draft.take_effect()
        except BaseException as exc:
            _tell(exc, found.where, done)
            raise
        finally:
            await draft.discard()
    return Added(found.tenant, found.where, done)


def _tell(exc: BaseException, where: str, done: tuple[Done, ...]) -> None:
    """Have an error say what is there and what is not."""
    if done:
        there = ", ".join(each.step.what for each in done if each.step.makes)
        exc.add_note(f"on the server there is now: {there}")
    if isinstance(exc, RouterError):
        exc.add_note(f"{where} was not written. Run it again when that is put right: what is there is kept")


async def suspend(folder: str | Path, tenant: str) -> bool:
    """Have a tenant's requests refused as TenantSuspended; return whether that is new.

    Raises UnknownTenant, ConfigurationError, and UsageError if it cannot be changed.
    """
    return await _mark(folder, tenant, suspended=True)


async def resume(folder: str | Path, tenant: str) -> bool:
    """Have a suspended tenant served again; return whether that is new. Raises as :func:`suspend`."""
    return await _mark(folder, tenant, suspended=False)


async def _mark(folder: str | Path, tenant: str, *, suspended: bool) -> bool:
    name = _known(folder, tenant)
    async with _store(folder, name) as store, store.hold():
        return await store.mark(name, suspended=suspended)


async def remove(folder: str | Path, tenant: str) -> Removed:
    """Have nobody know a tenant any more. Its rows stay where they are.

    Raises UnknownTenant, ConfigurationError, and UsageError if it cannot be removed.
    """
    name = _known(folder, tenant)
    async with _store(folder, name) as store, store.hold():
        try:
            found = await store.find(name)
        except ConfigurationError:  # it may be this very tenant that is wrong
            statements: tuple[str, ...] = ()
        else:
            statements = drops(found.tenant, found.config.clusters[found.tenant.cluster])
        return Removed(await store.remove(name), statements)


async def show(folder: str | Path, tenant: str) -> Shown:
    """Return what is in force for a tenant. Raises UnknownTenant and ConfigurationError."""
    name = _known(folder, tenant)
    async with _store(folder, name) as store:
        found = await store.find(name)
    config, tier = found.config, found.tenant.tier
    sections: dict[str, SettingsConfig] = {"defaults": config.defaults}
    if tier is not None:
        sections[f"tier {tier}"] = config.tiers[tier]
    own = {"tenant": tenant, **found.data}
    sections["tenant"] = TenantFile.model_validate(own, context=config.source)
    settings = tuple(origins(found.tenant.settings, sections))
    return Shown(found.tenant, found.where, config.clusters[found.tenant.cluster], settings)


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold all tenants by their ids, and what is wrong with those of a table that would be refused."""

    config: Config
    tenants: list[TenantConfig]
    refused: list[ConfigurationError]


async def every(folder: str | Path) -> Listing:
    """Return all tenants that have a file or a row; those of patterns are not listed anywhere."""
    config = await asyncio.to_thread(load, folder, known_engines=engines())
    found: list[TenantConfig | ConfigurationError] = []
    if config.catalog.table is not None:
        async with _rows(config) as rows:
            found = [each async for each in rows.every()]
    elif config.catalog.folder is not None:
        apart = TenantFiles(Path(folder), config.source / config.catalog.folder)
        found = await asyncio.to_thread(lambda: list(apart.every(config)))
    refused = [each for each in found if isinstance(each, ConfigurationError)]
    others = {each.tenant: each for each in found if isinstance(each, TenantConfig)}
    tenants = {**others, **config.tenants}
    return Listing(config, [tenants[name] for name in sorted(tenants)], refused)


@asynccontextmanager
async def _store(folder: str | Path, name: str | None = None) -> AsyncIterator[Store]:
    """Give where a tenant is kept, or is to be: in tenants, or where tenants are looked up."""
    path = Path(folder)
    found = await asyncio.to_thread(outline, path, known_engines=engines())
    files = TenantFiles(path)
    if found is None or not found.catalog.asks or (name is not None and files.has(name)):
        yield files
    elif found.catalog.folder is not None:
        yield TenantFiles(path, found.source / found.catalog.folder)
    else:
        async with _rows(await asyncio.to_thread(load, path, known_engines=engines())) as rows:
            yield rows


@asynccontextmanager
async def _rows(config: Config) -> AsyncIterator[TenantRows]:
    table = config.catalog.table
    assert table is not None  # noqa: S101 - asked by the caller; for the type checker
    async with Router.open(config.unaudited()) as opened:
        yield TenantRows(opened, config, table)


def _known(folder: str | Path, tenant: str) -> str:
    """Return a name that a tenant may have."""
    try:
        return check_tenant_id(tenant)
    except InvalidName:
        raise unknown(tenant, str(folder)) from None


def _completed(tenant: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a tenant's id and what is to be written, with the place named that it has for itself."""
    try:
        name = check_tenant_id(tenant.get("tenant", ""))
    except InvalidName as error:
        raise UsageError(str(error)) from None
    own = {"schema": "schema", "database": "database"}.get(str(tenant.get("isolation")))
    if own is None or own in tenant:
        return name, dict(tenant)
    try:
        place = check_physical_name(name)
    except InvalidName as error:
        raise UsageError(f"the tenant's id is no name for a {own}: {error}. Name one with --{own}") from None
    rest = dict(tenant)
    first: dict[str, Any] = {key: rest.pop(key) for key in ("tenant", "cluster", "isolation") if key in rest}
    return name, {**first, own: place, **rest}
