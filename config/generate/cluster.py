"""Which server is what, which may be used, and what became of writes when one failed."""

from config.generate.board import Board, Row
from config.generate.panels import BAD, GOOD, WARN, Query, States, graph, number, timeline
from config.generate.promql import (
    RANGE,
    at_node,
    everywhere,
    in_cluster,
    largest,
    quantile,
    rate,
    seen,
    total,
)

_DOWN: States = {0: ("down", BAD), 1: ("up", GOOD)}
_USED: States = {0: ("not used", BAD), 1: ("used", GOOD)}
_OPEN: States = {0: ("closed", GOOD), 1: ("open", BAD)}
_PRIMARY: States = {0: ("", "transparent"), 1: ("primary", "blue")}


def _least(selector: str, by: str) -> str:
    return f"min by ({by}) ({selector})"


_NODES = (
    timeline(
        "Primary",
        "The server that takes the writes of each cluster, over time. A gap: no process had one.",
        "A gap or a change that nobody planned: see the servers' logs at that moment.",
        Query(largest(in_cluster("primary"), "cluster, node"), "{{cluster}}: {{node}}"),
        _PRIMARY,
        width=12,
    ),
    timeline(
        "Up",
        "Whether all processes reach the server. One that cannot is enough for red.",
        "Red for some processes only is the network between; red for all is the server.",
        Query(_least(at_node("node_up"), "node, role"), "{{node}} ({{role}})"),
        _DOWN,
        width=12,
    ),
    timeline(
        "Used",
        "Whether requests go there: it is up, not late and not doubted.",
        "Why not is under «Replicas left out»; the console says it now.",
        Query(_least(at_node("node_usable"), "node"), "{{node}}"),
        _USED,
        width=12,
    ),
    timeline(
        "Breakers",
        "Open: so many requests failed in a row that the server is asked nothing for a while.",
        "See which connections fail, and the server's log.",
        Query(largest(at_node("breaker_open"), "node"), "{{node}}"),
        _OPEN,
        width=12,
    ),
)

_REPLICAS = (
    graph(
        "Lag",
        "How late each replica is, as the process with the worst view sees it. Dashed: the limit, past "
        "which it is not read.",
        "Near the limit: look for long queries on the replica, and for bulk writes on the primary.",
        Query(largest(at_node("replica_lag_seconds"), "node"), "{{node}}"),
        Query(largest(at_node("replica_lag_limit_seconds"), "node"), "limit of {{node}}"),
        unit="s",
    ),
    graph(
        "Lag in bytes",
        "What the replica has still to replay, where the engine counts bytes.",
        "Bytes that grow while seconds do not: the primary writes faster than the replica replays.",
        Query(largest(at_node("replica_lag_bytes"), "node"), "{{node}}"),
        unit="bytes",
    ),
    graph(
        "Replicas left out, or used again",
        "Each change and its reason: late, unreachable, silent, losing, diverged, usable.",
        "A replica that flaps between late and usable has a limit too near to its usual lag.",
        Query(total(seen(at_node("replica_changes_total")), "node, reason"), "{{node}} {{reason}}"),
        bars=True,
    ),
)

_SERVERS = (
    graph(
        "In flight",
        "Requests that each server works on now, of all processes.",
        "One replica with far more than the others is slow, or the only one left.",
        Query(total(at_node("node_in_flight"), "node"), "{{node}}"),
    ),
    graph(
        "Latency of nodes",
        "Moving mean of the time that each server takes to answer, as the balancer sees it.",
        "A server that is slower than its peers gets fewer reads; find out why.",
        Query(largest(at_node("node_latency_seconds"), "node"), "{{node}}"),
        unit="s",
    ),
    graph(
        "Connections that failed",
        "Attempts to connect that failed, by error.",
        "AuthenticationFailed: the password has changed. TooManyConnections: lower connections.max.",
        Query(total(rate(at_node("connections_failed_total")), "node, error"), "{{node}} {{error}}"),
        unit="cps",
    ),
)

