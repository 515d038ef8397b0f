"""Recording rules: what boards and alerts ask of long windows, so that it is computed once."""

from __future__ import annotations

from typing import Any

from config.generate.objectives import CALLERS, QUICK, WINDOWS, WITHOUT_REPLICA
from config.generate.promql import PREFIX

BY = "job, cluster"


def rate_by(metric: str, window: str, *matchers: str) -> str:
    """Add up over processes how fast a counter grows."""
    chosen = f"{PREFIX}{metric}{{{', '.join(matchers)}}}" if matchers else f"{PREFIX}{metric}"
    return f"sum by ({BY}) (rate({chosen}[{window}]))"


def share(part: str, whole: str) -> str:
    """Return a share: 0 where nothing was counted, nothing where nothing was asked."""
    return f"({part} or {whole} * 0)\n/\n({whole} > 0)"


def _of_window(window: str) -> list[tuple[str, str]]:
    requests = f"cluster:router_requests:rate{window}"
    failed = rate_by("errors_total", window, f'error!~"{CALLERS}"')
    timed = rate_by("request_duration_seconds_count", window)
    quick = rate_by("request_duration_seconds_bucket", window, f'le="{QUICK}"')
    return [
        (requests, rate_by("requests_total", window)),
        (f"cluster:router_failures:ratio_rate{window}", share(failed, requests)),
        (f"cluster:router_slowness:ratio_rate{window}", f"1 - {quick}\n/\n({timed} > 0)"),
    ]


def _slow(window: str) -> tuple[str, str]:
    slow = rate_by("slow_requests_total", window)
    return f"cluster:router_slow_requests:ratio_rate{window}", share(
        slow, f"cluster:router_requests:rate{window}"
    )


_WITHOUT = (
    "cluster:router_reads_without_replica:ratio_rate5m",
    share(
        rate_by("routes_total", "5m", 'role="primary"', f'reason=~"{WITHOUT_REPLICA}"'),
        rate_by("requests_total", "5m", 'kind="read"'),
    ),
)
_TENANTS = (
    "tenant:router_request_seconds:rate5m",
    f"sum by (job, tenant) (rate({PREFIX}tenant_request_seconds_total[5m]))",
)
_TENANT_WAITS = (
    "tenant:router_wait_seconds:rate5m",
    f"sum by (job, tenant) (rate({PREFIX}tenant_wait_seconds_total[5m]))",
)


def groups() -> dict[str, Any]:
    """Return the file of recording rules; within a group a rule may use those before it."""
    objectives = [rule for window in WINDOWS for rule in _of_window(window)]
    signals = [_slow("5m"), _slow("6h"), _WITHOUT, _TENANTS, _TENANT_WAITS]
    return {
        "groups": [
            {"name": name, "rules": [{"record": record, "expr": expr} for record, expr in rules]}
            for name, rules in (("router-records", objectives + signals),)
        ]
    }
