"""Prove that a statement only reads: from its text, what a replica refused, and what the database says."""

from __future__ import annotations

from collections.abc import Iterable

from router.backend import Target
from router.errors import ConnectionLost, NoPrimary, RouterError
from router.reasons import Reason
from router.requests import Request
from router.rows import Row
from router.statements import Kind, Statement
from router.volatility import QUERY

# Looking a member up on its enum costs 70 ns on CPython 3.11; every request passes here.
_READ = Reason.READ
_ATTEMPTS = 3
# what these do ends with the transaction or the session
_HARMLESS = frozenset({Reason.READ, Reason.LOCKING, Reason.SESSION_STATE, Reason.TRANSACTION_CONTROL})


def known(statement: Statement, target: Target) -> Reason | None:
    """Return what is known of a statement, ``None`` if the database must be asked."""
    backend = target.backend
    if backend.refused and statement.text in backend.refused:
        return Reason.REFUSED_BY_REPLICA
    if not statement.functions or statement.verdict is not _READ or backend.volatility is None:
        return statement.verdict
    return backend.volatility.known(statement, target.database)


def writes(statement: Statement, target: Target) -> bool:
    """Tell whether a statement writes, or may: it calls an unknown function, or is not understood."""
    reason = known(statement, target)
    if reason is None:  # nobody has asked the database yet; its own functions are as their names say
        return bool(statement.unproven)
    return reason not in _HARMLESS


async def ask(request: Request) -> Reason:
    """Ask the database about the functions that a request calls and return what is known then."""
    statement, target = request.statement, request.target
    volatility = target.backend.volatility
    if volatility is None:  # known() is None only where there is one
        return Reason.UNKNOWN_FUNCTION
    for _ in range(_ATTEMPTS):
        try:
            return await volatility.ask(statement, target.database, lambda names: _volatile(request, names))
        except ConnectionLost:
            continue  # as any read is repeated; what is taken for a write would not be
        except RouterError:
            break
    return Reason.UNKNOWN_FUNCTION  # not proven, so to the primary; the statement tells what is wrong


async def _volatile(request: Request, names: tuple[str, ...]) -> Iterable[Row]:
    target = request.target
    snapshot, clock = target.backend.health.snapshot(), target.backend.clock
    nodes = (snapshot.primary, *snapshot.replicas) if snapshot.primary is not None else snapshot.replicas
    if not nodes:
        raise NoPrimary("nobody is there to be asked")  # the verdict is then that nothing is known
    pool, _ = target.pool(nodes[0])
    settings = target.placement.settings
    deadline = min(request.deadline, clock() + settings.acquire_timeout)
    lease = await target.backend.lease_unbound(pool, deadline, settings.connect_timeout)
    try:
        limit = max(request.deadline - clock(), 0.001)
        rows: list[Row] = await lease.run("fetch_all", QUERY, (list(names),), limit)
    finally:
        lease.release()
    return rows


def forget(request: Request) -> None:
    """Drop what is known of a database's functions after a statement that may have changed them."""
    volatility = request.target.backend.volatility
    if volatility is not None and request.statement.kind not in (Kind.READ, Kind.WRITE):
        volatility.forget(request.target.database)
