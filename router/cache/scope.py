"""What the cache knows of one (tenant, schema): its rules, its tables, and what became of its reads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from router.cache.broadcast import Broadcast
from router.cache.heat import Heat
from router.cache.known import Ask, Known
from router.cache.marks import EVERYTHING, Mark, Marks, Place
from router.cache.relations import Relations
from router.cache.rules import changes, never
from router.cache.tally import Tally
from router.cache.worth import Worth
from router.config import Settings
from router.statements import Statement

_MOST = 4_096  # statements of which the tables are remembered


class Scope:
    """Hold what is worked out once for each (tenant, schema), and counted."""

    __slots__ = (
        "_auto", "_facts", "_forgotten", "_heat", "_known", "_lifetimes", "_nevers", "_reads", "_role",
        "_rules", "_shows", "_writes",
        "asks_by_itself", "broadcast", "homes", "place", "tally", "unclear", "worth",
    )  # fmt: skip

    def __init__(
        self,
        place: Place,
        homes: tuple[Place, ...],
        settings: Settings,
        known: Known,
        broadcast: Broadcast,
        tally: Tally,
        worth: Worth,
        role: str | None = None,
    ) -> None:
        self.place = place  # where names without a schema lead to
        self.homes = homes  # of the tenant: where a write of which nothing is known may have been
        self.broadcast = broadcast  # of the cluster
        self.tally = tally  # of the tenant
        self.worth = worth
        self.asks_by_itself = True  # whether a write may ask the catalog, beside
        self.unclear = 0  # writes since of which nothing was known; one now and then is not worth a question
        self._rules, self._auto = settings.cache_rules, settings.cache_auto
        self._heat = None if self._auto is None else Heat(self._auto.reads, self._auto.window)
        self._known, self._role = known, role
        self._facts: Relations | None = None
        self._nevers: dict[str, str | None] = {}
        self._forgotten = known.forgotten
        self._reads: dict[str, tuple[Place, ...] | str] = {}
        self._shows: dict[str, tuple[Place, ...] | None] = {}
        self._writes: dict[str, tuple[Place, ...]] = {}
        self._lifetimes: dict[str, float | None] = {}

    def heard(self) -> float:
        """Return up to which moment all writes of other processes are known."""
        return self.broadcast.heard() - self.broadcast.slack

    # --- the schema's relations --------------------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """Tell whether the catalog was asked lately."""
        facts = self._present()
        return facts is not None and self._asked() is facts

    def _present(self) -> Relations | None:
        """Return what the catalog said, unless something may have changed it since."""
        if self._forgotten != self._known.forgotten:
            self._forgotten = self._known.forgotten
            self._know(self._asked())
        return self._facts

    @property
    def facts(self) -> object:
        """Return what the catalog said, to be told from what it says later."""
        return self._facts

    async def learn(self, ask: Ask) -> None:
        """Ask the catalog; ``ask`` runs a statement on a connection that is bound to the schema."""
        place = self.place
        self._know(self._asked() or await self._known.ask(place.database, place.schema, ask, self._role))

    def _asked(self) -> Relations | None:
        """Return what the catalog said to whoever asked last, ``None`` if that is too long ago."""
        return self._known.of(self.place.database, self.place.schema, self._role)

    def forget(self) -> None:
        """Drop what the catalog said, after something that may have changed it."""
        self._known.forget(self.place.database)

    def doubt(self) -> None:
        """Go no longer by what the catalog said."""
        self._know(None)

    def _know(self, facts: Relations | None) -> None:
        if facts is not self._facts:
            self._facts = facts
            self._reads.clear()
            self._shows.clear()
            self._writes.clear()

    # --- statements --------------------------------------------------------------------------------------

    def lifetime(self, statement: Statement, key: Hashable | None, now: float) -> float | None:
        """Return for how long the tenant's rules let an answer be cached; ``None`` if they do not."""
        found: float | None = _remember(self._lifetimes, statement.text, lambda: self._lifetime(statement))
        auto, heat = self._auto, self._heat
        if found is not None or auto is None or heat is None or key is None:
            return found
        return auto.ttl if self.never(statement) is None and heat.hot(key, now) else None

    def _lifetime(self, statement: Statement) -> float | None:
        for rule in self._rules:
            if statement.fingerprint in rule.fingerprints:
                return rule.ttl
            if statement.tables and statement.tables <= rule.tables:
                return rule.ttl
        return None

    def never(self, statement: Statement) -> str | None:
        """Return why the text alone says that an answer is never cached."""
        found: str | None = _remember(self._nevers, statement.text, lambda: never(statement))
        return found

    def reads(self, statement: Statement) -> tuple[Place, ...] | str | None:
        """Return the tables that an answer depends on, or why it is never cached; ``None``: ask first."""
        why, facts = self.never(statement), self._present()
        if why is not None or facts is None:
            return why
        found: tuple[Place, ...] | str = _remember(
            self._reads, statement.text, lambda: self._read(facts, statement)
        )
        return found

    def _read(self, facts: Relations, statement: Statement) -> tuple[Place, ...] | str:
        found = facts.read(statement.tables)
        return found if isinstance(found, str) else self._places(found)

    def shows(self, statement: Statement) -> tuple[Place, ...] | None:
        """Return the tables of which a read shows something, cached or not; ``None``: of any."""
        if statement.unproven:
            return None
        if not statement.tables:
            return ()
        facts = self._present()
        if facts is None:
            return None
        found: tuple[Place, ...] | None = _remember(
            self._shows, statement.text, lambda: _places_or_none(self._read(facts, statement))
        )
        return found

    def writes(self, statement: Statement) -> tuple[Place, ...]:
        """Return what a statement may change; all that the tenant has where that is not known."""
        facts = self._present()
        found: tuple[Place, ...] = _remember(
            self._writes, statement.text, lambda: self._write(facts, statement)
        )
        return found

    def _write(self, facts: Relations | None, statement: Statement) -> tuple[Place, ...]:
        names = changes(statement)
        if names is None:
            return self.homes
        if not names:
            return ()
        found = None if facts is None else facts.written(names)
        if found is not None:
            return self._places(found)
        named = frozenset() if facts is None else facts.schemas(names)
        return (*self.homes, *(self.place._replace(schema=each) for each in named - {self.place.schema}))

    def named(self, names: frozenset[str]) -> tuple[Place, ...]:
        """Return the tables that change when those of these names are written."""
        facts = self._present()
        found = None if facts is None else facts.written(names)
        return self.homes if found is None else self._places(found)

    def _places(self, ids: frozenset[str]) -> tuple[Place, ...]:
        return tuple(self._place(each) for each in sorted(ids))

    def _place(self, id_: str) -> Place:
        schema, _, table = id_.partition(".")
        return self.place._replace(schema=schema, table=table)

    @staticmethod
    def marks(places: tuple[Place, ...], marks: Marks) -> tuple[Mark, ...]:
        """Return the marks that an answer from these tables depends on, and those of all around them."""
        around = {each._replace(table=None) for each in places}
        around |= {each._replace(schema=None) for each in around}
        return tuple(marks.of(each) for each in (*places, *around, EVERYTHING))


def _places_or_none(found: tuple[Place, ...] | str) -> tuple[Place, ...] | None:
    return None if isinstance(found, str) else found


def _remember(known: dict[str, Any], text: str, find: Callable[[], Any]) -> Any:
    if text in known:
        return known[text]
    if len(known) >= _MOST:
        known.clear()
    found = known[text] = find()
    return found
