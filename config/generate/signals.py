"""What several boards ask: how many requests, how many of them fail, how long they take."""

from config.generate.objectives import CALLERS, WRITES
from config.generate.promql import everywhere, in_cluster, or_none, rate, ratio, total, words

REQUESTS = rate(in_cluster("requests_total"))
BUCKETS = rate(in_cluster("request_duration_seconds_bucket"))
NOT_CALLERS = f'error!~"{CALLERS}"'
FAILURES = rate(in_cluster("errors_total", NOT_CALLERS))
FAILING = ratio(or_none(total(FAILURES), total(REQUESTS)), total(REQUESTS))

READS = rate(in_cluster("requests_total", 'kind="read"'))
READS_ELSEWHERE = rate(in_cluster("requests_total", 'kind="read"', 'role!="primary"'))
READS_ON_PRIMARY = rate(in_cluster("routes_total", 'role="primary"', f'reason!~"{words(WRITES)}"'))

STEPS = rate(in_cluster("request_step_seconds_total"))

NODES_UP = everywhere("node_up", 'node=~"$cluster/.*"')
NODES_DOWN = f"sum(min by (node) ({NODES_UP}) == bool 0)"

TENANT_TIME = rate(everywhere("tenant_request_seconds_total"))
