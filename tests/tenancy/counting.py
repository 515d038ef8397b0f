"""How many connections a server has at once: counted on the server itself, again and again.

A function of the server looks at its own list of sessions every few milliseconds, so that nothing is spent on
it in the process that is measured. What is still being opened or closed counts as well.
"""

import asyncio
from types import TracebackType
from typing import Any, Self

import asyncpg

ALONE = "alone"
"""Application name of connections that are not counted: those of what is compared with."""
_EVERY = 0.002  # seconds between two looks
_LOCK = 20  # of the advisory lock that is held while the function shall go on
_LOOK = f"""
CREATE FUNCTION pg_temp.most(every float8) RETURNS TABLE (most bigint, looks bigint) LANGUAGE plpgsql AS $$
DECLARE
  own oid[] := ARRAY(SELECT oid FROM pg_roles WHERE rolsuper);
  open bigint;
BEGIN
  most := 0; looks := 0;
  LOOP
    PERFORM pg_stat_clear_snapshot();
    SELECT count(*) INTO open FROM pg_stat_get_activity(NULL)
    WHERE backend_type = 'client backend' AND coalesce(usesysid, 0) <> ALL (own)
      AND coalesce(application_name, '') <> '{ALONE}';
    most := greatest(most, open); looks := looks + 1;
    EXIT WHEN pg_try_advisory_xact_lock({_LOCK});
    PERFORM pg_sleep(every);
  END LOOP;
  RETURN NEXT;
END $$
"""


class Connections:
    """Count in the block how many connections the server has at most, those of administrators apart."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.most = 0
        self.looks = 0

    async def __aenter__(self) -> Self:
        self._lock: Any = await asyncpg.connect(self._dsn)
        self._looks: Any = await asyncpg.connect(self._dsn)
        await self._lock.execute(f"SELECT pg_advisory_lock({_LOCK})")
        await self._looks.execute(_LOOK)
        query = self._looks.fetchrow("SELECT most, looks FROM pg_temp.most($1)", _EVERY)
        self._task = asyncio.create_task(query)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lock.close()
        self.most, self.looks = await self._task
        await self._looks.close()
