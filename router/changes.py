"""What rare events say, in a sentence for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from router import events
from router.events import Event
from router.picture import ChangeRow
from router.topology import Role

_Said = tuple[str, str, str, str]  # kind, level, where, text


def _primary(event: events.PrimaryChanged) -> _Said:
    if event.node is None:
        return "primary", "bad", event.cluster, f"nobody takes the writes: {event.problem}"
    before = f", before it was {event.before.name}" if event.before is not None else ""
    return "primary", "good", event.cluster, f"{event.node.name} is the primary{before}"


def _replica(event: events.ReplicaChanged) -> _Said:
    if event.usable:
        return "replica", "good", event.node.label, "is read again"
    if event.reason == Role.PRIMARY:
        return "replica", "info", event.node.label, "is a replica no longer: it is the primary"
    return "replica", "bad", event.node.label, f"is not read: {event.reason}"


def _breaker(event: events.BreakerChanged) -> _Said:
    if event.open:
        why = event.error if event.failures < 2 else f"{event.error}, {event.failures} in a row"
        return "breaker", "bad", event.node.label, f"is left alone for a while: {why}"
    return "breaker", "good", event.node.label, "is tried again"


def _refused(event: events.PoolRefused) -> _Said:
    where = f"{event.node.label} {event.database}".rstrip()
    return "pool", "bad", where, f"{event.tenant or 'the router'} got no connection: {event.error}"


def _held(event: events.ConnectionHeld) -> _Said:
    place = f" at {event.stack[0]}" if event.stack else ""
    return "pool", "bad", event.node.label, f"{event.tenant} holds a connection in task {event.task}{place}"


def _unreachable(event: events.ConnectionFailed) -> _Said:
    return "connection", "bad", event.node.label, f"{event.error}: {event.message}"


def _commit(event: events.CommitUnknown) -> _Said:
    return "commit", "bad", event.node.label, f"a commit of {event.tenant} got no answer"


def _resolved(event: events.CommitResolved) -> _Said:
    found = "was committed" if event.committed else "was rolled back"
    return "commit", "info", event.node.label, f"a commit of {event.tenant} without an answer {found}"


def _lost(event: events.WriteLost) -> _Said:
    sure = "is lost" if event.certain else "may be lost"
    return "commit", "bad", event.cluster, f"a write of {event.tenant} {sure} by a failover"


def _left(event: events.StatementsLeft) -> _Said:
    return "statements", "bad", event.node.label, f"{event.count} may still be running: {event.error}"


def _tier(event: events.CacheTierChanged) -> _Said:
    if event.usable:
        return "cache", "good", "shared tier", "answers again"
    return "cache", "bad", "shared tier", f"is left alone: {event.error}"


def _flushed(event: events.CacheFlushed) -> _Said:
    return "cache", "info", event.tenant or "all tenants", f"cached answers were forgotten: {event.reason}"


def _loaded(event: events.ConfigurationLoaded) -> _Said:
    text = f"in force: {event.clusters} clusters, {event.tenants} tenants"
    if event.generation > 1:
        text += (
            f"; {event.tenants_added} tenants added, {event.tenants_removed} removed, "
            f"{event.tenants_changed} changed"
        )
    if event.restart:
        text += f"; {', '.join(event.restart)} only after a restart"
    return "configuration", "info", f"generation {event.generation}", text


def _catalog(event: events.CatalogChanged) -> _Said:
    if event.usable:
        return "catalog", "good", "tenants", "can be looked up again"
    return "catalog", "bad", "tenants", f"cannot be looked up: {event.error}"


def _spoiled(event: events.TenantRefused) -> _Said:
    return "catalog", "bad", event.tenant, f"is refused: {event.problems[0]}"


def _not_loaded(event: events.ConfigurationRefused) -> _Said:
    more = f", and {event.problems - 1} more" if event.problems > 1 else ""
    return "configuration", "bad", f"generation {event.generation} stays", f"{event.message}{more}"


def _secret(event: events.SecretChanged) -> _Said:
    return "secret", "info", event.user, f"has another password now, from {event.source}"


def _no_secret(event: events.SecretFailed) -> _Said:
    text = f"cannot be read anew, the last good one is used: {event.message}"
    return "secret", "bad", event.user, text if event.kept else f"has no password: {event.message}"


_SAY: Final[dict[type[Event], Callable[[Any], _Said]]] = {
    events.PrimaryChanged: _primary,
    events.ReplicaChanged: _replica,
    events.BreakerChanged: _breaker,
    events.PoolRefused: _refused,
    events.ConnectionHeld: _held,
    events.ConnectionFailed: _unreachable,
    events.CommitUnknown: _commit,
    events.CommitResolved: _resolved,
    events.WriteLost: _lost,
    events.StatementsLeft: _left,
    events.CacheTierChanged: _tier,
    events.CacheFlushed: _flushed,
    events.ConfigurationLoaded: _loaded,
    events.CatalogChanged: _catalog,
    events.TenantRefused: _spoiled,
    events.ConfigurationRefused: _not_loaded,
    events.SecretChanged: _secret,
    events.SecretFailed: _no_secret,
}

LISTENED: Final = tuple(_SAY)
"""The events that are shown as changes; none of them comes with a request that goes well."""


def change(event: Event) -> ChangeRow:
    """Return what an event of one of these classes says."""
    kind, level, where, text = _SAY[type(event)](event)
    return ChangeRow(event.at, kind, level, where, text, 1)
