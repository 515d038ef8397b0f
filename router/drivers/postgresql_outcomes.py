"""Learn a PostgreSQL transaction's number at its begin, and ask what became of it when its commit got lost.

The number (xid) comes back with the answer to BEGIN, in ``application_name``: the one setting that a server
reports by itself and that may hold any text. ``pg_xact_status`` then knows the outcome from the commit log.

A number is only as good as the history that it is from. A server that has crashed hands out numbers again
that it had given away but not yet written down, and so does a replica that is promoted. There a
"committed" may be another transaction's, so it proves nothing; "aborted" proves that ours is not in that
history, since a commit that once arrived in it can be followed by nothing else.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from router.drivers.driver import Mark, Outcome

_PREFIX = "router xid "
#: Follows BEGIN. It counts as the transaction's first query: SET TRANSACTION ISOLATION LEVEL comes too late.
TELL = (
    "; SELECT pg_catalog.set_config('application_name', "
    f"'{_PREFIX}' || pg_catalog.pg_current_xact_id()::pg_catalog.text, true)"
)
# The timeline changes with each promotion. The time of the statistics' reset changes with each recovery from
# a crash, after which they begin anew; a clean restart keeps both them and the next number. Nothing is told
# while the server is in recovery, where there is no current position to read the timeline from.
_HISTORY = """
    (SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text AS system,
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''
    ELSE pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8)
    END AS timeline,
    coalesce(pg_catalog.pg_stat_get_bgwriter_stat_reset_time()::pg_catalog.text, '') AS recovered
"""
_ASK = f"SELECT {_HISTORY}, pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8) AS status"


def told(application_name: str) -> str:
    """Return the number in what the server reported, '' if there is none."""
    number = application_name.removeprefix(_PREFIX)
    return number if number != application_name and number.isdigit() else ""


async def history(raw: Any, timeout: float | None) -> tuple[str, ...]:
    """Return the history that the server is in: system, timeline, and when it last recovered."""
    return tuple(await raw.fetchrow(f"SELECT {_HISTORY}", timeout=timeout))


async def outcome(raw: Any, mark: Mark, timeout: float | None) -> Outcome:
    """Ask the server behind ``raw`` what became of a transaction."""
    try:
        *now, status = await raw.fetchrow(_ASK, mark.transaction_id, timeout=timeout)
    except asyncpg.InvalidParameterValueError:
        return Outcome.UNKNOWN  # a number still to come: this server has never heard of it
    return judge(mark.history, tuple(now), status)


def judge(then: tuple[str, ...], now: tuple[str, ...], status: str | None) -> Outcome:
    """Return what ``status``, told in the history ``now``, means for a transaction begun in ``then``."""
    same_system = then[0] == now[0]
    later = then[1] <= now[1] and now[1] != ""  # timelines are numbered in the order of their making
    if not same_system or not later:
        return Outcome.UNKNOWN
    if status == "aborted":
        return Outcome.ROLLED_BACK
    if then != now:
        return Outcome.UNKNOWN
    return {"committed": Outcome.COMMITTED, "in progress": Outcome.OPEN}.get(status or "", Outcome.UNKNOWN)
