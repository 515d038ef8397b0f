"""Check where tenants are looked up: a table or a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from router.config.catalog import CatalogConfig, TableConfig
from router.config.models import ClusterConfig
from router.config.problems import Found


def flaws(catalog: CatalogConfig, folder: Path) -> Iterator[Found]:
    """Yield what is wrong with where tenants are looked up, whatever the clusters are."""
    if catalog.folder is None:
        return
    if catalog.table is not None:
        yield Found(("folder",), "is given beside table", "Remove one of the two", at_key=True)
    place = folder / catalog.folder
    if not place.is_dir():
        yield Found(("folder",), "is no folder", "Make it, or correct the name")
    elif place.resolve() == (folder / "tenants").resolve():
        fact = "is the one whose files are all loaded at the start"
        yield Found(("folder",), fact, "Name another one, and move files there")


def check(table: TableConfig, clusters: Mapping[str, ClusterConfig]) -> Iterator[Found]:
    """Yield what its cluster cannot do; that the cluster exists is checked elsewhere."""
    cluster = clusters.get(table.cluster)
    if cluster is None:
        return
    postgresql = cluster.engine == "postgresql"
    if table.schema_ is not None and not postgresql:
        yield Found(("schema",), f"is given, but the engine is {cluster.engine}", "Remove it", at_key=True)
    if table.notify and not postgresql:
        fact = f"is true, but {cluster.engine} has no NOTIFY"
        yield Found(("notify",), fact, "Remove it: what has changed is asked for, see poll")
    elif table.notify and cluster.pooler is not None:
        fact = f"is true, but nothing is heard through pooler: {cluster.pooler}"
        yield Found(("notify",), fact, "Remove it, or name a cluster that is the server itself")
