"""Which statements are slow, and in which step the time goes."""

from config.generate import signals
from config.generate.board import Board, Row, link_to
from config.generate.objectives import QUICK
from config.generate.panels import BAD, WARN, Query, graph, heat, number, ranking
from config.generate.promql import (
    everywhere,
    in_cluster,
    increase,
    or_none,
    quantile,
    rate,
    ratio,
    top,
    total,
)

_ASKED = total(signals.REQUESTS)
_SLOW = rate(in_cluster("slow_requests_total"))
_QUICK = rate(in_cluster("request_duration_seconds_bucket", f'le="{QUICK}"'))
_TIMED = total(rate(in_cluster("request_duration_seconds_count")))
_PRINTS = total(rate(everywhere("slow_statement_seconds_total")), "fingerprint")

_NOW = (
    number(
        "Slow requests a second",
        "Requests over their tenant's threshold slow_query.",
        "The fingerprints below name the statements.",
        Query(total(_SLOW)),
        unit="reqps",
        width=6,
    ),
    number(
        "Share that is slow",
        "Slow requests of all requests.",
        "A share that rises while traffic does not: a plan has changed, or a table has grown.",
        Query(ratio(or_none(total(_SLOW), _ASKED), _ASKED)),
        unit="percentunit",
        width=6,
        thresholds=((0.01, WARN), (0.05, BAD)),
    ),
    number(
        f"Slower than {QUICK:g} s",
        "Share of requests that miss the objective for latency.",
        "See which step takes the time.",
        Query(f"1 - {ratio(total(_QUICK), _TIMED)}"),
        unit="percentunit",
        width=6,
        thresholds=((0.01, WARN), (0.05, BAD)),
    ),
    number(
        "Waiting, of all time",
        "Share of the time of requests that passed before they had a connection.",
        "More than a tenth: it is the pools, not the statements.",
        Query(
            ratio(
                total(rate(in_cluster("request_step_seconds_total", 'step=~"queue|connect|bind|catch_up"'))),
                total(signals.STEPS),
            )
        ),
        unit="percentunit",
        width=6,
        thresholds=((0.1, WARN), (0.5, BAD)),
    ),
)

_STATEMENTS = (
    ranking(
        "Statements with most time",
        "Seconds a second of the statements that cost most, slow or not, by fingerprint; 20 have series.",
        "`router slow` shows the text, the nodes and the worst trace of a fingerprint.",
        Query(top(20, _PRINTS + " > 0"), "{{fingerprint}}"),
        unit="short",
        height=12,
        width=10,
    ),
    graph(
        "Statements with most time, over time",
        "The same over time.",
        "One that begins at a deployment came with it.",
        Query(top(10, _PRINTS), "{{fingerprint}}"),
        stacked=True,
        height=12,
        width=14,
    ),
    graph(
        "Slow requests by cluster",
        "Requests over their tenant's threshold.",
        "All clusters at once: look at what they share.",
        Query(total(_SLOW, "cluster"), "{{cluster}}"),
        unit="reqps",
        width=12,
    ),
    graph(
        "Slow requests by tenant",
        "Those of the tenants with most.",
        "Follow the link to the tenant.",
        Query(top(10, total(rate(everywhere("tenant_slow_requests_total")), "tenant")), "{{tenant}}"),
        unit="reqps",
        width=12,
        links=(link_to("router-tenant", "This tenant", tenant="${__field.labels.tenant}"),),
    ),
)

_STEPS = (
    graph(
        "Where time goes",
        "How the time of all requests is divided: lookup, queue, connect, bind, catch_up, execute, fetch.",
        "queue: pools. connect: too few kept. catch_up: late replicas. execute: the statements. lookup: "
        "texts that are new each time.",
        Query(total(signals.STEPS, "step"), "{{step}}"),
        percent=True,
    ),
    graph(
        "Time of each step",
        "Seconds of each step in a request, on average.",
        "The one that grew is where to look.",
        Query(f"{total(signals.STEPS, 'step')} / on () group_left {_ASKED}", "{{step}}"),
        unit="s",
        stacked=True,
    ),
    graph(
        "Where time goes, by cluster",
        "Seconds a second that the servers of each cluster work for requests.",
        "The cluster with most needs the next replica.",
        Query(
            total(rate(in_cluster("request_step_seconds_total", 'step=~"execute|fetch"')), "cluster"),
            "{{cluster}}",
        ),
        stacked=True,
    ),
)

_LATENCY = (
    graph(
        "p95 by role and kind",
        "95 of 100 requests of each role and kind were answered within this time.",
        "Replicas slower than the primary: they lack memory, or replay blocks queries.",
        Query(quantile(0.95, signals.BUCKETS, "role, kind"), "{{role}} {{kind}}"),
        unit="s",
        width=12,
    ),
    heat(
        "How latency is spread",
        "Each column is a moment, each row a time; the darker, the more requests took it. Points are single "
        "requests with a trace.",
        "A band that moves up is a statement that became slow; a cloud above is waiting.",
        Query(total(increase(in_cluster("request_duration_seconds_bucket")), "le"), "{{le}}", exemplar=True),
        width=12,
    ),
)

BOARD = Board(
    uid="router-slow",
    title="Router: slow queries",
    question="Which statements are slow, and in which step does the time go?",
    variables=("job", "cluster"),
    rows=(
        Row("Now", _NOW),
        Row("Statements", _STATEMENTS),
        Row("Where time goes", _STEPS),
        Row("Latency", _LATENCY),
    ),
)