_FAILURES = (
    number(
        "Failovers",
        "Times that another server became a primary, in the range shown, as the process that saw most "
        "counts.",
        "More than were planned: find out why the primary was lost.",
        Query(f"max({seen(in_cluster('failovers_total'), RANGE)})"),
        decimals=0,
        thresholds=((1, WARN),),
    ),
    number(
        "Commits unknown",
        "Commits in the range shown that got no answer.",
        "See docs/errors.md, CommitOutcomeUnknown: the application must look before it repeats.",
        Query(total(seen(in_cluster("commits_unknown_total"), RANGE))),
        decimals=0,
        thresholds=((1, BAD),),
    ),
    graph(
        "What became of unknown commits",
        "Commits without an answer, and those that the server could be asked about afterwards.",
        "What is not resolved is for the application to find out.",
        Query(total(seen(in_cluster("commits_unknown_total")), "cluster"), "{{cluster}} unknown"),
        Query(
            total(seen(in_cluster("commits_resolved_total")), "cluster, outcome"),
            "{{cluster}} resolved: {{outcome}}",
        ),
        bars=True,
        width=8,
    ),
    graph(
        "Breakers opened and closed",
        "Each change of a breaker.",
        "Many short ones: the server answers probes and fails requests.",
        Query(total(seen(at_node("breaker_changes_total")), "node, state"), "{{node}} {{state}}"),
        bars=True,
        width=8,
    ),
)

_RETRIES = (
    graph(
        "Retries by error",
        "Attempts that were followed by another.",
        "Deadlock, SerializationFailure: shorten transactions. ConnectionLost: a server or proxy cuts.",
        Query(total(rate(everywhere("retries_total")), "error"), "{{error}}"),
        unit="ops",
    ),
    graph(
        "Retry budget left",
        "Share of the retries that a cluster may still get, in the process with least. At 0 failures are not "
        "retried, so that a struggling server is not asked even more.",
        "It empties in an outage only: mend that, not the budget.",
        Query(_least(in_cluster("retry_budget_ratio"), "cluster"), "{{cluster}}"),
        unit="percentunit",
        most=1,
    ),
    graph(
        "Retries denied",
        "Failures that were not retried for want of budget.",
        "Users see these as errors. See which server fails.",
        Query(total(rate(in_cluster("retries_denied_total")), "cluster"), "{{cluster}}"),
        unit="ops",
    ),
)

_TRANSACTIONS = (
    graph(
        "Transactions by outcome",
        "Transactions that ended, a second.",
        "Many rolled back: an error that the application does not expect.",
        Query(total(rate(in_cluster("transactions_total")), "cluster, outcome"), "{{cluster}} {{outcome}}"),
        unit="ops",
    ),
    graph(
        "Duration of transactions",
        "95 of 100 ended within this time, by outcome.",
        "Long transactions hold connections and locks: no calls of other services inside of them.",
        Query(
            quantile(0.95, rate(in_cluster("transaction_duration_seconds_bucket")), "outcome"),
            "p95 {{outcome}}",
        ),
        unit="s",
    ),
    graph(
        "Transactions begun and writes committed",
        "Transactions by the role of their server, and everything that was committed as a write.",
        "Read-only transactions on the primary can be declared readonly.",
        Query(total(rate(in_cluster("transactions_begun_total")), "role"), "begun on {{role}}"),
        Query(total(rate(in_cluster("writes_committed_total"))), "writes committed"),
        unit="ops",
    ),
)

BOARD = Board(
    uid="router-cluster",
    title="Router: clusters and failover",
    question="Which server is what, which may be used, and what became of writes when one failed?",
    variables=("job", "cluster", "node"),
    rows=(
        Row("Servers over time", _NODES),
        Row("Replicas", _REPLICAS),
        Row("Load", _SERVERS),
        Row("Failovers and their victims", _FAILURES),
        Row("Retries", _RETRIES),
        Row("Transactions", _TRANSACTIONS),
    ),
)
