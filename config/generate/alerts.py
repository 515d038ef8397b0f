"""Alert rules: when somebody must know, how badly, and which section says what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from config.generate.objectives import AVAILABLE, BURNS, QUICK, QUICK_ENOUGH
from config.generate.promql import PREFIX, happened

PAGE, TICKET, NOTE = "critical", "warning", "info"
"""Severities: somebody gets up now; somebody looks today; somebody may want to know."""

_HOURS = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}
_FEW = 10  # failures below which a share says nothing: one of three requests at night is no outage


@dataclass(frozen=True)
class Alert:
    """Describe one alert; ``hold`` is for how long it must be so before it fires."""

    name: str
    severity: str
    hold: str
    expr: str
    summary: str
    description: str

    @property
    def section(self) -> str:
        """Return the anchor of its section in the runbook."""
        return re.sub(r"[^\w\- ]", "", self.name.lower())

    def rule(self, runbook: str) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbook}#{self.section}",
            },
        }


def _burning(kind: str, allowed: float, pace: str) -> str:
    """Return when the budget goes too fast, over a long window and still over the short one."""

    def once(factor: float, long: str, short: str) -> str:
        limit = f"{factor * allowed:.4g}"
        failed = f"cluster:router_{kind}:ratio_rate{long}"
        seconds = _HOURS[long] * 3600
        return (
            f"(\n  {failed} > {limit}\n"
            f"  and cluster:router_{kind}:ratio_rate{short} > {limit}\n"
            f"  and {failed} * cluster:router_requests:rate{long} * {seconds} >= {_FEW}\n)"
        )

    return "\nor\n".join(once(*each) for each in BURNS[pace])


def _burns() -> list[Alert]:
    found = []
    for kind, allowed, what in (
        ("failures", 1 - AVAILABLE, f"{AVAILABLE:.1%} of requests succeed"),
        ("slowness", 1 - QUICK_ENOUGH, f"{QUICK_ENOUGH:.0%} of requests take at most {QUICK:g} s"),
    ):
        name = "Errors" if kind == "failures" else "Latency"
        for pace, severity, speed, hold in (("fast", PAGE, "fast", "2m"), ("slow", TICKET, "slowly", "15m")):
            found.append(
                Alert(
                    f"Router{name}Burn{pace.capitalize()}",
                    severity,
                    hold,
                    _burning(kind, allowed, pace),
                    f"The budget of {{{{ $labels.cluster }}}} for {kind} burns {speed}",
                    f"{{{{ $value | humanizePercentage }}}} of the requests miss the objective that {what}.",
                )
            )
    return found


_SERVERS = [
    Alert(
        "RouterNoPrimary",
        PAGE,
        "30s",
        f"count by (job, cluster) (\n  max by (job, instance, cluster) ({PREFIX}primary) == 0\n)",
        "{{ $labels.cluster }} has no primary",
        "{{ $value }} processes know no server that takes the writes of {{ $labels.cluster }}. Writes fail.",
    ),
    Alert(
        "RouterPrimaryFlaps",
        TICKET,
        "0s",
        f"max by (job, cluster) (increase({PREFIX}failovers_total[1h])) >= 2.5",
        "The primary of {{ $labels.cluster }} changes again and again",
        "It changed about {{ printf `%.0f` $value }} times within an hour.",
    ),
    Alert(
        "RouterNodeDown",
        TICKET,
        "1m",
        f"count by (job, node, role) ({PREFIX}node_up == 0)",
        "{{ $labels.node }} is down",
        "{{ $value }} processes cannot reach the {{ $labels.role }} {{ $labels.node }}.",
    ),
    Alert(
        "RouterReplicaUnusable",
        TICKET,
        "5m",
        f"count by (job, node) (\n  {PREFIX}node_usable == 0\n"
        f'  and on (job, instance, node) {PREFIX}node_up{{role="replica"}} == 1\n)',
        "{{ $labels.node }} is up and not used",
        "{{ $value }} processes reach the replica and send it no reads: it is late, or not trusted.",
    ),
    Alert(
        "RouterReplicaLate",
        TICKET,
        "2m",
        f"max by (job, node) (\n  {PREFIX}replica_lag_seconds\n"
        f"  / (0.8 * {PREFIX}replica_lag_limit_seconds)\n) > 1",
        "{{ $labels.node }} is nearly too late to be read",
        "Its lag is more than 80 % of its limit, past which its reads go elsewhere.",
    ),
    Alert(
        "RouterBreakerOpen",
        TICKET,
        "30s",
        f"count by (job, node) ({PREFIX}breaker_open == 1)",
        "The breaker of {{ $labels.node }} is open",
        "So many requests failed there in a row that {{ $value }} processes leave it alone for a while.",
    ),
    Alert(
        "RouterReadsOnPrimary",
        TICKET,
        "10m",
        "cluster:router_reads_without_replica:ratio_rate5m > 0.2",
        "Reads of {{ $labels.cluster }} fall back to its primary",
        "{{ $value | humanizePercentage }} of the reads went there because no replica could be used.",
    ),
]

_POOLS = [
    Alert(
        "RouterPoolSaturated",
        TICKET,
        "2m",
        f"max by (job, node) (\n  {PREFIX}pool_used_ratio > 0.9\n"
        f"  and on (job, instance, node) {PREFIX}pool_waiters > 0\n)",
        "The connections of {{ $labels.node }} are all in use",
        "{{ $value | humanizePercentage }} of the fullest pool are in use in some process, and requests "
        "wait.",
    ),
    Alert(
        "RouterPoolFillsUp",
        NOTE,
        "5m",
        f"max by (job, node) (\n  predict_linear({PREFIX}pool_used_ratio[15m], 1800) > 1\n"
        f"  and {PREFIX}pool_used_ratio > 0.5\n)",
        "The connections of {{ $labels.node }} run out within half an hour",
        "As the last quarter of an hour went on, {{ $value | humanizePercentage }} would be in use by then.",
    ),
    Alert(
        "RouterPoolRefuses",
        PAGE,
        "1m",
        f"sum by (job, node, error) (rate({PREFIX}pool_refused_total[5m])) > 0",
        "Requests get no connection to {{ $labels.node }}",
        "{{ $value | humanize }} requests a second fail with {{ $labels.error }}.",
    ),
    Alert(
        "RouterConnectionsFail",
        TICKET,
        "2m",
        f"sum by (job, node, error) (rate({PREFIX}connections_failed_total[5m])) > 0",
        "Connections to {{ $labels.node }} cannot be made",
        "{{ $value | humanize }} attempts a second fail with {{ $labels.error }}.",
    ),
    Alert(
        "RouterConnectionsHeld",
        TICKET,
        "0s",
        happened("connections_held_total", "job, node", "15m"),
        "Connections to {{ $labels.node }} are held for too long",
        "{{ printf `%.0f` $value }} units of work held one beyond connections.leak_after within 15 minutes.",
    ),
    Alert(
        "RouterStatementsLeft",
        TICKET,
        "0s",
        happened("statements_left_total", "job, node", "15m"),
        "Given-up statements may still run on {{ $labels.node }}",
        "The server could not be asked to end {{ printf `%.0f` $value }} statements within 15 minutes.",
    ),
]

_WRITES = [
    Alert(
        "RouterRetriesDenied",
        TICKET,
        "0s",
        happened("retries_denied_total", "job, cluster", "5m"),
        "The retry budget of {{ $labels.cluster }} is used up",
        "{{ printf `%.0f` $value }} failures within 5 minutes were not retried, to spare the cluster.",
    ),
    Alert(
        "RouterCommitsUnknown",
        PAGE,
        "0s",
        happened("commits_unknown_total", "job, cluster", "15m"),
        "Commits on {{ $labels.cluster }} got no answer",
        "Of {{ printf `%.0f` $value }} commits within 15 minutes nobody was told whether they happened.",
    ),
    Alert(
        "RouterWritesLost",
        PAGE,
        "0s",
        happened("writes_lost_total", "job, cluster, certain", "1h"),
        "A failover of {{ $labels.cluster }} has lost writes",
        "{{ printf `%.0f` $value }} sessions had written what the new primary lacks (certain: {{ "
        "$labels.certain }}).",
    ),
    Alert(
        "RouterTokensForged",
        TICKET,
        "0s",
        happened("tokens_ignored_total", "job, cluster", "15m", 'refusal="forged"'),
        "Tokens with a wrong signature are presented",
        "{{ printf `%.0f` $value }} within 15 minutes: a key was removed too early, or somebody tampers.",
    ),
]

_CACHE = [
    Alert(
        "RouterCacheNotWorthIt",
        NOTE,
        "0s",
        happened("cache_not_worth_it_total", "job, reason", "1h"),
        "The cache does little for some tenant",
        "The main reason is {{ $labels.reason }}.",
    ),
    Alert(
        "RouterCacheTierDown",
        TICKET,
        "2m",
        f"count by (job) ({PREFIX}cache_tier_up == 0)",
        "The shared tier of the cache is down",
        "{{ $value }} processes leave it alone. Requests go on without it, and the databases work more.",
    ),
    Alert(
        "RouterCacheDeaf",
        TICKET,
        "2m",
        f"count by (job, cluster, kind) ({PREFIX}cache_broadcast_up == 0)",
        "Processes do not hear of each other's writes",
        "{{ $value }} processes get no notices by {{ $labels.kind }}, and answer less from memory.",
    ),
]

_PERFORMANCE = [
    Alert(
        "RouterSlowRequestsRise",
        TICKET,
        "5m",
        "cluster:router_slow_requests:ratio_rate5m > 0.01\n"
        "and\ncluster:router_slow_requests:ratio_rate5m > 3 * cluster:router_slow_requests:ratio_rate6h",
        "More requests of {{ $labels.cluster }} are slow than usual",
        "{{ $value | humanizePercentage }} are, more than three times the share of the last six hours.",
    ),
    Alert(
        "RouterTenantTakesMost",
        TICKET,
        "10m",
        'tenant:router_request_seconds:rate5m{tenant!="_other"}\n'
        "/ on (job) group_left ()\nsum by (job) (tenant:router_request_seconds:rate5m) > 0.5\n"
        "and on (job)\n(\n  sum by (job) (tenant:router_wait_seconds:rate5m)\n"
        "  / sum by (job) (tenant:router_request_seconds:rate5m) > 0.1\n)",
        "{{ $labels.tenant }} takes most of the time while requests wait",
        "{{ $value | humanizePercentage }} of all time of requests is that tenant's, and a tenth is waiting.",
    ),
    Alert(
        "RouterLoopLags",
        TICKET,
        "2m",
        f"{PREFIX}loop_lag_seconds > 0.1",
        "The event loop of {{ $labels.instance }} is late",
        "By {{ $value | humanizeDuration }}: something blocks it, and every request of the process waits.",
    ),
]

_PROCESSES = [
    Alert(
        "RouterDown",
        PAGE,
        "1m",
        f"up == 0\nand on (job, instance)\nlast_over_time({PREFIX}build_info[1h])",
        "{{ $labels.instance }} is down",
        "Prometheus cannot scrape a process that ran the router within the last hour.",
    ),
    Alert(
        "RouterAbsent",
        PAGE,
        "5m",
        f"absent({PREFIX}build_info)",
        "No process runs the router",
        "None is scraped: all are down, or Prometheus does not know where they are.",
    ),
    Alert(
        "RouterConfigurationRefused",
        TICKET,
        "0s",
        f"count by (job) ({PREFIX}configuration_last_load_success == 0)",
        "The configuration of {{ $labels.job }} has mistakes",
        "{{ $value }} processes go on with the one before; one that is started now would not come up.",
    ),
    Alert(
        "RouterCatalogDown",
        PAGE,
        "1m",
        f"count by (job) ({PREFIX}catalog_usable == 0)",
        "{{ $labels.job }} cannot look tenants up",
        "{{ $value }} processes serve the tenants that they know; requests of all others fail.",
    ),
    Alert(
        "RouterSecretFails",
        PAGE,
        "0s",
        happened("secret_failures_total", "job, user", "5m", 'kept="no"'),
        "The password of {{ $labels.user }} cannot be had",
        "{{ printf `%.0f` $value }} connects within 5 minutes failed for it.",
    ),
    Alert(
        "RouterSecretOld",
        TICKET,
        "10m",
        f"count by (job, source) ({PREFIX}secret_failing == 1)",
        "{{ $labels.source }} cannot be read anew",
        "{{ $value }} processes go on with the password that they read last.",
    ),
    Alert(
        "RouterListenerMuted",
        TICKET,
        "0s",
        f"sum by (job, listener) ({PREFIX}listener_muted) > 0",
        "The listener {{ $labels.listener }} is muted",
        "It failed ten times in a row in {{ $value }} processes and hears nothing any more.",
    ),
    Alert(
        "RouterEventsDropped",
        TICKET,
        "1m",
        f"sum by (job, listener) (rate({PREFIX}events_dropped_total[5m])) > 0",
        "The listener {{ $labels.listener }} misses events",
        "{{ $value | humanize }} events a second found no room in its queue.",
    ),
]

ALERTS = [*_burns(), *_SERVERS, *_POOLS, *_WRITES, *_CACHE, *_PERFORMANCE, *_PROCESSES]


def groups(runbook: str) -> dict[str, Any]:
    """Return the file of alert rules; ``runbook`` is where the page of sections is."""
    return {"groups": [{"name": "router-alerts", "rules": [each.rule(runbook) for each in ALERTS]}]}
