"""What is known of a cluster's nodes now. The one writer of node state; everyone else reads a snapshot.

Two kinds of evidence come in: answers of servers to probes, and what requests met. A request's failure counts
at once, a return needs a good probe. Engines without probes (SQLite) know only what requests met.

Longer than other modules: whoever takes a part of this state away gives it a second writer. What is decided
from it is elsewhere and pure: :mod:`router.standing`, :mod:`router.breaker`, :mod:`router.lineage`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from router import breaker, events
from router.balancing import Load
from router.breaker import Breaker
from router.errors import (
    AuthenticationFailed,
    ConnectError,
    ConnectionLost,
    DatabaseNotFound,
    ReadOnlyViolation,
    RouterError,
    SecretUnavailable,
    ServerRemoved,
    StatementTimeout,
    TooManyConnections,
)
from router.lineage import Lineage
from router.routing import Progress, Snapshot
from router.servers import SILENT, Rules, Server
from router.standing import Lag, Leadership, Observation, Out, Standing, leadership, standing
from router.topology import Cluster, Node, Role

_SMOOTHING = 0.2  # weight of the newest latency in the mean
_RECENT = 0.5  # seconds; a server that answered a probe so lately is not asked because of a slow request
_ALERT = 30.0  # seconds of quick probes after a sign of change (AWS topology monitor)
_WANTED = 2.0  # seconds of quick probes after a read for which it was not known how far the replicas are
_BLAMELESS = AuthenticationFailed | DatabaseNotFound | SecretUnavailable | ServerRemoved | TooManyConnections
_UNPROVEN = ConnectError | ConnectionLost | StatementTimeout | ReadOnlyViolation  # reasons to look closer


def _nothing(*_: object) -> None:
    """Do nothing: what nobody listens to."""


def _same(server: Server, node: Node) -> bool:
    """Tell whether a node is a server that is known, whatever its role."""
    return (server.node.name, server.node.address) == (node.name, node.address)


def _never(name: str) -> float:
    """Know of no server that it has not restarted."""
    return math.inf


class Health:
    """Keep who the primary is and which replicas may be read, for one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Callable[[], float],
        *,
        rules: Rules | None = None,
        probed: bool = False,
        rng: random.Random | None = None,
        wall: Callable[[], float] = lambda: 0.0,
        emit: Callable[[events.Event], None] = _nothing,
    ) -> None:
        self.cluster = cluster
        self.rules = rules or Rules()
        self.probed = probed
        self.known = not probed  # whether the servers have been asked at all
        self.poke: Callable[[str], None] = _nothing  # ask a server now, by its name
        self.moved: Callable[[Node], None] = _nothing  # a server has another role now than this node
        self.steady: Callable[[str], float] = _never  # since when a server has not restarted, by its name
        self.silent: Callable[[Node], None] = _nothing  # it takes requests and does not answer them
        self._clock, self._wall, self._emit = clock, wall, emit
        self._rng = rng or random.Random()  # noqa: S311  # jitter only
        self._servers = {node.name: Server.of(node) for node in cluster.nodes}
        self._primary: Server | None = self._servers[cluster.primary.name]
        self.led = False  # whether a server was ever seen to take writes
        self._newest = 0  # the highest timeline ever seen
        self._superseded: set[str] = set()
        self.lineage = Lineage()
        self.reigns_since = -math.inf  # when the present primary took over from another
        self._wanted_until = -math.inf
        self._timed = False  # whether a ban must end by time alone
        self._alert_until = 0.0
        self._looked = asyncio.Event()
        self._began = math.inf  # when somebody first waited for a picture
        self._told = not probed
        self._changed = asyncio.Event()
        self._snapshot = Snapshot(cluster.primary, cluster.replicas, current=self._current({}))
        self.load: dict[Node, Load] = {
            node: server.load for server in self._servers.values() for node in server.roles.values()
        }

    # --- reading -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return what is known now; an attribute read while all is well."""
        if self._timed:
            self._readmit()
        return self._snapshot

    @property
    def present(self) -> Snapshot:
        """Return the latest snapshot as it is; any thread may ask, which must not end a ban."""
        return self._snapshot

    def keeps(self, cluster: Cluster) -> bool:
        """Tell whether who leads now is among the servers that are configured otherwise.

        Then all that is known of the cluster's history stays true, and :meth:`renew` may be called.
        """
        present = self._primary or self._servers[self.cluster.primary.name]
        return any(_same(present, node) for node in cluster.nodes) and (
            self.probed or present.node.name == cluster.primary.name
        )

    def renew(self, cluster: Cluster, rules: Rules) -> frozenset[Node]:
        """Go by other servers and rules from now on; return the nodes that are none any more.

        Their load is known still, for those who use them: see :meth:`forget`. A new server is used once it
        was asked, as a replica until it is seen to lead.
        """
        before = {node for server in self._servers.values() for node in server.roles.values()}
        self.cluster, self.rules = cluster, rules
        self._servers = {node.name: self._server(node) for node in cluster.nodes}
        self._superseded &= self._servers.keys()
        present = {node: server for server in self._servers.values() for node in server.roles.values()}
        for node, server in present.items():
            self.load[node] = server.load
        self._renew()
        return frozenset(before - present.keys())

    def _server(self, node: Node) -> Server:
        """Return what is known of a server that is configured so now."""
        server = self._servers.get(node.name)
        if server is None or not _same(server, node):
            server = Server.of(node)
            server.node = server.roles[Role.REPLICA]
        elif (node.weight, node.zone) != (server.node.weight, server.node.zone):
            role = server.node.role
            server.roles = Server.of(node).roles
            server.node = server.roles[role]
        return server

    def forget(self, nodes: Collection[Node]) -> None:
        """Forget nodes that :meth:`renew` has returned, once nobody uses them."""
        for node in nodes:
            self.load.pop(node, None)

    def _readmit(self) -> None:
        """End the bans whose time is up where no probe can."""
        now = self._clock()
        for server in self._servers.values():
            self._turn(server, breaker.probed(server.breaker, now))
        self._renew()

    @property
    def servers(self) -> tuple[Server, ...]:
        """Return what is known of each server, in configured order."""
        return tuple(self._servers.values())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return all nodes in their roles of now, the primary first."""
        return tuple(sorted((each.node for each in self.servers), key=lambda node: node.role is Role.REPLICA))

    @property
    def primary_name(self) -> str | None:
        """Return the server that takes writes, ``None`` while there is none."""
        return None if self._primary is None else self._primary.node.name

    def why_not(self, server: Server) -> str:
        """Return why a node is not used now, "" if it is."""
        if server is self._primary:
            return ""
        if server.breaker.banned:
            return server.breaker.reason
        return (server.standing.out or "") if self.probed else ""

    @property
    def interval(self) -> float:
        """Return the seconds until the next probe of a node: few after a sign of change."""
        if self._clock() < max(self._alert_until, self._wanted_until) or self._unsure():
            return self.rules.quick
        return self.rules.interval * self._rng.uniform(0.8, 1.2)

    async def look(self, timeout: float) -> None:
        """Return when the servers have been asked a first time, or after ``timeout`` seconds.

        Who takes long is waited for a moment only, if the primary and a replica have answered.
        """
        self._began = min(self._began, self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, self.rules.quick)):
                await self._looked.wait()
        if not self.known:
            self._renew()
        try:
            async with asyncio.timeout(max(timeout - self.rules.quick, 0)):
                await self._looked.wait()
        except TimeoutError:
            self._begin()  # who has not answered by now counts as late; nobody else waits for it
            self._renew()

    async def change(self) -> None:
        """Return when the primary or the usable replicas have changed."""
        await self._changed.wait()

    # --- what requests meet ------------------------------------------------------------------------------

    def succeeded(self, node: Node, latency: float) -> None:
        """Take note of an answer after ``latency`` seconds."""
        load = self.load[node]
        load.latency += (latency - load.latency) * (_SMOOTHING if load.latency else 1.0)

    def failed(self, node: Node, error: RouterError) -> None:
        """Take note of a request's failure; only one that speaks of the node itself counts."""
        server = self._servers.get(node.name)
        if server is None or server.node is not node or not isinstance(error, _UNPROVEN):
            return  # a late message about what the node was
        if isinstance(error, _BLAMELESS):
            return  # it answers, or was not asked
        if isinstance(error, ConnectError):
            self._unreachable(server, error)
        elif isinstance(error, ConnectionLost) and server is not self._primary:
            self._turn(server, breaker.lost(server.breaker, Out.LOSING, self._clock(), self._rng))
        elif isinstance(error, ReadOnlyViolation) and server is self._primary:
            server.doubted = self.probed
        if isinstance(error, StatementTimeout):
            self.poke(node.name)  # no alert: most statements that take too long are just slow
        else:
            self._alarm(node.name)
        self._renew()

    def _unreachable(self, server: Server, error: ConnectError) -> None:
        if server is self._primary:
            # only a probe can tell that it is back, and never is another made the primary for it
            server.refused = error.message if self.probed else ""
        else:
            self._turn(server, breaker.tripped(server.breaker, Out.UNREACHABLE, self._clock(), self._rng))

    def _turn(self, server: Server, new: Breaker) -> None:
        """Replace a server's breaker, and tell if it opens or closes.

        That says more than ReplicaChanged: a replica that is left out for its lag is not left out anew when
        it cannot be reached either, nor back when it can.
        """
        old, server.breaker = server.breaker, new
        if old.banned is not new.banned:
            event = events.BreakerChanged(self._wall(), server.node, new.banned, new.bans, str(new.reason))
            self._emit(event)

    def suspect(self, node: Node) -> None:
        """Look at a node whose requests take unusually long: it may be frozen."""
        server = self._servers.get(node.name)
        if server is None:
            return  # it was taken out of the configuration
        seen = server.seen
        if seen is None or self._clock() - seen.at > _RECENT:
            self.poke(node.name)

    def _alarm(self, name: str) -> None:
        self._alert_until = self._clock() + _ALERT
        self.poke(name)

    def wanted(self) -> None:
        """Ask all servers often for a while: reads go to the primary for want of news of the replicas."""
        now = self._clock()
        if now >= self._wanted_until:
            for name in self._servers:
                self.poke(name)
        self._wanted_until = now + _WANTED

    # --- what probes find --------------------------------------------------------------------------------

    def follows(self, node: Node) -> bool:
        """Tell whether a replica is known to follow the present primary."""
        server = self._servers.get(node.name)
        return server is not None and self.lineage.followed_by(server)

    def noted(self, name: str, seen: Observation) -> None:
        """Take note of what a request found out when it asked a server how far it is."""
        server = self._servers.get(name)
        if server is None:
            return
        if server.latest is not None and seen.at <= server.latest.at:
            return
        if seen.writable:
            self.poke(name)  # it has been promoted, it seems: its next probe tells
            return
        server.latest = seen
        server.follows |= seen.follows
        self._replace(self._snapshot)

    def observed(self, name: str, seen: Observation) -> None:
        """Take note of a server's answer to a probe."""
        server = self._servers[name]
        if server.seen is not None and server.seen.writable != seen.writable:
            self._alarm_all()
        server.asked = True
        server.before, server.seen = server.seen, seen
        server.follows |= seen.follows
        if seen.took < server.load.latency:  # else who was slow once is not chosen, and gets no better figure
            self.succeeded(server.node, seen.took)
        if server.latest is None or seen.at > server.latest.at:
            server.latest = seen
        server.misses, server.refused, server.doubted = 0, "", False
        self.led = self.led or seen.writable
        if not seen.writable:
            self._superseded.discard(name)
        elif seen.timeline is not None:
            self._newest = max(self._newest, seen.timeline)
        if self._superseded:
            self._superseded -= self._promoted_again()
        alone = self._primary is None and not self._snapshot.replicas
        self._turn(server, breaker.probed(server.breaker, self._clock(), needed=alone))
        self._renew()
        server.before = seen  # judged; further news about others do not make it go back twice

    def _promoted_again(self) -> set[str]:
        """Return who was replaced and leads again, as the last primary shows by what it has got from it.

        A switch there and back between two probes looks as if they had never stepped down.
        """
        servers = self._servers
        leaders = [each for each in servers.values() if each.node.role is Role.PRIMARY]
        return {
            name for name in self._superseded for last in leaders
            if self.lineage.handed_back(last, servers[name])
        }  # fmt: skip

    def missed(self, name: str, error: RouterError | None) -> None:
        """Take note of a probe that failed; ``None``: it was not answered in time."""
        server = self._servers[name]
        server.asked = True
        if isinstance(error, _BLAMELESS):
            self._renew()  # it answers, if not us, or was not asked; what was known of it grows old by itself
            return
        server.misses += 1
        self._alert_until = self._clock() + _ALERT
        if error is None:
            if server is not self._primary:
                self._turn(server, breaker.tripped(server.breaker, Out.SILENT, self._clock(), self._rng))
                if server.misses == SILENT:
                    self.silent(server.node)
        elif isinstance(error, ConnectError):
            self._unreachable(server, error)
        self._renew()

    def _alarm_all(self) -> None:
        self._alert_until = self._clock() + _ALERT
        for name in self._servers:
            self.poke(name)

    # --- conclusions -------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Draw the conclusions from all that is known, and replace the snapshot if they differ."""
        led = self._leadership()
        self._lead(led)
        if self.probed:
            self._judge(led)
        else:
            self._timed = any(each.breaker.banned for each in self._servers.values())
        if not self.known:
            self._know()
        followers = list(self._followers())
        overdue = sorted(
            (each for each in followers if self.why_not(each) == Out.LATE),
            key=lambda each: each.standing.lag.seconds,
        )
        self._replace(
            Snapshot(
                None if self._primary is None else self._primary.node,
                tuple(each.node for each in followers if not self.known or not self.why_not(each)),
                late=tuple(each.node for each in overdue),
                problem=led.problem,
            )
        )
        self._told = self.known

    def _replace(self, new: Snapshot) -> None:
        old = self._snapshot
        same = replace(new, generation=old.generation) == old
        progress = {node: self.lineage.progress(self._servers[node.name]) for node in new.replicas}
        reign = self.lineage.reign(self._primary)
        if same and progress == old.progress and reign == old.reign:
            return
        self.reigns_since = reign.began
        self._snapshot = replace(
            new,
            generation=old.generation + (not same),
            reign=reign,
            progress=progress,
            current=self._current(progress),
            asked=min((each.at for each in progress.values()), default=-math.inf),
        )
        if same:
            return
        self._changed.set()
        self._changed = asyncio.Event()
        if not self._told:  # the first picture is no change
            return
        for node in {*old.replicas, *new.replicas}:
            if (node in old.replicas) is not (node in new.replicas):
                usable = node in new.replicas
                why = "" if usable else self._why_no_replica(node)
                self._emit(events.ReplicaChanged(self._wall(), node, usable, str(why)))

    def _why_no_replica(self, node: Node) -> str:
        server = self._servers.get(node.name)
        if server is None or node not in server.roles.values():
            return Out.REMOVED
        return self.why_not(server) or server.node.role

    def _current(self, progress: Mapping[Node, Progress]) -> float:
        """Return up to which moment every usable replica has all that was committed."""
        if self.cluster.replicas_current:
            return math.inf
        return min((each.current for each in progress.values()), default=-math.inf)

    def _followers(self) -> Iterator[Server]:
        return (each for each in self._servers.values() if each.node.role is Role.REPLICA)

    def _know(self) -> None:
        """Find out whether enough is known to begin: the primary, and a replica or that there is none."""
        pending = [each for each in self._servers.values() if not each.asked]
        ready = any(not self.why_not(each) for each in self._followers())
        led = self._primary is not None and self._primary.seen is not None
        if self._unsure() and self._clock() - self._began < 2 * self.rules.quick:
            return  # the next answer of a replica may already show that it is not late
        if not pending or (led and ready and self._clock() - self._began >= self.rules.quick):
            self._begin()

    def _unsure(self) -> bool:
        """Tell whether a replica is left out only because its lag is not known, as at the start."""
        return any(
            each.standing.out is Out.LATE and each.standing.lag.unsure(self.rules.lag)
            for each in self._followers()
        )

    def _begin(self) -> None:
        self.known = True
        self._looked.set()

    def _leadership(self) -> Leadership:
        present = self._primary
        if not self.probed:
            return Leadership(self.cluster.primary.name)
        claims = {name: each.seen for name, each in self._servers.items() if each.seen and each.claims}
        if not claims and present is not None and present.seen is None and not present.failing:
            return Leadership(present.node.name)  # not asked yet; it refuses what it must not do
        expected = None if self.rules.follow else self.cluster.primary.name
        led = leadership(claims, newest=self._newest, superseded=self._superseded, expected=expected)
        if led.primary is None and not claims:
            return replace(led, problem=f"{led.problem}: {self._state_of_all()}")
        return led

    def _state_of_all(self) -> str:
        """Return in words what each server says or does not say."""
        return "; ".join(f"{each.node.name}: {each.words}" for each in self.servers)

    def _lead(self, led: Leadership) -> None:
        """Make a server the primary, or nobody."""
        old = self._primary
        new = None if led.primary is None else self._servers[led.primary]
        if new is not None and new.node.role is Role.PRIMARY:
            self.lineage.led_by(new, self._clock())
        if new is old:
            return
        self._primary = new
        self._alarm_all()
        if new is not None and new.node.role is Role.REPLICA:
            self._promote(new)
        self._emit(
            events.PrimaryChanged(
                self._wall(),
                self.cluster.name,
                None if new is None else new.node,
                None if old is None else old.node,
                led.problem,
            )
        )

    def _promote(self, new: Server) -> None:
        """Swap the roles: one server becomes the primary, and who was it becomes a replica."""
        for server in self._servers.values():
            role = Role.PRIMARY if server is new else Role.REPLICA
            was = server.node
            if was.role is not role:
                server.node = server.roles[role]
                stepped_down = server.doubted or (server.seen is not None and not server.seen.writable)
                if role is Role.REPLICA and not stepped_down:
                    self._superseded.add(was.name)
                self.moved(was)
                if server.failing:
                    self.silent(was)
        self.lineage.turn(new, self._clock())

    def _judge(self, led: Leadership) -> None:
        """Judge every replica anew."""
        now = self._clock()
        reign = self.lineage.reign(self._primary)
        identity, began = reign.identity, reign.began
        for server in self._followers():
            seen, wrong = server.seen, (led.out or {}).get(server.node.name)
            if seen is None or now - seen.at > self.rules.fresh:
                server.standing = Standing(Out.UNKNOWN, Lag(), server.standing.quarantine)
            elif wrong is not None or seen.writable:
                server.standing = Standing(wrong or Out.OBSOLETE, Lag())
            elif identity is not None and seen.identity is not None and seen.identity != identity:
                server.standing = Standing(Out.STRANGER, Lag())
            elif not self.lineage.followed_by(server) and now - began < self.rules.lag.seconds:
                # By then one that has stayed behind shows as late.
                server.standing = Standing(Out.UNPROVEN, Lag(), server.standing.quarantine)
            else:
                server.standing = standing(
                    seen, server.before, self.lineage.history, self.rules.lag, server.standing
                )
