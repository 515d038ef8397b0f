"""What each alert is for, as series over two hours, and exactly which alerts fire: ``promtool test rules``.

All is well until minute 60; then comes what the situation is about, and at minute 80 somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TROUBLE, _LOOK, _END = 60, 80, 120  # minutes
_REQUESTS = 600  # a minute
_JOB = "JOB"  # stands for the situation: each is an application of its own, and all are looked at at once


def steady(value: float) -> str:
    """Return a gauge that stays."""
    return f"{value:g}x{_END}"


def growing(each_minute: float) -> str:
    """Return a counter that grows evenly."""
    return f"0+{each_minute:g}x{_END}"


def then(before: float, after: float) -> str:
    """Return a gauge that changes when the trouble comes."""
    return f"{before:g}x{_TROUBLE - 1} {after:g}x{_END - _TROUBLE}"


def from_then(each_minute: float, before: float = 0) -> str:
    """Return a counter that grows from when the trouble comes."""
    return f"{before:g}x{_TROUBLE - 1} {before + each_minute:g}+{each_minute:g}x{_END - _TROUBLE}"


def _series(name: str, **labels: str) -> str:
    given = {"job": _JOB, "instance": "app-1", **labels}
    chosen = ", ".join(f'{label}="{value}"' for label, value in given.items())
    return f"{name}{{{chosen}}}"


def _router(name: str, **labels: str) -> str:
    return _series(f"router_{name}", **labels)


_UP = _series("up")
_BUILD = _router("build_info", version="1", python="3.11")
_PRIMARY = _router("primary", cluster="main", node="main/primary")
_NODE_UP = _router("node_up", node="main/r1", role="replica")
_USABLE = _router("node_usable", node="main/r1")
_LAG = _router("replica_lag_seconds", node="main/r1")
_BREAKER = _router("breaker_open", node="main/r1")
_READS = _router("requests_total", cluster="main", role="replica", kind="read", outcome="ok")
_TIMED = {"cluster": "main", "role": "replica", "kind": "read"}
_QUICK = _router("request_duration_seconds_bucket", **_TIMED, le="0.25")
_COUNT = _router("request_duration_seconds_count", **_TIMED)
_FULL = _router("pool_used_ratio", node="main/primary")
_WAITERS = _router("pool_waiters", node="main/primary")
_LOADED = _router("configuration_last_load_success")
_CATALOG = _router("catalog_usable")
_SECRET = _router("secret_failing", source="${vault:secret/data/app}")
_ERRORS = _router("errors_total", cluster="main", error="ConnectionLost")
_MISTAKES = _router("errors_total", cluster="main", error="UniqueViolation")
_SLOW = _router("slow_requests_total", cluster="main")
_STANDBY = _router("primary", cluster="main", node="main/r1")
_FAILOVERS = _router("failovers_total", cluster="main")
_LOOP = _router("loop_lag_seconds")
_MUTED = _router("listener_muted", listener="app.listen")
_DROPPED = _router("events_dropped_total", listener="app.listen")
_TIER = _router("cache_tier_up")
_HEARD = _router("cache_broadcast_up", kind="redis", cluster="*")


def _of_tenant(what: str, tenant: str) -> str:
    return _router(f"tenant_{what}_seconds_total", tenant=tenant)


_TRAFFIC = {
    _READS: growing(_REQUESTS),
    _COUNT: growing(_REQUESTS),
    _QUICK: growing(_REQUESTS),
    _MISTAKES: growing(_REQUESTS / 10),
    _SLOW: growing(_REQUESTS / 1000),
    **{_of_tenant("request", tenant): growing(20) for tenant in ("acme", "globex", "initech")},
    **{_of_tenant("wait", tenant): growing(0.1) for tenant in ("acme", "globex", "initech")},
}
_NODES = {
    _PRIMARY: steady(1),
    _STANDBY: steady(0),
    _NODE_UP: steady(1),
    _USABLE: steady(1),
    _router("node_up", node="main/primary", role="primary"): steady(1),
    _router("node_usable", node="main/primary"): steady(1),
    _LAG: steady(0.2),
    _router("replica_lag_limit_seconds", node="main/r1"): steady(10),
    _BREAKER: steady(0),
    _FAILOVERS: growing(0),
    _READS: growing(_REQUESTS),
}
_CONNECTIONS = {_FULL: steady(0.3), _WAITERS: steady(0)}
_SHARED = {_TIER: steady(1), _HEARD: steady(1)}
_PROCESS = {
    _UP: steady(1),
    _BUILD: steady(1),
    _LOOP: steady(0.002),
    _MUTED: steady(0),
    _DROPPED: steady(3),
    _SECRET: steady(0),
    _LOADED: steady(1),
    _CATALOG: steady(1),
}
_ALL = _TRAFFIC | _NODES | _CONNECTIONS | _SHARED | _PROCESS


@dataclass(frozen=True)
class Situation:
    """Say what differs from the normal, and which alerts fire; a series of ``None`` is not there."""

    name: str
    firing: tuple[str, ...]
    series: Mapping[str, str | None] = field(default_factory=dict)
    look: int = _LOOK


def _rare(alert: str, metric: str, **labels: str) -> tuple[Situation, ...]:
    """Return what must never be missed: that a counter grows, and that a new one appears."""
    counter = _router(metric, **labels)
    once = f"0x{_LOOK - 1} 1x{_END - _LOOK}"
    new = f"_x{_LOOK} 1x{_END - _LOOK}"
    gaps = "5x20 stale 5x43 stale 5x8 stale 5x43"  # at minutes 21, 66 and 76: where windows of the look begin
    return (
        Situation(f"{metric} grows", (alert,), {counter: once}, _LOOK + 1),
        Situation(f"{metric} is seen for the first time", (alert,), {counter: new}, _LOOK + 1),
        Situation(f"{metric} grew long ago", (), {counter: f"0x5 1x{_END}"}),
        Situation(f"{metric} grew long ago, and scrapes have failed", (), {counter: gaps}, _LOOK + 1),
    )


def _failing(each_minute: float) -> dict[str, str | None]:
    return {_ERRORS: from_then(each_minute)}


_BURNS = (
    Situation("a tenth fails", ("RouterErrorsBurnFast", "RouterErrorsBurnSlow"), _failing(60)),
    Situation("one of 70 fails", ("RouterErrorsBurnSlow",), _failing(600 / 70)),
    Situation("the failing is over", ("RouterErrorsBurnSlow",), {
        _ERRORS: f"0x9 6+6x20 126x{_END}",
    }),
    Situation("one of three requests a night fails", (), {
        **dict.fromkeys((_READS, _COUNT, _QUICK), f"0x59 3x{_END}"),
        _ERRORS: f"0x59 1x{_END}",
        _MISTAKES: None,
        _SLOW: None,
    }),
    Situation("callers make mistakes", (), {
        _router("errors_total", cluster="main", error="InvalidStatement"): from_then(300),
    }),
    Situation("all requests are slow", ("RouterLatencyBurnFast", "RouterLatencyBurnSlow"), {
        _QUICK: f"0+{_REQUESTS}x{_TROUBLE - 1} {_REQUESTS * (_TROUBLE - 1)}x{_END}",
    }),
    Situation("one of 25 is slow", ("RouterLatencyBurnSlow",), {_QUICK: growing(_REQUESTS * 24 / 25)}),
)  # fmt: skip

_SERVERS = (
    Situation("the primary is gone", ("RouterNoPrimary",), {_PRIMARY: then(1, 0)}),
    Situation("a failover", (), {
        _FAILOVERS: then(0, 1),
        _PRIMARY: then(1, 0),
        _STANDBY: then(0, 1),
    }),
    Situation("failover after failover", ("RouterPrimaryFlaps",), {
        _FAILOVERS: f"0x{_TROUBLE - 1} 1x5 2x5 3x{_END}",
    }),
    Situation("a replica is gone", ("RouterNodeDown",), {_NODE_UP: then(1, 0), _USABLE: then(1, 0)}),
    Situation("a replica is not trusted", ("RouterReplicaUnusable",), {_USABLE: then(1, 0)}),
    Situation("a replica gets late", ("RouterReplicaLate",), {_LAG: then(0.2, 9)}),
    Situation("a breaker opens", ("RouterBreakerOpen",), {_BREAKER: then(0, 1)}),
    Situation("no replica can be read", ("RouterReadsOnPrimary",), {
        _router("routes_total", cluster="main", role="primary", reason="no_replica"): from_then(200),
    }),
)  # fmt: skip

_POOLS = (
    Situation("all connections are in use", ("RouterPoolSaturated",), {
        _FULL: then(0.3, 1), _WAITERS: then(0, 5),
    }),
    Situation("all are in use and nobody waits", (), {_FULL: then(0.3, 1)}),
    Situation("more and more are in use", ("RouterPoolFillsUp",), {_FULL: f"0.05+0.01x{_END}"}),
    Situation("requests are refused", ("RouterPoolRefuses",), {
        _router("pool_refused_total", node="main/primary", error="PoolTimeout"): from_then(6),
    }),
    Situation("connections fail", ("RouterConnectionsFail",), {
        _router("connections_failed_total", node="main/r1", error="ConnectError"): from_then(6),
    }),
    *_rare("RouterConnectionsHeld", "connections_held_total", node="main/primary"),
    *_rare("RouterStatementsLeft", "statements_left_total", node="main/primary", error="ConnectError"),
)  # fmt: skip

_WRITES = (
    *_rare("RouterRetriesDenied", "retries_denied_total", cluster="main"),
    *_rare("RouterCommitsUnknown", "commits_unknown_total", cluster="main"),
    *_rare("RouterWritesLost", "writes_lost_total", cluster="main", certain="yes"),
    *_rare("RouterTokensForged", "tokens_ignored_total", cluster="main", refusal="forged"),
    Situation("a token has expired", (), {
        _router("tokens_ignored_total", cluster="main", refusal="expired"): from_then(1),
    }),
)  # fmt: skip

_CACHE = (
    *_rare("RouterCacheNotWorthIt", "cache_not_worth_it_total", reason="absent"),
    Situation("the shared tier is down", ("RouterCacheTierDown",), {_TIER: then(1, 0)}),
    Situation("no notices come", ("RouterCacheDeaf",), {_HEARD: then(1, 0)}),
)

_PERFORMANCE = (
    Situation("requests become slow", ("RouterSlowRequestsRise",), {
        _SLOW: from_then(30),
    }),
    Situation("requests were always slow", (), {_SLOW: growing(30)}),
    Situation("one tenant takes most while all wait", ("RouterTenantTakesMost",), {
        _of_tenant("request", "acme"): from_then(200), _of_tenant("wait", "globex"): from_then(60),
    }),
    Situation("one tenant takes most and nobody waits", (), {_of_tenant("request", "acme"): from_then(200)}),
    Situation("the loop is blocked", ("RouterLoopLags",), {_LOOP: then(0.002, 0.4)}),
)  # fmt: skip

_PROCESSES = (
    Situation("one of two processes ends", ("RouterDown",), {
        _UP: then(1, 0),
        _BUILD: f"1x{_TROUBLE - 1} stale",
        _router("build_info", instance="app-2", version="1", python="3.11"): steady(1),
    }),
    Situation("a process was taken away in order", (), {
        _UP: f"1x{_TROUBLE - 1} stale",
        _BUILD: f"1x{_TROUBLE - 1} stale",
        _router("build_info", instance="app-2", version="1", python="3.11"): steady(1),
    }),
    Situation("a reload was refused", ("RouterConfigurationRefused",), {_LOADED: then(1, 0)}),
    Situation("tenants cannot be looked up", ("RouterCatalogDown",), {_CATALOG: then(1, 0)}),
    *_rare("RouterSecretFails", "secret_failures_total", user="app", kept="no"),
    Situation("a store is down and passwords are kept", ("RouterSecretOld",), {
        _router("secret_failures_total", user="app", kept="yes"): from_then(1),
        _SECRET: then(0, 1),
    }),
    Situation("a listener is muted", ("RouterListenerMuted",), {_MUTED: then(0, 1)}),
    Situation("events are dropped", ("RouterEventsDropped",), {_DROPPED: from_then(60, 3)}),
)  # fmt: skip

NOTHING = Situation("nothing is scraped", ("RouterAbsent",), {_BUILD: f"1x{_TROUBLE - 1} stale"})

FAMILIES: tuple[tuple[Mapping[str, str], tuple[Situation, ...]], ...] = (
    (_ALL, (Situation("all is well", ()),)),
    (_TRAFFIC, _BURNS),
    (_NODES, _SERVERS),
    (_CONNECTIONS, _POOLS),
    ({}, _WRITES),
    (_SHARED, _CACHE),
    (_TRAFFIC | _PROCESS, _PERFORMANCE),
    (_PROCESS, _PROCESSES),
)
"""Situations, and what is normal of that which they are about."""


def _input(normal: Mapping[str, str], situation: Situation) -> list[dict[str, str]]:
    series = {**normal, **situation.series}
    return [
        {"series": name.replace(_JOB, situation.name), "values": values}
        for name, values in series.items()
        if values
    ]


def _firing(situation: Situation, where: str) -> dict[str, Any]:
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in situation.firing]
    return {
        "expr": f'count by (alertname) (ALERTS{{alertstate="firing", {where}}})',
        "eval_time": f"{situation.look}m",
        "exp_samples": expected,
    }


def suite() -> dict[str, Any]:
    """Return the file that ``promtool test rules`` runs; nothing at all can only be looked at alone."""
    beside = [(normal, each) for normal, situations in FAMILIES for each in situations]
    together = {
        "interval": "1m",
        "input_series": [series for normal, each in beside for series in _input(normal, each)],
        "promql_expr_test": [_firing(each, f'job="{each.name}"') for _, each in beside],
    }
    alone = {
        "interval": "1m",
        "input_series": _input({}, NOTHING),
        "promql_expr_test": [_firing(NOTHING, 'alertname!=""')],
    }
    return {
        "rule_files": ["rules/recording.yml", "rules/alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [together, alone],
    }
