"""Are there enough connections, who waits for them, and is it fair."""

from config.generate.board import Board, Row, link_to
from config.generate.panels import BAD, WARN, Query, graph, heat, number
from config.generate.promql import (
    at_node,
    everywhere,
    in_cluster,
    increase,
    largest,
    quantile,
    rate,
    ratio,
    seen,
    top,
    total,
)

_WAITS = rate(in_cluster("pool_acquire_duration_seconds_bucket"))
_IN_USE = total(at_node("pool_connections", 'state="in_use"'), "node")
_LIMIT = total(at_node("pool_limit"), "node")
_TENANT_WAITS = total(rate(everywhere("tenant_wait_seconds_total", 'tenant!="_other"')), "tenant")
_USED = at_node("pool_used_ratio")
_AHEAD = f"clamp(predict_linear({_USED}[15m], 1800), 0, 2)"
_LINK = (link_to("router-tenant", "This tenant", tenant="${__field.labels.tenant}"),)

_NOW = (
    number(
        "Fullest pool",
        "Share of its limit that the fullest pool has in use.",
        "Near 100 % requests wait: see who holds connections, and for how long.",
        Query(f"max({_USED})"),
        unit="percentunit",
        width=6,
        most=1,
        thresholds=((0.7, WARN), (0.9, BAD)),
    ),
    number(
        "Fullest pool in half an hour",
        "Where the last quarter of an hour leads to, if it goes on like that.",
        "Over 100 %: raise connections.max or slow the growth before users notice.",
        Query(f"max({_AHEAD})"),
        unit="percentunit",
        width=6,
        least=None,
        thresholds=((0.8, WARN), (1, BAD)),
    ),
    number(
        "Waiting now",
        "Requests that wait for a connection at this moment.",
        "A few that come and go are normal.",
        Query(f"sum({at_node('pool_waiters')})"),
        width=6,
        thresholds=((10, WARN), (100, BAD)),
    ),
    number(
        "Wait, p99",
        "99 of 100 requests had their connection within this time.",
        "If it is more than the statements take, the pool is too small.",
        Query(quantile(0.99, _WAITS)),
        unit="s",
        width=6,
        thresholds=((0.1, WARN), (1, BAD)),
    ),
)

_CONNECTIONS = (
    graph(
        "Connections by state",
        "Connections of each server, of all processes together: in use and idle.",
        "Many idle for long: lower connections.idle. None idle: see who waits.",
        Query(total(at_node("pool_connections"), "node, state"), "{{node}} {{state}}"),
        stacked=True,
        width=12,
    ),
    graph(
        "In use, and the limit",
        "Connections in use beside the limits of all processes together.",
        "The sum of the limits must fit the server's own: max_connections less what others need.",
        Query(_IN_USE, "{{node}}"),
        Query(_LIMIT, "limit of {{node}}"),
        width=12,
    ),
    graph(
        "Fullest pool, and its forecast",
        "Share of its limit that the fullest pool of each server has in use, and where the last quarter of "
        "an hour leads to in half an hour.",
        "A forecast over 100 %: act before it is there.",
        Query(largest(_USED, "node"), "{{node}}"),
        Query(largest(_AHEAD, "node"), "{{node}} in 30 min"),
        unit="percentunit",
        thresholds=((0.9, BAD),),
    ),
    graph(
        "Pools",
        "Pools of each server: one a database and login, for tenants in databases of their own.",
        "Thousands: connections can hardly be shared; consider schemas instead.",
        Query(total(at_node("pools"), "node"), "{{node}}"),
    ),
    graph(
        "Opened and closed",
        "Connections made, and ended by reason.",
        "broken: a server or proxy cuts. dirty: the application leaves session state behind.",
        Query(total(rate(at_node("connections_opened_total")), "node"), "{{node}} opened"),
        Query(
            total(rate(at_node("connections_closed_total")), "node, reason"), "{{node}} closed: {{reason}}"
        ),
        unit="ops",
    ),
)

_WAITING = (
    graph(
        "Waiters",
        "Requests that wait for a connection of each server.",
        "A queue that does not empty: its statements are slow or its limit is low.",
        Query(total(at_node("pool_waiters"), "node"), "{{node}}"),
    ),
    graph(
        "Wait for a connection",
        "Half, 95 and 99 of 100 requests had theirs within this time, connecting included.",
        "p50 is next to 0 while an idle connection is there: if it is not, the pool is too small.",
        *(Query(quantile(share, _WAITS), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        unit="s",
    ),
    heat(
        "How waits are spread",
        "Each column is a moment, each row a time that requests waited for; the darker, the more did.",
        "Two bands mean two kinds of requests: those that find a connection, and those that queue.",
        Query(total(increase(in_cluster("pool_acquire_duration_seconds_bucket")), "le"), "{{le}}"),
    ),
    graph(
        "Refused",
        "Requests that got no connection: PoolTimeout waited too long, PoolFull found the queue full, "
        "PoolDeadlock would have waited for itself.",
        "Users see these as errors. Shorten what holds connections; then raise the limit.",
        Query(total(rate(at_node("pool_refused_total")), "node, error"), "{{node}} {{error}}"),
        unit="reqps",
    ),
    graph(
        "Time to connect",
        "95 of 100 connections were made within this time, TLS and login included.",
        "Slow connects behind a burst: keep some with connections.min.",
        Query(quantile(0.95, rate(at_node("connect_duration_seconds_bucket")), "node"), "{{node}}"),
        unit="s",
    ),
    graph(
        "Held for too long, or left running",
        "Units of work that held a connection beyond connections.leak_after, and given-up statements that "
        "may still run on the server.",
        "The event ConnectionHeld has the lines of your code that opened the unit of work.",
        Query(total(seen(at_node("connections_held_total")), "node"), "{{node}} held"),
        Query(total(seen(at_node("statements_left_total")), "node, error"), "{{node}} left: {{error}}"),
        bars=True,
    ),
)

_FAIRNESS = (
    graph(
        "Who waits",
        "Seconds a second that requests of each tenant waited for connections.",
        "All wait alike: the pool is too small. One waits: it is at its own limit.",
        Query(top(10, _TENANT_WAITS), "{{tenant}}"),
        stacked=True,
        width=12,
        links=_LINK,
    ),
    graph(
        "Share of a tenant's time that is waiting",
        "Of the time of its requests, the part until they had a connection.",
        "A tenant far above the others does not get its share: see limits.weight.",
        Query(
            top(
                10,
                ratio(
                    _TENANT_WAITS,
                    total(rate(everywhere("tenant_request_seconds_total", 'tenant!="_other"')), "tenant"),
                ),
            ),
            "{{tenant}}",
        ),
        unit="percentunit",
        width=12,
        most=1,
        links=_LINK,
    ),
)

BOARD = Board(
    uid="router-pools",
    title="Router: pools and fairness",
    question="Are there enough connections, who waits for them, and is it fair?",
    variables=("job", "cluster", "node"),
    rows=(
        Row("Now", _NOW),
        Row("Connections", _CONNECTIONS),
        Row("Waiting", _WAITING),
        Row("Fairness between tenants", _FAIRNESS),
    ),
)
