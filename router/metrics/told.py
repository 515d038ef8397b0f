"""What events other than those of requests tell, counted: retries, transactions, connections, failovers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from router import events
from router.dispatcher import Dispatcher
from router.errors import CommitOutcomeUnknown, StaleReadError
from router.metrics.counts import Counts, Times
from router.metrics.families import Family
from router.metrics.requests import NO_CLUSTER
from router.metrics.tenants import Cell, Tenants

_OUTCOMES: dict[type[events.TransactionEvent], str] = {
    events.TransactionCommitted: "committed",
    events.TransactionRolledBack: "rolled_back",
    events.CommitUnknown: "unknown",
}
_UNKNOWN, _STALE = CommitOutcomeUnknown.__name__, StaleReadError.__name__


NAME = "router.metrics"
"""Under which the listeners are counted themselves."""


_Heard = tuple[type[events.Event], Callable[[Any], object]]


class Told:
    """Count what is told; ``bounds`` are those of the histograms."""

    def __init__(self, bounds: Sequence[float], tenants: Tenants) -> None:
        # longer than other functions: a list, each family with its words and labels
        self._tenants = tenants
        self.errors = Counts("errors", "Requests that failed", "cluster", "error")
        text = "Times that a tenant or schema was asked for that is not served"
        self.unserved = Counts("lookups_refused", text, "error")
        self.retries = Counts("retries", "Attempts that were followed by another", "error")
        self.denied = Counts("retries_denied", "Retries not made for want of retry budget", "cluster")
        self.slow = Counts("slow_requests", "Requests over their tenant's threshold", "cluster")
        text = "Times that a statement was explained, and whether its plan was another one"
        self.plans = Counts("plans_explained", text, "node", "changed")
        self.stale_refused = Counts("stale_refused", "", "cluster")  # exported with what was avoided
        # transactions
        self.begun = Counts("transactions_begun", "Transactions that have begun", "cluster", "role")
        self.transactions = Counts("transactions", "Transactions that ended", "cluster", "outcome")
        self.transaction_times = Times(
            bounds, "transaction_duration", "Time of transactions", "cluster", "outcome"
        )
        self.unknown = Counts("commits_unknown", "Commits that got no answer", "cluster")
        self.resolved = Counts("commits_resolved", "Commits found out about", "cluster", "outcome")
        self.written = Counts("writes_committed", "Transactions and statements that wrote", "cluster")
        # connections and pools
        self.opened = Counts("connections_opened", "Connections established", "node")
        self.failed = Counts("connections_failed", "Connections that could not be made", "node", "error")
        self.closed = Counts("connections_closed", "Connections closed", "node", "reason")
        self.held = Counts("connections_held", "Units of work that held a connection for too long", "node")
        self.connects = Times(bounds, "connect_duration", "Time to establish a connection", "node")
        self.pools = Counts("pool_changes", "Pools that were opened or closed", "node", "state")
        self.refused = Counts("pool_refused", "Requests that got no connection", "node", "error")
        self.left = Counts("statements_left", "Given-up statements that may run on", "node", "error")
        # servers
        text = "Times that a server was left out, or not any more"
        self.breakers = Counts("breaker_changes", text, "node", "state")
        self.failovers = Counts("failovers", "Times that another server became the primary", "cluster")
        self.replicas = Counts(
            "replica_changes", "Times that a replica was left out, or used again", "node", "reason"
        )
        self.ignored = Counts("tokens_ignored", "Tokens that could not be used", "cluster", "refusal")
        self.lost = Counts("writes_lost", "Writes to be seen that a failover lost", "cluster", "certain")
        # the process
        self.flushes = Counts(
            "cache_flushes", "Times that many cached answers went at once, by why", "reason"
        )
        text = "Times that the shared tier was left alone, or used again"
        self.tier = Counts("cache_tier_changes", text, "state")
        self.worthless = Counts("cache_not_worth_it", "Tellings that the cache does little", "reason")
        self.secrets = Counts("secret_changes", "Passwords that were not what they had been", "user")
        text = "Times that a password could not be had, and whether the last one was used"
        self.secret_failures = Counts("secret_failures", text, "user", "kept")
        text = "Times that tenants could not be looked up, or could again"
        self.catalog = Counts("catalog_changes", text, "state")
        text = "Tenants in memory that were looked up anew and were others, and those refused"
        self.looked_up = Counts("catalog_tenant_changes", text, "change")
        text = "Times that a part of the audit failed, or worked again"
        self.audit = Counts("audit_changes", text, "part", "state")

    def listen(self, to: Dispatcher) -> None:
        """Hear of all these events."""
        for kind, listener in (*self._of_requests(), *self._of_the_rest()):
            to.subscribe(kind, listener, quiet=True, name=NAME)

    def _of_requests(self) -> Iterable[_Heard]:
        return (
            (events.RequestFailed, self._on_failure),
            (events.LookupRefused, lambda event: self.unserved.add(event.error)),
            (events.RetryScheduled, lambda event: self.retries.add(event.error)),
            (events.RetryDenied, lambda event: self.denied.add(event.cluster)),
            (events.SlowRequest, self._on_slow),
            (
                events.StatementExplained,
                lambda event: self.plans.add(event.node.label, "yes" if event.changed else "no"),
            ),
            (
                events.TransactionBegun,
                lambda event: self.begun.add(event.node.cluster, event.role.value),
            ),
            (events.TransactionCommitted, self._on_end),
            (events.TransactionRolledBack, self._on_end),
            (events.CommitUnknown, self._on_end),
            (events.CommitResolved, self._on_resolved),
            (events.WriteCommitted, lambda event: self.written.add(event.node.cluster)),
        )

    def _of_the_rest(self) -> Iterable[_Heard]:
        return (
            (events.ConnectionOpened, self._on_opened),
            (events.ConnectionFailed, lambda event: self.failed.add(event.node.label, event.error)),
            (events.ConnectionClosed, lambda event: self.closed.add(event.node.label, event.reason)),
            (events.ConnectionHeld, lambda event: self.held.add(event.node.label)),
            (events.PoolOpened, lambda event: self.pools.add(event.node.label, "opened")),
            (events.PoolClosed, lambda event: self.pools.add(event.node.label, "closed")),
            (events.PoolRefused, lambda event: self.refused.add(event.node.label, event.error)),
            (
                events.StatementsLeft,
                lambda event: self.left.add(event.node.label, event.error, by=event.count),
            ),
            (
                events.BreakerChanged,
                lambda event: self.breakers.add(event.node.label, "open" if event.open else "closed"),
            ),
            (events.PrimaryChanged, self._on_primary),
            (
                events.ReplicaChanged,
                lambda event: self.replicas.add(event.node.label, event.reason or "usable"),
            ),
            (events.TokenIgnored, lambda event: self.ignored.add(event.cluster, event.refusal)),
            (
                events.WriteLost,
                lambda event: self.lost.add(event.cluster, "yes" if event.certain else "no"),
            ),
            (events.CacheFlushed, lambda event: self.flushes.add(event.reason)),
            (events.CacheTierChanged, lambda event: self.tier.add("up" if event.usable else "down")),
            (events.CacheNotWorthIt, lambda event: self.worthless.add(event.reason)),
            (events.SecretChanged, lambda event: self.secrets.add(event.user)),
            (
                events.SecretFailed,
                lambda event: self.secret_failures.add(event.user, "yes" if event.kept else "no"),
            ),
            (events.CatalogChanged, lambda event: self.catalog.add("up" if event.usable else "down")),
            (
                events.TenantChanged,
                lambda event: self.looked_up.add("gone" if event.gone else "changed"),
            ),
            (events.TenantRefused, lambda event: self.looked_up.add("refused")),
            (
                events.AuditFailed,
                lambda event: self.audit.add(event.part, "failing" if event.error else "working"),
            ),
        )

    def _on_failure(self, event: events.RequestFailed) -> None:
        cluster = _cluster(event)
        self.errors.add(cluster, event.error)
        if event.error == _UNKNOWN:
            self.unknown.add(cluster)
        elif event.error == _STALE:
            self.stale_refused.add(cluster)

    def _on_slow(self, event: events.SlowRequest) -> None:
        request = event.request
        self.slow.add(_cluster(request))
        self._tenants.cells.setdefault(request.tenant, Cell()).slow += 1

    def _on_end(self, event: events.TransactionEvent) -> None:
        cluster, outcome = event.node.cluster, _OUTCOMES[type(event)]
        self.transactions.add(cluster, outcome)
        self.transaction_times.add(cluster, outcome, seconds=event.duration)
        if outcome == "unknown":
            self.unknown.add(cluster)

    def _on_resolved(self, event: events.CommitResolved) -> None:
        self.resolved.add(event.node.cluster, "committed" if event.committed else "rolled_back")

    def _on_opened(self, event: events.ConnectionOpened) -> None:
        self.opened.add(event.node.label)
        self.connects.add(event.node.label, seconds=event.duration)

    def _on_primary(self, event: events.PrimaryChanged) -> None:
        if event.node is not None:
            self.failovers.add(event.cluster)

    # --- output ------------------------------------------------------------------------------------------

    def begin(self, clusters: Iterable[str], nodes: Iterable[str]) -> None:
        """Have what is rare and looked at by alerts begin at 0."""
        for cluster in clusters:
            for counts in (self.denied, self.slow, self.unknown, self.failovers, self.written):
                counts.begin(cluster)
            for outcome in _OUTCOMES.values():
                self.transactions.begin(cluster, outcome)
            for certain in ("yes", "no"):
                self.lost.begin(cluster, certain)
        for node in nodes:
            for counts in (self.opened, self.held):
                counts.begin(node)
            for state in ("open", "closed"):
                self.breakers.begin(node, state)
            for error in ("PoolTimeout", "PoolFull", "PoolDeadlock"):
                self.refused.begin(node, error)

    def families(self, prefix: str) -> Iterator[Family]:
        """Yield what was counted, in the order of the source."""
        for counts in vars(self).values():
            if isinstance(counts, Counts | Times) and counts is not self.stale_refused:
                yield counts.family(prefix)


def _cluster(event: events.RequestEvent) -> str:
    return NO_CLUSTER if event.node is None else event.node.cluster
