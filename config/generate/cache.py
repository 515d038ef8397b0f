"""What the cache saves, and whether sessions see their own writes."""

from config.generate.board import Board, Row
from config.generate.panels import BAD, GOOD, WARN, Query, graph, heat, number, timeline
from config.generate.promql import (
    RANGE,
    everywhere,
    in_cluster,
    increase,
    or_none,
    quantile,
    rate,
    ratio,
    seen,
    top,
    total,
)

_LOOKED_UP = total(rate(everywhere("cache_requests_total", 'result=~"hit|joined|remote|miss"')))
_ANSWERED = total(rate(everywhere("cache_requests_total", 'result=~"hit|joined|remote"')))
_SAVED = rate(everywhere("cache_saved_seconds_total"))
_CATCH_UP = rate(in_cluster("token_wait_duration_seconds_bucket"))

_WORTH = (
    number(
        "Answered from the cache",
        "Share of looked-up reads that the database did not see.",
        "Below 30 % most of what is kept is never asked for again: see why below.",
        Query(ratio(or_none(_ANSWERED, _LOOKED_UP), _LOOKED_UP)),
        unit="percentunit",
        width=6,
        most=1,
    ),
    number(
        "Database time saved",
        "Seconds a second that the answers from the cache took when they were read: 2 are two busy "
        "connections.",
        "Compare with what the cache costs: its memory, and the shared tier.",
        Query(total(_SAVED)),
        width=6,
    ),
    number(
        "Stale reads avoided",
        "Reads in the range shown that a late replica would have answered with old data.",
        "That is what tokens are for; many mean that the replicas are late.",
        Query(total(increase(in_cluster("stale_avoided_total"), RANGE))),
        decimals=0,
        width=6,
    ),
    number(
        "Writes lost",
        "Writes in the range shown that a session must see and that a failover lost.",
        "Tell those whose writes they were; consider synchronous replication.",
        Query(total(seen(in_cluster("writes_lost_total"), RANGE))),
        decimals=0,
        width=6,
        thresholds=((1, BAD),),
    ),
)

_READS = (
    graph(
        "Reads by who answered them",
        "hit: this process's memory; joined: another request's read; remote: the shared tier; miss: the "
        "database; bypass: not looked up.",
        "Many bypasses: see their reasons.",
        Query(total(rate(everywhere("cache_requests_total")), "result"), "{{result}}"),
        unit="reqps",
        stacked=True,
    ),
    graph(
        "Answered, over time",
        "Share of looked-up reads that the database did not see.",
        "A fall after a deployment: texts or parameters have changed.",
        Query(ratio(or_none(_ANSWERED, _LOOKED_UP), _LOOKED_UP), "answered"),
        unit="percentunit",
        most=1,
    ),
    graph(
        "Database time saved by tenant",
        "Seconds a second, of the tenants with most.",
        "Who saves nothing needs no cache.",
        Query(top(10, total(_SAVED, "tenant")), "{{tenant}}"),
        stacked=True,
    ),
    graph(
        "Not looked up, by why",
        "Reads that the cache was not asked for.",
        "docs/cache.md has each reason and what to do about it.",
        Query(total(rate(everywhere("cache_bypasses_total")), "reason"), "{{reason}}"),
        unit="reqps",
    ),
    graph(
        "There, but not given",
        "Answers that were there and too old for the session that asked, or not its own.",
        "docs/cache.md has each reason.",
        Query(total(rate(everywhere("cache_refusals_total")), "reason"), "{{reason}}"),
        unit="reqps",
    ),
    graph(
        "Read, but not kept",
        "Answers of the database that were not stored.",
        "not_admitted: the memory is too small for what is hot. written: the tables change all the time.",
        Query(total(rate(everywhere("cache_unstored_total")), "reason"), "{{reason}}"),
        unit="reqps",
    ),
)

_MEMORY = (
    graph(
        "Memory",
        "What the answers take in each process, of cache.size.",
        "At the bound with many evictions: raise cache.size.",
        Query(everywhere("cache_bytes"), "{{instance}}"),
        unit="bytes",
        width=6,
    ),
    graph(
        "Answers in memory",
        "Entries of each process.",
        "Few and large: long lists are cached whole.",
        Query(everywhere("cache_entries"), "{{instance}}"),
        width=6,
    ),
    graph(
        "Evictions and flushes",
        "Answers that went for want of room, and times that all went at once.",
        "Flushes: a failover, a lost broadcast, a changed schema, or somebody asked.",
        Query(total(increase(everywhere("cache_evictions_total"))), "evictions"),
        Query(total(seen(everywhere("cache_flushes_total")), "reason"), "flushes: {{reason}}"),
        bars=True,
        width=6,
    ),
    graph(
        "Not worth it",
        "Times that the router said so of some tenant, by the main reason.",
        "The event CacheNotWorthIt has the tenant and a remedy.",
        Query(total(seen(everywhere("cache_not_worth_it_total")), "reason"), "{{reason}}"),
        bars=True,
        width=6,
    ),
)

