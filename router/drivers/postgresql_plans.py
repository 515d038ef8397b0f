"""Ask PostgreSQL for the plan of a statement whose parameters are not known, without running it.

``EXPLAIN`` with NULL in their places would plan for NULL: nothing is read at all. So the statement is
prepared, and its generic plan is asked for. (``EXPLAIN (GENERIC_PLAN)`` needs PostgreSQL 16 and the simple
protocol, over which asyncpg reads no rows.) It is all in one transaction: a pooler lends one session for it.
"""

from __future__ import annotations

import asyncpg

_NAME = "router_plan"
_BEGIN = "BEGIN READ ONLY; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL lock_timeout = {limit}"


async def plan(raw: asyncpg.Connection, sql: str, parameters: int, timeout: float, scope: str = "") -> str:
    """Return the plan of a query that has so many parameters; if it is cancelled, close the connection.

    ``scope`` follows the BEGIN: what makes the transaction a tenant's, if the session is not.
    """
    try:
        await raw.execute(_BEGIN.format(limit=max(int(timeout * 1000), 1)) + scope, timeout=timeout)
    except asyncpg.PostgresError:
        await raw.execute("ROLLBACK", timeout=timeout)
        raise
    try:
        await raw.execute(f"PREPARE {_NAME} AS {sql}", timeout=timeout)
        try:
            await raw.execute(f"SAVEPOINT {_NAME}", timeout=timeout)
            nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
            rows = await raw.fetch(f"EXPLAIN EXECUTE {_NAME}{nulls}", timeout=timeout)
        except asyncpg.PostgresError:
            await raw.execute(f"ROLLBACK TO {_NAME}", timeout=timeout)
            await raw.execute(f"DEALLOCATE {_NAME}", timeout=timeout)  # no rollback undoes a PREPARE
            raise
        await raw.execute(f"DEALLOCATE {_NAME}", timeout=timeout)
    except asyncpg.PostgresError:
        await raw.execute("ROLLBACK", timeout=timeout)
        raise
    await raw.execute("ROLLBACK", timeout=timeout)
    return "\n".join(row[0] for row in rows)
