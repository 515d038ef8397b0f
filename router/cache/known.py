"""Remember what the catalogs of many schemas said; each is asked once, by one, and believed for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

from router.cache.catalogs import QUERIES
from router.cache.relations import Relations, Shape
from router.cache.shapes import relations_of
from router.errors import RouterError
from router.rows import Row
from router.sharing import Shared
from router.statements import Dialect

_FRESH: Final = 300.0  # seconds that an answer is believed
_FAILED: Final = 5.0  # seconds in which a catalog that could not be read is not asked again
_MOST: Final = 2000  # schemas remembered

#: database, the schema in it if there are several, and the role that names are looked up as, if it is another
#: for each tenant: both decide where names without a schema lead
Place = tuple[str, str | None, str | None]
Ask = Callable[[str], Awaitable[Iterable[Row]]]


class _Answer(NamedTuple):
    relations: Relations
    until: float


class Known:
    """Remember for each (database, schema) how its relations depend on each other."""

    def __init__(
        self, dialect: Dialect, declared: Mapping[str, tuple[str, ...]], clock: Callable[[], float]
    ) -> None:
        self._dialect = dialect
        self._declared = declared
        self._clock = clock
        self.forgotten = 0  # how often something was; who holds an answer of before asks again
        self._answers: dict[Place, _Answer] = {}
        self._questions: dict[Place, Shared[Relations]] = {}
        self._asking: set[Place] = set()  # with a question under way, and not forgotten since

    def of(self, database: str, schema: str | None, role: str | None = None) -> Relations | None:
        """Return what is known of a schema; ``None``: it must be asked."""
        answer = self._answers.get((database, schema, role))
        return answer.relations if answer is not None and answer.until > self._clock() else None

    async def ask(self, database: str, schema: str | None, ask: Ask, role: str | None = None) -> Relations:
        """Ask the catalog, or share the question of another caller; if it fails nothing is known.

        ``ask`` runs the statement that it is given on a connection bound to the schema.
        """
        place = (database, schema, role)
        question = self._questions.get(place)
        if question is None:
            question = self._questions[place] = Shared(lambda: self._ask(place, ask))
        try:
            return await question.answer()
        finally:
            if not question.tasks:
                self._questions.pop(place, None)

    def forget(self, database: str) -> None:
        """Drop what is known of a database, after something that may have changed its schema."""
        self.forgotten += 1
        self._asking = {each for each in self._asking if each[0] != database}
        for place in [each for each in self._answers if each[0] == database]:
            del self._answers[place]

    async def _ask(self, place: Place, ask: Ask) -> Relations:
        known = self.of(*place)
        if known is not None:
            return known
        self._asking.add(place)
        fresh = _FRESH
        try:
            rows = await ask(QUERIES[self._dialect])
            relations = relations_of(rows, self._dialect, self._declared)
        except RouterError:
            relations, fresh = self._nothing(place), _FAILED
        finally:
            current = place in self._asking
            self._asking.discard(place)
        if current:
            self._keep(place, _Answer(relations, self._clock() + fresh))
        return relations

    def _nothing(self, place: Place) -> Relations:
        schema = "main" if self._dialect is Dialect.SQLITE else place[1] or place[0]
        return Relations(schema, (), Shape(self._dialect, {}), {})

    def _keep(self, place: Place, answer: _Answer) -> None:
        self._answers.pop(place, None)  # the oldest answers stand first
        if len(self._answers) >= _MOST:
            del self._answers[next(iter(self._answers))]
        self._answers[place] = answer
