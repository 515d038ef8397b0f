"""Carry what a session has seen from one session to the next: take tokens in, give tokens out.

A token that cannot be used never blocks and never fails a read. What it stood for was on the primary before
it came here, so all that the primary has now includes it: that is what the session's reads must see instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from math import inf

from router import events
from router.backend import Backend, Target
from router.consistency import Otherwise
from router.errors import NoPrimary, RouterError, StaleReadError, UsageError
from router.frontier import Frontier
from router.positions import Position
from router.reasons import Reason
from router.routing import Progress, Snapshot
from router.tokens import BadToken, Point, Refusal, Tokens, merged
from router.topology import Node

After = str | Frontier | Iterable["str | Frontier | None"] | None


class Causality:
    """Turn tokens into what a session must see, and what it has seen into tokens."""

    def __init__(
        self,
        tokens: Tokens | None,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._emit = emit
        self._clock, self._wall = clock, wall

    def telling(self, emit: Callable[[events.Event], None]) -> Causality:
        """Return the same, but what it tells goes to ``emit``."""
        return Causality(self._tokens, emit, self._clock, self._wall)

    def renew(self, tokens: Tokens | None) -> None:
        """Sign and read tokens by other keys from now on."""
        self._tokens = tokens

    # --- in ----------------------------------------------------------------------------------------------

    def follow(self, seen: Frontier, target: Target, after: object) -> None:
        """Make a session see what ``after`` stands for: tokens, or sessions of the same tenant.

        Raises:
            UsageError: it is something else, or a session of another tenant.
        """
        for each in _several(after):
            if isinstance(each, Frontier):
                self._follow_session(seen, target, each)
            elif isinstance(each, str):
                if each:
                    self._follow_token(seen, target, each)
            else:
                raise UsageError(f"after is a token, a session or several of them, not {type(each).__name__}")

    @staticmethod
    def _follow_session(seen: Frontier, target: Target, other: Frontier) -> None:
        tenant = getattr(other, "tenant", None)
        if tenant != target.placement.tenant:
            raise UsageError(
                "after is a session of another tenant, whose writes this one never sees. Pass one of its own"
            ).at(tenant=target.placement.tenant)
        seen.follow(other, target.backend.health.snapshot().reign.began)

    def _follow_token(self, seen: Frontier, target: Target, text: str) -> None:
        if self._tokens is None:
            self._ignore(seen, target, Refusal.NO_KEY)
            return
        try:
            seen.pending += self._tokens.read(target.placement.tenant, text)
        except BadToken as bad:
            self._ignore(seen, target, bad.refusal)

    def _ignore(self, seen: Frontier, target: Target, refusal: Refusal) -> None:
        """Make a session see all that the primary has now, in place of what a token stands for."""
        old = refusal is Refusal.OLD_REIGN
        seen.require(self._clock(), Reason.OLD_REIGN if old else Reason.TOKEN_IGNORED)
        placement = target.placement
        self._emit(events.TokenIgnored(self._wall(), placement.tenant, placement.cluster.name, str(refusal)))

    async def look_around(self, seen: Frontier, target: Target, deadline: float) -> None:
        """Have the servers asked who leads, if a token is of a reign that nobody here has heard of.

        Another process may have noticed a failover before this one has: what counts as the primary here may
        follow another by now, and lack what the token stands for.
        """
        backend = target.backend
        lineage, name = backend.health.lineage, backend.cluster.name
        strange = {each.reign for each in seen.pending if each.cluster == name} - {None}
        if all(map(lineage.heard_of, strange)):
            return
        began = self._clock()
        await backend.ask_all(deadline)
        for reign in strange:
            if not lineage.heard_of(reign) and lineage.history.asked >= began:
                lineage.bury(reign)  # the primary has answered: it was over before this process began

    # --- what has become of it ---------------------------------------------------------------------------

    def settle(self, seen: Frontier, target: Target, snapshot: Snapshot) -> None:
        """Look at what the session goes by, now that the cluster is known, and after it may have changed.

        Raises:
            StaleReadError: a write was lost in a failover, or may be, and the tenant wants to be told so.
        """
        cluster, health = target.backend.cluster, target.backend.health
        lost: list[bool] = []
        began = snapshot.reign.began
        if seen.since < began:  # first: a token that is ignored hides what the session had seen before
            survived = health.lineage.survived
            if not (survived(seen.since) and survived(seen.before(began))):
                lost.append(False)
            seen.start_over(began)
        if seen.pending and (health.led or cluster.replicas_current):
            self._adopt(seen, target, snapshot, lost)
        elif seen.pending:  # no primary was seen yet: nobody can tell, but the first one will have it
            seen.require(self._clock(), Reason.TOKEN_AHEAD)
        if seen.goal is not None:
            held = Point(cluster.name, None, seen.reign, seen.goal)
            refusal = self._refusal(held, target, snapshot, lost)
            if refusal is None and target.backend.health.lineage.beyond(seen.goal, seen.adopted_at):
                refusal = Refusal.FUTURE
            if refusal is not None:
                seen.goal, seen.carried = None, ()
                self._ignore(seen, target, refusal)
        if lost:
            self._report(target, lost)

    def _adopt(self, seen: Frontier, target: Target, snapshot: Snapshot, lost: list[bool]) -> None:
        pending, seen.pending = seen.pending, ()
        seen.adopted_at = self._clock()
        for point in pending:
            refusal = self._refusal(point, target, snapshot, lost)
            if refusal is not None:
                self._ignore(seen, target, refusal)
                continue
            if point not in seen.carried:
                seen.carried += (point,)
            if target.backend.cluster.replicas_current:  # every read sees it, but an older cached answer
                seen.owed = max(seen.owed, seen.adopted_at)
            elif point.position is not None:
                seen.goal = point.position if seen.goal is None else seen.goal.union(point.position)
                seen.reign = point.reign

    @staticmethod
    def _refusal(point: Point, target: Target, snapshot: Snapshot, lost: list[bool]) -> Refusal | None:
        """Return why a point cannot be compared with what the replicas of the tenant's cluster have."""
        backend, reign = target.backend, snapshot.reign
        if point.cluster != backend.cluster.name:  # it was renamed, or the tenant has moved
            return Refusal.OTHER_CLUSTER
        if backend.cluster.replicas_current:
            return None
        known = backend.health.lineage.position
        if point.position is None or not point.position.counts:
            return Refusal.NO_POSITION
        if (point.identity and reign.identity and point.identity != reign.identity) or (
            known is not None and type(known) is not type(point.position)
        ):
            return Refusal.OTHER_CLUSTER
        if point.reign == reign.name:
            return None
        received = backend.health.lineage.received(point.reign, point.position)
        if not received:
            lost.append(received is False)
        return Refusal.OLD_REIGN

    def _report(self, target: Target, lost: list[bool]) -> None:
        """Tell that the cluster has lost what the session must see; for each whether that is certain."""
        placement = target.placement
        for certain in lost:
            self._emit(events.WriteLost(self._wall(), placement.tenant, placement.cluster.name, certain))
        if placement.settings.otherwise is Otherwise.ERROR:
            fate = "was lost when" if any(lost) else "may have been lost when"
            raise StaleReadError(
                f"what this session must see {fate} another server became the primary of cluster "
                f"{placement.cluster.name}. Read again, or without its token, and decide what to do"
            )

    # --- out ---------------------------------------------------------------------------------------------

    async def token(self, seen: Frontier, target: Target, deadline: float) -> str:
        """Return a token of what a session has seen; asks a server only if no probe since then knows.

        Raises:
            UsageError: no key is configured.
            NoPrimary: the session has seen the primary's state, and there is none to be asked.
            StatementTimeout: the server did not answer in time.
        """
        tokens = self._signing()
        backend = target.backend
        if backend.cluster.replicas_current:
            own: tuple[Point, ...] = (Point(backend.cluster.name, None, None, None),)
        else:
            if not backend.health.known:
                await backend.look(target.database, deadline)
            await self.look_around(seen, target, deadline)
            own = await self._settled(seen, target, deadline)
        carried = (*seen.carried, *(each for each in seen.pending if each not in seen.carried))
        return tokens.sign(target.placement.tenant, merged((*carried, *own)))

    async def _settled(self, seen: Frontier, target: Target, deadline: float) -> tuple[Point, ...]:
        """Return the session's own position, in the reign that it was asked for in."""
        backend = target.backend
        while True:
            reign = backend.health.snapshot().reign
            self.settle(seen, target, backend.health.snapshot())
            own = await self._own(seen, backend, deadline)
            if own is not None and backend.health.snapshot().reign.began == reign.began:
                return own
            if self._clock() >= deadline:
                raise NoPrimary(
                    "the primary has changed while it was asked how far it is. Take the token again"
                )

    def merge(self, texts: Iterable[str]) -> str:
        """Return one token for several of one tenant; raises UsageError for one that is not believed."""
        return self._signing().merge(*texts)

    def _signing(self) -> Tokens:
        if self._tokens is None:
            raise UsageError(
                "there is no key to sign tokens with. Configure one in router.yaml: "
                "tokens: {keys: [${env:ROUTER_TOKEN_KEY}]}"
            )
        return self._tokens

    @staticmethod
    async def _own(seen: Frontier, backend: Backend, deadline: float) -> tuple[Point, ...] | None:
        """Return the position that holds all that the session has seen, beside what tokens said.

        ``None`` if whom it asked is no primary any more: a replica's position stands for less.
        """
        health, name = backend.health, backend.cluster.name
        snapshot = health.snapshot()
        moment = seen.restarted()
        if moment == -inf:
            return ()
        position = None
        if seen.moment == -inf and seen.replica in snapshot.replicas:
            # it has only read there: what that replica has is enough, and less than what the primary has
            position = await _shown(seen.replica, moment, backend, deadline)
        position = position or health.lineage.after(moment)
        if position is None:
            node = snapshot.primary
            if node is None:
                await backend.holding.primary(deadline)
                node = health.snapshot().primary
            assert node is not None  # noqa: S101 - primary() has waited for it
            answer = await backend.ask(node, deadline)
            if not answer.writable:
                return None
            position, snapshot = answer.position, health.snapshot()
        return (Point(name, snapshot.reign.identity, snapshot.reign.name, position),)


async def _shown(replica: Node, moment: float, backend: Backend, deadline: float) -> Position | None:
    """Return a position that holds what a replica has shown at ``moment``; ``None`` if that is not known.

    After a restart it may have less than it has shown, as :func:`router.catching_up.trusted` says.
    """
    health = backend.health
    for ask in (True, False):
        progress = health.snapshot().progress.get(replica, Progress())
        if health.steady(replica.name) > moment:
            return None
        if progress.at >= moment:
            return progress.position
        if ask:
            with suppress(RouterError):
                await backend.ask(replica, deadline)
    return None


def _several(after: object) -> Iterator[object]:
    if isinstance(after, str | Frontier):
        yield after
    elif isinstance(after, Iterable):
        for each in after:
            yield from _several(each) if each is not None else ()
    elif after is not None:
        yield after
