"""What is wrong in a picture, the worst first: what somebody on call should look at. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from router.picture import (
    CacheRow,
    ClusterRow,
    ListenerRow,
    NodeRow,
    Pace,
    Picture,
    PoolRow,
    RunningRow,
    TenantRow,
    TroubleRow,
)

_LONG = 10.0  # seconds that a request may run before it is pointed at
_FAILING = 0.01  # share of requests that may fail
_DEAF = "writes of other processes are not heard: cached answers are not used"


def of(picture: Picture) -> tuple[TroubleRow, ...]:
    """Return all that is wrong in a picture."""
    found = [
        *of_configuration(picture.refused),
        *of_clusters(picture.clusters),
        *of_requests(picture.pace, picture.busy, picture.running),
        *of_pools(picture.pools),
        *of_nodes(picture.nodes),
        *of_parts(picture.cache, picture.listeners),
    ]
    return tuple(sorted(found, key=lambda each: each.level != "bad"))


def of_configuration(refused: str) -> Iterator[TroubleRow]:
    """Yield why what the folder holds now is not in force."""
    if refused:
        text = f"what is written now is not in force: {refused}"
        yield TroubleRow("bad", "changes", "configuration", text)


def of_clusters(clusters: tuple[ClusterRow, ...]) -> Iterator[TroubleRow]:
    """Yield what clusters lack."""
    for cluster in clusters:
        if not cluster.primary:
            yield TroubleRow("bad", "nodes", cluster.name, "nobody takes its writes")
        if cluster.replicas and not cluster.usable:
            text = f"none of its {cluster.replicas} replicas may be read: all reads go to the primary"
            yield TroubleRow("bad", "nodes", cluster.name, text)


def of_nodes(nodes: tuple[NodeRow, ...]) -> Iterator[TroubleRow]:
    """Yield which nodes are not used, and why."""
    for node in nodes:
        if not node.usable:
            why = node.reason.replace("_", " ") or "not the primary now"
            yield TroubleRow("warn", "nodes", f"{node.cluster}/{node.name}", f"is not used: {why}")


def of_pools(pools: tuple[PoolRow, ...]) -> Iterator[TroubleRow]:
    """Yield which pools have too few connections."""
    for pool in pools:
        if pool.waiting:
            where = f"{pool.node} {pool.database}".rstrip()
            text = f"{pool.waiting} wait for a connection; {pool.in_use} of {pool.max} are in use"
            yield TroubleRow("bad" if pool.waiting >= pool.max else "warn", "pools", where, text)


def of_requests(
    pace: Pace, busy: tuple[TenantRow, ...], running: tuple[RunningRow, ...]
) -> Iterator[TroubleRow]:
    """Yield whose requests fail, and which run for long."""
    if pace.errors > _FAILING * pace.requests:
        share = pace.errors / pace.requests
        worst = max(busy, key=lambda each: each.errors, default=None)
        whose = f", most of {worst.tenant}" if worst is not None and worst.errors else ""
        yield TroubleRow("bad", "failures", "requests", f"{share:.1%} of the last ten seconds failed{whose}")
    for each in running:
        if each.seconds > _LONG:
            yield TroubleRow(
                "warn", "running", each.tenant, f"has a request that runs for {each.seconds:.0f} s"
            )


def of_parts(cache: CacheRow | None, listeners: tuple[ListenerRow, ...]) -> Iterator[TroubleRow]:
    """Yield what of the cache and the listeners does not work."""
    if cache is not None and not cache.heard:
        yield TroubleRow("bad", "cache", "cache", _DEAF)
    if cache is not None and cache.remote is False:
        yield TroubleRow("warn", "cache", "cache", "the shared tier does not answer, and is left alone")
    for each in listeners:
        if each.muted:
            yield TroubleRow("bad", "listeners", each.name, f"failed {each.failed} times and is muted")
        elif each.dropped:
            yield TroubleRow("warn", "listeners", each.name, f"has missed {each.dropped} events")
