"""Build PromQL, so that every panel filters alike; ``$job`` and its kin are variables of the boards."""

from collections.abc import Iterable

PREFIX = "router_"
RANGE = "$__range"  # Grafana's: all that is shown
WINDOW = "$__rate_interval"  # Grafana's: four scrapes at least, more when the panel shows days


def everywhere(metric: str, *matchers: str) -> str:
    """Select a metric of the chosen applications."""
    chosen = ", ".join(('job=~"$job"', *matchers))
    return f"{PREFIX}{metric}{{{chosen}}}"


def in_cluster(metric: str, *matchers: str) -> str:
    """Select a metric of the chosen clusters."""
    return everywhere(metric, 'cluster=~"$cluster"', *matchers)


def at_node(metric: str, *matchers: str) -> str:
    """Select a metric of the chosen nodes, which are named cluster/node."""
    return everywhere(metric, 'node=~"$node"', *matchers)


def of_tenant(metric: str, *matchers: str) -> str:
    """Select a metric of the chosen tenants."""
    return everywhere(metric, 'tenant=~"$tenant"', *matchers)


def rate(selector: str, window: str = WINDOW) -> str:
    """Return how fast a counter grows a second."""
    return f"rate({selector}[{window}])"


def increase(selector: str, window: str = WINDOW) -> str:
    """Return by how much a counter grew."""
    return f"increase({selector}[{window}])"


def total(vector: str, by: str = "") -> str:
    """Add up, keeping the labels ``by``."""
    return f"sum by ({by}) ({vector})" if by else f"sum({vector})"


def largest(vector: str, by: str) -> str:
    """Return the greatest of the processes, keeping the labels ``by``."""
    return f"max by ({by}) ({vector})"


def ratio(part: str, whole: str) -> str:
    """Return a share, and nothing where there is nothing to share."""
    return f"{part} / ({whole} > 0)"


def or_none(counted: str, asked: str) -> str:
    """Return 0 where something is asked for and nothing has ever been counted."""
    return f"({counted} or {asked} * 0)"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """Estimate a quantile of a histogram; ``histogram`` is the rate of its buckets."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {total(histogram, labels)})"


def top(count: int, vector: str) -> str:
    """Keep the greatest."""
    return f"topk({count}, {vector})"


def seen(selector: str, window: str = WINDOW) -> str:
    """Return how often something rare happened.

    A counter may be 1 already when it is seen for the first time: ``increase`` takes that for its beginning
    and says 0. So a series that was not there before counts with all it has; an hour is looked at, lest one
    scrape that failed makes an old counter look new.
    """
    fresh = f"{selector} unless count_over_time({selector}[1h] offset {window})"
    return f"(({fresh}) or {increase(selector, window)})"


def happened(metric: str, by: str, window: str, *matchers: str) -> str:
    """Return how often something rare happened in all processes, if it did."""
    chosen = f"{PREFIX}{metric}{{{', '.join(matchers)}}}" if matchers else f"{PREFIX}{metric}"
    return f"{total(seen(chosen, window), by)} > 0"


def words(names: Iterable[str]) -> str:
    """Return a regular expression for one of the names."""
    return "|".join(sorted(names))