_SHARED = (
    timeline(
        "Shared tier",
        "Whether each process uses the tier that processes share. Down: it is left alone until it answers.",
        "Requests go on without it. See the server, and the network to it.",
        Query(everywhere("cache_tier_up"), "{{instance}}"),
        {0: ("down", BAD), 1: ("up", GOOD)},
    ),
    graph(
        "Calls of the shared tier",
        "What became of them: hits, misses, timeouts, failures, skipped.",
        "timeouts: it is too slow to be worth it; look at its CPU and the network.",
        Query(total(rate(everywhere("cache_remote_calls_total")), "outcome"), "{{outcome}}"),
        unit="ops",
    ),
    graph(
        "Traffic and waits of the shared tier",
        "Bytes read and written, and seconds a second that reads waited for it.",
        "Large values: cache fewer columns.",
        Query(total(rate(everywhere("cache_remote_bytes_total")), "direction"), "bytes {{direction}}"),
        Query(total(rate(everywhere("cache_remote_wait_seconds_total"))), "seconds waited"),
    ),
    timeline(
        "Other processes are heard",
        "Whether each process hears of the writes of others. While it does not, it answers nothing from "
        "memory that others may have changed.",
        "See what carries the notices: Redis, or NOTIFY of PostgreSQL.",
        Query(
            f"min by (instance, kind, cluster) ({everywhere('cache_broadcast_up')})",
            "{{instance}} {{kind}} {{cluster}}",
        ),
        {0: ("deaf", BAD), 1: ("heard", GOOD)},
    ),
    graph(
        "Age of what is known of others",
        "How long ago all writes of others were known.",
        "It should stay under a second; else answers are refused as too old.",
        Query(
            f"max by (instance, kind, cluster) ({everywhere('cache_broadcast_age_seconds')})",
            "{{instance}} {{kind}} {{cluster}}",
        ),
        unit="s",
    ),
    graph(
        "Notices",
        "Notices of writes by what became of them.",
        "Gaps: some were lost, and the cache was flushed to be safe.",
        Query(total(rate(everywhere("cache_broadcast_notices_total")), "kind, event"), "{{kind}} {{event}}"),
        unit="ops",
    ),
)

_TOKENS = (
    graph(
        "Stale reads avoided, by how",
        "Reads that would have been stale: sent to the primary, made to wait, given to a replica that was "
        "asked first, or refused.",
        "primary: load that the replicas could take if they were quicker.",
        Query(total(rate(in_cluster("stale_avoided_total")), "action"), "{{action}}"),
        unit="reqps",
        stacked=True,
    ),
    graph(
        "What became of tokens",
        "met: the replica had it; waited; primary: no replica had it in time; ignored: it was of no use.",
        "Much waited or primary: lower the lag, or raise freshness.wait.",
        Query(total(rate(in_cluster("tokens_total")), "outcome"), "{{outcome}}"),
        unit="reqps",
        stacked=True,
    ),
    graph(
        "Wait for a replica to catch up",
        "Half, 95 and 99 of 100 reads that waited had it within this time.",
        "If p99 is at freshness.wait, many go to the primary after waiting in vain.",
        *(Query(quantile(share, _CATCH_UP), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        unit="s",
    ),
    heat(
        "How waits for a replica are spread",
        "Each column is a moment, each row a time that reads waited for.",
        "A band at freshness.wait are reads that waited in vain.",
        Query(total(increase(in_cluster("token_wait_duration_seconds_bucket")), "le"), "{{le}}"),
    ),
    graph(
        "Tokens ignored, by why",
        "Tokens that could not be used; the read went to the primary.",
        "forged: tampered with, or a key was removed too early. expired: raise tokens.lifetime.",
        Query(total(seen(in_cluster("tokens_ignored_total")), "refusal"), "{{refusal}}"),
        bars=True,
    ),
    graph(
        "Writes lost in failovers",
        "Writes that a session must see and that the new primary does not have. Not certain: nobody knows.",
        "See the runbook of RouterWritesLost.",
        Query(
            total(seen(in_cluster("writes_lost_total")), "cluster, certain"),
            "{{cluster}} certain: {{certain}}",
        ),
        bars=True,
        thresholds=((1, WARN),),
    ),
)

BOARD = Board(
    uid="router-cache",
    title="Router: cache and consistency",
    question="What does the cache save, and do sessions see their own writes?",
    variables=("job", "cluster"),
    rows=(
        Row("Now", _WORTH),
        Row("Reads and the cache", _READS),
        Row("Memory of the processes", _MEMORY),
        Row("Between processes", _SHARED),
        Row("Consistency", _TOKENS),
    ),
)
