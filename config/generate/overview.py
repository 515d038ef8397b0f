"""Is everything well, and if not, where to look next."""

from config.generate import signals
from config.generate.board import Board, Row, link_to
from config.generate.objectives import AVAILABLE, QUICK, QUICK_ENOUGH
from config.generate.panels import BAD, WARN, Query, graph, listing, number
from config.generate.promql import everywhere, in_cluster, largest, or_none, quantile, rate, ratio, top, total

_NOW = (
    number(
        "Requests a second",
        "All requests of all processes, those answered from the cache too.",
        "If it falls while users are there, look at the processes and at what is before them.",
        Query(total(signals.REQUESTS)),
        unit="reqps",
    ),
    number(
        "Failing",
        "Share of requests that failed because of the router or its servers. Mistakes of the caller, such as "
        "a unique violation, do not count.",
        "See the errors by name below, then the board of clusters.",
        Query(signals.FAILING),
        unit="percentunit",
        thresholds=((1 - AVAILABLE, WARN), (0.01, BAD)),
    ),
    number(
        "p99",
        "99 of 100 requests are answered within this time, waiting for a connection included.",
        "If it rises, see on the board of slow queries which step takes the time.",
        Query(quantile(0.99, signals.BUCKETS)),
        unit="s",
        thresholds=((QUICK, WARN), (1.0, BAD)),
    ),
    number(
        "Reads off the primary",
        "Share of reads that a replica or the cache answered.",
        "If it falls, see below why reads went to the primary.",
        Query(ratio(or_none(total(signals.READS_ELSEWHERE), total(signals.READS)), total(signals.READS))),
        unit="percentunit",
        most=1,
    ),
    number(
        "Nodes down",
        "Nodes that some process cannot reach.",
        "The board of clusters shows which, and since when.",
        Query(signals.NODES_DOWN),
        thresholds=((1, BAD),),
    ),
    number(
        "Processes",
        "Processes whose metrics are scraped.",
        "If there are fewer than you run, see in Prometheus which targets it cannot reach.",
        Query(total(everywhere("workers"))),
    ),
)

_TRAFFIC = (
    graph(
        "Requests by role",
        "Where requests were answered: primary, replica or cache.",
        "A jump of the primary's share is explained under «Why reads went to the primary».",
        Query(total(signals.REQUESTS, "role"), "{{role}}"),
        unit="reqps",
        stacked=True,
    ),
    graph(
        "Errors by name",
        "Requests that failed for good, after all retries, by the class of their error; the caller's own "
        "mistakes are among them.",
        "Look the name up in docs/errors.md: it says what to do about each.",
        Query(total(rate(in_cluster("errors_total")), "cluster, error"), "{{cluster}} {{error}}"),
        unit="reqps",
    ),
    graph(
        "Latency",
        "Time of whole requests: half, 95 and 99 of 100 are quicker. Points are single requests with a "
        "trace, where the scrape has exemplars.",
        "If only p99 rises, look at waits for connections; if p50 rises too, at the servers.",
        *(
            Query(quantile(share, signals.BUCKETS), f"p{share * 100:g}", exemplar=share == 0.99)
            for share in (0.5, 0.95, 0.99)
        ),
        unit="s",
        thresholds=((QUICK, WARN),),
    ),
)

_ROUTING = (
    graph(
        "Share of primary, replicas and cache",
        "How requests are split, to a hundred.",
        "Replicas that get little cost money for nothing; see the reasons beside this.",
        Query(total(signals.REQUESTS, "role"), "{{role}}"),
        unit="reqps",
        percent=True,
    ),
    graph(
        "Why reads went to the primary",
        "Reads that a replica might have answered, by the reason that they went to the primary. The words "
        "are explained in docs/concepts.md.",
        "no_replica, replicas_late: mend the replicas. own_write, token_ahead: lower the lag, or allow a "
        "wait. unknown_function, unparsed: declare the read.",
        Query(total(signals.READS_ON_PRIMARY, "reason"), "{{reason}}"),
        unit="reqps",
        stacked=True,
    ),
    listing(
        "Firing alerts",
        "Alerts of the router that fire or are about to, with their severity.",
        "Each has a section in docs/dashboards.md that says what to look at and what to do.",
        Query('ALERTS{alertname=~"Router.*"}'),
        {
            "alertname": "Alert",
            "severity": "Severity",
            "alertstate": "State",
            "cluster": "Cluster",
            "node": "Node",
            "tenant": "Tenant",
            "instance": "Process",
        },
    ),
)

_BUDGET = 1 - AVAILABLE
_SPENT = ratio(
    or_none(
        f"sum by (cluster) (increase({in_cluster('errors_total', signals.NOT_CALLERS)}[$__range]))",
        f"sum by (cluster) (increase({in_cluster('requests_total')}[$__range]))",
    ),
    f"sum by (cluster) (increase({in_cluster('requests_total')}[$__range]))",
)


def _burn(kind: str, window: str, budget: float) -> str:
    selector = f'cluster:router_{kind}:ratio_rate{window}{{job=~"$job", cluster=~"$cluster"}}'
    return f"max by (cluster) ({selector}) / {budget:g}"


