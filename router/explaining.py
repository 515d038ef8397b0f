"""Say where a statement would go, and why: the same decisions as for a request, but nothing is run."""

from __future__ import annotations

from contextlib import suppress
from math import inf

from router import events, proving
from router.backend import Target
from router.consistency import Bounded, Consistency
from router.errors import StaleReadError
from router.execution import Executor
from router.frontier import Frontier
from router.health import Health
from router.queries import Options, level
from router.reasons import Reason
from router.requests import Request
from router.routing import Progress, Route, Snapshot, decide, reached
from router.servers import Server
from router.statements import Statement
from router.status import Explanation, Standing
from router.steering import choose
from router.tokens import Refusal
from router.topology import Node

REFUSALS: dict[Refusal, str] = {
    Refusal.MALFORMED: "it is no token, or was cut",
    Refusal.FORGED: "it is signed with none of the keys in tokens.keys, or was changed",
    Refusal.FOREIGN: "it is of another tenant",
    Refusal.EXPIRED: "it is older than tokens.lifetime, or from the future",
    Refusal.OVERFULL: "its session had seen more than a token can hold",
    Refusal.NO_KEY: "no tokens.keys are configured, so that it cannot be checked",
    Refusal.NO_POSITION: "it was made where the servers count no positions (MySQL without GTIDs)",
    Refusal.OTHER_CLUSTER: "it is of another cluster's history",
    Refusal.FUTURE: "its position is beyond what the primary has",
    Refusal.OLD_REIGN: "another server has become the primary since",
}
"""What each refusal means, for people; complete for every Refusal."""


def explain(
    executor: Executor, sql: str, tenant: str, schema: str | None, given: Options, after: object
) -> Explanation:
    """Return where a statement would go now, in a session that has seen what ``after`` stands for."""
    target = executor.target(tenant, schema)
    placement, settings = target.placement, target.placement.settings
    statement = target.backend.statements.of(sql)
    seen, told = Frontier(), list[events.Event]()
    request = Request(target, seen, "fetch_all", statement, (), 0.0, given.intent)
    request.consistency = level(given.consistency or settings.consistency, settings.bounded)
    request.started = executor.clock()
    snapshot = target.backend.health.snapshot()
    if after is not None:
        causality = executor.causality.telling(told.append)
        causality.follow(seen, target, after)
        with suppress(StaleReadError):  # what it says has been told
            causality.settle(seen, target, snapshot)
    route = decide(
        _known(statement, target),
        snapshot,
        intent=given.intent,
        consistency=request.consistency,
        seen=seen,
        now=request.started,
        patience=settings.wait,
    )
    choosy = after is not None or isinstance(request.consistency, Bounded)
    nodes = _nodes(request, snapshot, route) if choosy else ()  # before the session takes to the route's node
    why, tables = _cacheable(executor, target, statement)
    return Explanation(
        tenant=placement.tenant,
        schema=placement.schema,
        cluster=placement.cluster.name,
        database=placement.database,
        physical_schema=placement.physical,
        role=route.role.value,
        node=choose(route, target, seen).name if route.candidates else "(none)",
        candidates=tuple(candidate.name for candidate in route.candidates),
        reason=route.reason.value,
        kind=statement.kind.value,
        tables=tuple(sorted(statement.tables)),
        functions=tuple(sorted(statement.functions)),
        fingerprint=statement.fingerprint,
        normalized=statement.normalized,
        notes=tuple(map(_note, told)),
        nodes=nodes,
        cacheable=False if why else None if tables is None else True,
        uncached=why,
        ttl=None if why else executor.scope(target).lifetime(statement, None, request.started),
        depends=tables or (),
        runs_as=placement.role,
        rows=None if placement.row is None else " = ".join(placement.row),
    )


def _known(statement: Statement, target: Target) -> Reason:
    """Return what is known of a statement without asking a server."""
    known = proving.known(statement, target)
    if known is None:
        return Reason.UNKNOWN_FUNCTION if statement.unproven else Reason.READ
    return known


def _cacheable(
    executor: Executor, target: Target, statement: Statement
) -> tuple[str, tuple[str, ...] | None]:
    """Return why an answer is never cached, and else the tables that it depends on, if they are known."""
    if not executor.cache.enabled:
        return "off", None
    found = executor.scope(target).reads(statement)
    if isinstance(found, tuple):
        return "", tuple(f"{each.schema}.{each.table}" for each in found)
    return found or "", None


def _note(event: events.Event) -> str:
    if isinstance(event, events.TokenIgnored):
        why = REFUSALS[Refusal(event.refusal)]
        return f"a token is ignored: {why} ({event.refusal}). The read must see all that the primary has now"
    if isinstance(event, events.WriteLost):
        return "the write of a token was lost in a failover" + ("" if event.certain else ", or may be")
    return type(event).__name__


def _nodes(request: Request, snapshot: Snapshot, route: Route) -> tuple[Standing, ...]:
    """Return of each node whether it is known to have what the read must see."""
    health = request.target.backend.health
    return tuple(
        _primary(health, server) if server.node is snapshot.primary else _replica(server, request, route)
        for server in health.servers
    )


def _primary(health: Health, server: Server) -> Standing:
    position = health.lineage.position
    shown = "" if position is None else str(position)
    return Standing(server.node.name, server.node.role.value, shown, True, "what it has is what there is")


def _replica(server: Server, request: Request, route: Route) -> Standing:
    node, health = server.node, request.target.backend.health
    snapshot = health.snapshot()
    progress = snapshot.progress.get(node, Progress())
    position = "" if progress.position is None else str(progress.position)
    if node not in snapshot.replicas:
        return Standing(node.name, node.role.value, position, False, f"not used: {health.why_not(server)}")
    lacking = _lacking(progress, node, request)
    if lacking and route.reason is Reason.CHECKED and node in route.candidates:
        lacking += "; the read asks it first"
    why = lacking or "has all that the read must see"
    return Standing(node.name, node.role.value, position, not lacking, why)


def _lacking(progress: Progress, node: Node, request: Request) -> str:
    """Return what a replica is not known to have; "" if nothing."""
    seen, consistency = request.seen, request.consistency
    if isinstance(consistency, Bounded):
        moment, behind = consistency.moment(request.started), progress.size
        if progress.current < moment:
            return f"is not known to be within {consistency.seconds:g} s of the primary"
        if consistency.size is not None and (behind is None or behind > consistency.size):
            return f"is {behind} bytes behind, more than {consistency.size}"
        return ""
    if consistency is not Consistency.SESSION or request.target.backend.cluster.replicas_current:
        return ""
    if seen.goal is not None and (progress.position is None or not reached(progress.position, seen.goal)):
        size = None if progress.position is None else progress.position.behind(seen.goal)
        by = "" if size is None else f" by {size} bytes"
        return f"is behind the token's position {seen.goal}{by}"
    if -inf < seen.moment and progress.current < seen.moment:
        return "is not known to have all that the primary has now"
    if -inf < seen.required(node) and progress.current < seen.required(node):
        return "is not known to have all that the session has read elsewhere"
    return ""
