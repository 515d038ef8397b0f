"""Who is noisy, who suffers, and how one tenant fares."""

from config.generate import signals
from config.generate.board import Board, Row, link_to
from config.generate.panels import BAD, WARN, Query, graph, number, ranking
from config.generate.promql import everywhere, of_tenant, or_none, rate, ratio, top, total

_NAMED = 'tenant!="_other"'
_LINK = (link_to("router-tenant", "Only this tenant", tenant="${__field.labels.tenant}"),)
_MOST = 10


def _ranked(metric: str, *matchers: str) -> Query:
    return Query(
        top(_MOST, total(rate(everywhere(metric, _NAMED, *matchers)), "tenant") + " > 0"), "{{tenant}}"
    )


_NOISY = (
    ranking(
        "Most time",
        "Seconds of requests a second, waits included: how many requests of the tenant run at once, on "
        "average.",
        "One far ahead of the others: see its slow requests, and bound it by limits.connections.",
        _ranked("tenant_request_seconds_total"),
        unit="short",
        width=6,
        links=_LINK,
    ),
    ranking(
        "Most waiting",
        "Seconds a second that requests of the tenant waited for a connection.",
        "If they wait for their own limit, raise limits.connections or limits.weight; if all wait, the pool "
        "is too small or its servers too slow.",
        _ranked("tenant_wait_seconds_total"),
        unit="short",
        width=6,
        links=_LINK,
    ),
    ranking(
        "Most errors",
        "Requests of the tenant that failed, a second.",
        "Follow the link, then look for the tenant in the log.",
        _ranked("tenant_requests_total", 'outcome="error"'),
        unit="reqps",
        width=6,
        links=_LINK,
    ),
    ranking(
        "Most slow requests",
        "Requests over the tenant's own threshold, a second.",
        "`router slow` names the statements.",
        _ranked("tenant_slow_requests_total"),
        unit="reqps",
        width=6,
        links=_LINK,
    ),
    graph(
        "Share of all time",
        "How the time of all requests is divided among the tenants, to a hundred.",
        "A tenant with more than half is worth a cluster of its own, or a limit.",
        Query(top(_MOST, total(signals.TENANT_TIME, "tenant")), "{{tenant}}"),
        percent=True,
        width=12,
        links=_LINK,
    ),
    graph(
        "Requests of the busiest",
        "Requests a second of the tenants with most; _other are all that have no series of their own.",
        "Who must always be seen belongs into observability.metrics.always.",
        Query(top(_MOST, total(rate(everywhere("tenant_requests_total")), "tenant")), "{{tenant}}"),
        unit="reqps",
        stacked=True,
        width=12,
        links=_LINK,
    ),
)

_ASKED = total(rate(of_tenant("tenant_requests_total")), "tenant")
_FAILED = total(rate(of_tenant("tenant_requests_total", 'outcome="error"')), "tenant")
_SLOW = total(rate(of_tenant("tenant_slow_requests_total")), "tenant")
_TIME = total(rate(of_tenant("tenant_request_seconds_total")), "tenant")
_WAIT = total(rate(of_tenant("tenant_wait_seconds_total")), "tenant")
_ROWS = total(rate(of_tenant("tenant_rows_total")), "tenant")
_LOOKED_UP = of_tenant("cache_requests_total", 'result=~"hit|joined|remote|miss"')
_ANSWERED = of_tenant("cache_requests_total", 'result=~"hit|joined|remote"')

_CHOSEN = (
    graph(
        "Requests",
        "Requests a second of the chosen tenants, by outcome.",
        "Compare with yesterday before you call it a change.",
        Query(total(rate(of_tenant("tenant_requests_total")), "tenant, outcome"), "{{tenant}} {{outcome}}"),
        unit="reqps",
    ),
    graph(
        "Share that failed",
        "Requests that failed, the caller's own mistakes among them.",
        "The log has one line a failure, with tenant, node and code.",
        Query(ratio(or_none(_FAILED, _ASKED), _ASKED), "{{tenant}}"),
        unit="percentunit",
        thresholds=((0.01, WARN), (0.05, BAD)),
    ),
    graph(
        "Mean time of a request",
        "Waits included. There is no histogram for each tenant: it would be too many series.",
        "For quantiles of one tenant see its traces, or its slow requests.",
        Query(ratio(_TIME, _ASKED), "{{tenant}}"),
        unit="s",
    ),
    graph(
        "Mean wait for a connection",
        "Part of the time above until a connection was had.",
        "If it is most of the time, see the board of pools; the servers are not the cause.",
        Query(ratio(_WAIT, _ASKED), "{{tenant}}"),
        unit="s",
    ),
    graph(
        "Share that was slow",
        "Requests over the tenant's threshold slow_query.",
        "`router slow` lists the statements.",
        Query(ratio(or_none(_SLOW, _ASKED), _ASKED), "{{tenant}}"),
        unit="percentunit",
    ),
    graph(
        "Rows of a request",
        "Rows that a request returned or changed, on average.",
        "If it grows with the tenant, a statement lacks a LIMIT.",
        Query(ratio(_ROWS, _ASKED), "{{tenant}}"),
    ),
    graph(
        "Answered from the cache",
        "Share of looked-up reads that the database did not see.",
        "See the board of the cache for why not.",
        Query(
            ratio(
                or_none(total(rate(_ANSWERED), "tenant"), total(rate(_LOOKED_UP), "tenant")),
                total(rate(_LOOKED_UP), "tenant"),
            ),
            "{{tenant}}",
        ),
        unit="percentunit",
        most=1,
    ),
    graph(
        "Database time saved by the cache",
        "Seconds a second that answers from the cache would have taken.",
        "Little for many look-ups: the reads are cheap; leave them uncached.",
        Query(total(rate(of_tenant("cache_saved_seconds_total")), "tenant"), "{{tenant}}"),
        width=8,
    ),
    number(
        "Tenants configured",
        "Tenants that the router knows.",
        "None: no tenant file was found.",
        Query(f"max({everywhere('tenants_configured')})"),
    ),
    number(
        "Folded into _other",
        "Tenants without series of their own, for there is a bound to their number.",
        "Raise observability.metrics.tenants only if a scrape stays quick.",
        Query(f"max({everywhere('tenants_folded')})"),
    ),
)

BOARD = Board(
    uid="router-tenant",
    title="Router: tenants",
    question="Which tenant is noisy, which one suffers, and how does one fare?",
    variables=("job", "tenant"),
    rows=(Row("Noisy tenants", _NOISY), Row("Chosen tenants: $tenant", _CHOSEN)),
)
