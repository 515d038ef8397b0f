"""What a reload has to connect to anew: the servers that were reached otherwise before."""

from __future__ import annotations

from contextlib import suppress

from router.building import cluster
from router.config import ClusterConfig, Config
from router.config.files import stamp_of
from router.config.section import Section

# what of a cluster no connection depends on
_SOFT = frozenset({"primary", "replicas", "readers", "lag", "checks", "failover", "balancing", "row_setting"})
_WEIGHED = frozenset({"weight", "zone"})  # and of a node


def certificates(config: Config) -> dict[str, tuple[int, ...]]:
    """Return for each cluster numbers that are others once one of its certificates was changed."""
    return {name: tuple(map(_mark, each.tls.files)) for name, each in config.clusters.items()}


def _mark(file: str) -> int:
    with suppress(OSError):  # that it is gone is told when it is read
        return stamp_of(file)[0]
    return 0


def connected_anew(name: str, old: ClusterConfig, new: ClusterConfig, *, all_: bool) -> frozenset[str]:
    """Return the servers of a cluster that connections are made to otherwise than before, by their names.

    ``all_`` says that all are, whatever the sections say.
    """
    if all_ or _differ(old, new, without=_SOFT):
        return frozenset(node.name for node in cluster(name, new).nodes)
    known = {node.name: node for node in old.nodes}
    return frozenset(
        node.name
        for node in new.nodes
        if node.name is not None and node.name in known and _differ(known[node.name], node, without=_WEIGHED)
    )


def _differ(old: Section, new: Section, *, without: frozenset[str]) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in type(new).model_fields.keys() - without)