_OBJECTIVES = (
    graph(
        "Burn rate of failures",
        f"How many times faster than allowed the error budget goes ({AVAILABLE:.1%} of requests are to "
        f"succeed over 30 days). 1 uses it up exactly, 14.4 for an hour takes 2 % of it.",
        "Over a dashed line for an hour somebody is paged. See the errors by name.",
        Query(_burn("failures", "5m", _BUDGET), "{{cluster}} 5 min"),
        Query(_burn("failures", "1h", _BUDGET), "{{cluster}} 1 h"),
        thresholds=((1, WARN), (14.4, BAD)),
    ),
    graph(
        "Burn rate of slowness",
        f"The same for {QUICK_ENOUGH:.0%} of requests that are to be answered within {QUICK:g} s.",
        "See on the board of slow queries which step takes the time.",
        Query(_burn("slowness", "5m", 1 - QUICK_ENOUGH), "{{cluster}} 5 min"),
        Query(_burn("slowness", "1h", 1 - QUICK_ENOUGH), "{{cluster}} 1 h"),
        thresholds=((1, WARN), (14.4, BAD)),
    ),
    graph(
        "Error budget left",
        "Share of the budget that is left if the time range shown were the 30 days: 100 % without failures, "
        "below 0 the objective is missed. Set the range to 30 days for the real figure.",
        "When little is left, put off what is risky.",
        Query(f"1 - {_SPENT} / {_BUDGET:g}", "{{cluster}}"),
        unit="percentunit",
        least=None,
        most=1,
    ),
)

_PROCESS = "{{instance}}"
_PROCESSES = (
    graph(
        "Configuration generation",
        "How often each process has loaded a configuration since its start. All step up together when the "
        "files change.",
        "A process that stays behind found mistakes: its event ConfigurationRefused has the file and line.",
        Query(everywhere("configuration_generation"), _PROCESS),
        width=6,
    ),
    graph(
        "Loop lag",
        "How late the event loop of each process was at its last look.",
        "Above 100 ms something blocks the loop: look for synchronous calls and for listeners that are slow.",
        Query(everywhere("loop_lag_seconds"), _PROCESS),
        unit="s",
        width=6,
        thresholds=((0.1, BAD),),
    ),
    graph(
        "Events dropped and listeners failing",
        "Events that a queue had no room for, and calls of listeners that raised. No request suffers.",
        "A listener that drops is too slow: give it a larger queue or less to do. Its log line has the "
        "error.",
        Query(total(rate(everywhere("events_dropped_total")), "listener"), "dropped: {{listener}}"),
        Query(total(rate(everywhere("listener_errors_total")), "listener"), "failed: {{listener}}"),
        width=6,
    ),
    graph(
        "Time of a scrape",
        "How long the metrics of each process take to be rendered, beside the event loop.",
        "If it rises, see how many tenants have series: observability.metrics.tenants bounds them.",
        Query(everywhere("scrape_duration_seconds"), _PROCESS),
        unit="s",
        width=6,
    ),
    graph(
        "Listeners' queues",
        "Events that wait for listeners which work beside the requests: traces, audit, your own.",
        "A queue that grows will drop; see beside this whether it does.",
        Query(largest(everywhere("listener_queue"), "listener"), "{{listener}}"),
        width=6,
    ),
    graph(
        "Listeners muted",
        "Listeners that failed ten times in a row and are not called any more.",
        "Find their log line, mend them, and restart the process.",
        Query(total(everywhere("listener_muted"), "listener"), "{{listener}}"),
        width=6,
        thresholds=((1, BAD),),
    ),
    graph(
        "Busiest tenants",
        "Requests a second of the tenants with most.",
        "Follow the link of a tenant to its own board.",
        Query(top(5, total(rate(everywhere("tenant_requests_total")), "tenant")), "{{tenant}}"),
        unit="reqps",
        width=6,
        links=(link_to("router-tenant", "This tenant", tenant="${__field.labels.tenant}"),),
    ),
    listing(
        "Versions",
        "The version that each process runs.",
        "Two versions for longer than a deployment takes: it has stopped half way.",
        Query(everywhere("build_info")),
        {"instance": "Process", "version": "Router", "python": "Python"},
        width=6,
    ),
    graph(
        "Tenants looked up",
        "Questions for tenants that have no file, by what came of them. Each is in memory afterwards.",
        "failed: see what catalog names, a table, a folder or a function. refused: what is said of a tenant "
        "has mistakes, its event TenantRefused has them.",
        Query(total(rate(everywhere("catalog_lookups_total")), "outcome"), "{{outcome}}"),
        width=12,
    ),
    graph(
        "Tenants known",
        "Tenants that have a file, and those in the memory of the process that has looked up most.",
        "Where those in memory reach catalog.cache, others are forgotten for each new one: raise it.",
        Query(f"max({everywhere('tenants_configured')})", "with a file"),
        Query(f"max({everywhere('catalog_tenants')})", "looked up"),
        width=12,
    ),
)

BOARD = Board(
    uid="router-overview",
    title="Router: overview",
    question="Is everything well, and if not, where to look next?",
    variables=("job", "cluster"),
    rows=(
        Row("Now", _NOW),
        Row("Traffic", _TRAFFIC),
        Row("Where requests go, and why", _ROUTING),
        Row("Objectives", _OBJECTIVES),
        Row("Processes", _PROCESSES),
    ),
)
