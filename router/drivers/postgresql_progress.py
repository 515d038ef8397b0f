"""What a PostgreSQL server says of itself when it is probed: its role, its cluster, and how far it is."""

from __future__ import annotations

from typing import Any

from router.drivers.driver import Reading
from router.errors import ConnectionLost
from router.positions import Lsn

# One text for both roles. A replica's timelines: the one it receives, which only pg_monitor sees, and those
# of its last restart point and of its last flush, which may be minutes old.
_PROBE = (
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END - '0/0', CASE WHEN pg_is_in_recovery() "
    "THEN ARRAY[(SELECT received_tli FROM pg_stat_wal_receiver), "
    "(SELECT timeline_id FROM pg_control_checkpoint()), "
    "(SELECT min_recovery_end_timeline FROM pg_control_recovery())] "
    "ELSE ARRAY[('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int] END, "
    "(SELECT system_identifier FROM pg_control_system()), "
    "current_setting('wal_block_size')::int, pg_size_bytes(current_setting('wal_segment_size'))"
)


async def reading(raw: Any) -> Reading:
    """Ask a server over a session, and return what it says; raise if it says nothing."""
    row = await raw.fetchrow(_PROBE)
    if row is None:
        raise ConnectionLost("the server answered a probe with nothing")
    standby, position, timelines, identity, block, segment = row
    where: Lsn | None = None
    if position is not None:
        where = Lsn(int(position)) if standby else Lsn.of_insert(int(position), block, int(segment))
    name = None if identity is None else str(identity)
    if standby:
        return Reading(False, where, None, name, follows=frozenset(str(each) for each in timelines if each))
    return Reading(True, where, timelines[0], name, str(timelines[0]))
