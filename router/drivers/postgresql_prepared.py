"""The statements that one connection of asyncpg has prepared, and which of them its place may use."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple

import asyncpg

from router.drivers.postgresql_errors import translate
from router.drivers.postgresql_shapes import Place, Shape, Shapes, Signature
from router.errors import ConnectionLost, Sent
from router.rows import Column

_STALE = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.OutdatedSchemaCacheError,
)
#: Errors after which a statement may have to be prepared anew. The types of its parameters are those of when
#: it was prepared: where a column's has changed since, it fits its operators no more, or takes no value.
DOUBTFUL = (*_STALE, asyncpg.SyntaxOrAccessError, asyncpg.DataError)
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)
_SAVEPOINT = "router_fits"


class Prepared:
    """Hold what is known of a statement that one connection has prepared."""

    __slots__ = ("_statement", "columns", "state")

    def __init__(self, statement: Any) -> None:
        self._statement = statement  # asyncpg closes it on the server once nothing refers to it
        self.state = statement._state
        self.columns = tuple(Column(each.name, each.type.name) for each in statement.get_attributes())

    @property
    def signature(self) -> Signature:
        """Return its types."""
        return Signature(
            tuple(each.oid for each in self._statement.get_parameters()),
            tuple((each.name, each.type.oid) for each in self._statement.get_attributes()),
        )


class Trial(NamedTuple):
    """Hold what has yet to show that another place's statement will do."""

    place: Place
    sql: str
    shape: Shape
    statement: Prepared


class Kept:
    """Keep prepared statements in two generations, so that those not used for long are closed."""

    __slots__ = ("_half", "_name", "_old", "_raw", "_shapes", "_young", "here", "place", "trial")

    def __init__(self, raw: Any, most: int, shapes: Shapes) -> None:
        self._raw = raw
        self._half = most // 2
        self._shapes = shapes
        self._young: dict[tuple[str, Shape | str | None], Prepared] = {}
        self._old: dict[tuple[str, Shape | str | None], Prepared] = {}
        self._name: str | None = None  # of where names without a schema lead to; None: not said by a binding
        self.place: Place | None = None  # what shares its statements with others
        self.trial: Trial | None = None
        #: by text, those that the place is known to use; the one look-up of a request that finds it
        self.here: dict[str, Prepared] = {}

    def move(self, name: str | None = None, *, shares: bool = False) -> None:
        """Take note where names without a schema lead to; ``shares``: what others have prepared may do."""
        self.here.clear()
        self._name = name
        self.place = self._shapes.place(name) if shares and name is not None else None

    def text(self, sql: str) -> str:
        """Return a text for asyncpg's own cache, of which no two places have the same.

        The comment stands last so that positions in error messages stay right, on a line of its own in case
        the text ends in a comment.
        """
        return sql if self._name is None else f"{sql}\n/*{self._name}*/"

    def ready(self, sql: str, dirty: int) -> Prepared | None:
        """Return a statement that may run without a word to the server before."""
        place, statement = self.place, None
        if place is None:
            statement = self._find(sql, self._name)
        elif not dirty:
            shape = place.shapes.get(sql)
            if shape is not None:
                statement = self._find(sql, place.name if sql in place.unproven else shape)
        if statement is not None:
            self.here[sql] = statement
        return statement

    async def prepare(
        self, sql: str, args: tuple[object, ...], timeout: float | None, dirty: int
    ) -> Prepared:
        """Have the server prepare a statement, if none that it has prepared will do.

        If :attr:`trial` is set afterwards, the statement is another place's, and has yet to prove that it
        will do here by being run.
        """
        self.trial = None
        if not self._half:
            return Prepared(await self._parse(sql, timeout))  # unnamed, the next one takes its place
        if self.place is None:
            statement = self._keep(sql, self._name, Prepared(await self._parse(sql, timeout)))
        elif dirty:  # by a temporary table perhaps: what is prepared now tells nothing of the place
            statement = Prepared(await self._parse(sql, timeout))
        else:
            statement = await self._shared(self.place, sql, args, timeout)
        if self.trial is None:
            self.here[sql] = statement
        return statement

    async def _shared(
        self, place: Place, sql: str, args: tuple[object, ...], timeout: float | None
    ) -> Prepared:
        """Return a statement of a place: prepared there, or where it is the same."""
        shape = place.shapes.get(sql)
        if shape is None:  # without a name, for as a rule there is one of another place already
            unnamed = Prepared(await self._parse(sql, timeout, name=""))
            shape = self._shapes.learn(place, sql, unnamed.signature)
        found = self._find(sql, shape)
        if found is None:
            return await self._own(place, sql, timeout)
        if sql not in place.unproven:
            return found
        if not self._raw.is_in_transaction():
            self.trial = Trial(place, sql, shape, found)
            return found
        fits = await _before(self._fits(found, args, timeout))
        if fits is None:
            return await self._own(place, sql, timeout)
        return await self.tried(Trial(place, sql, shape, found), fits, timeout)

    async def tried(self, trial: Trial, fits: bool, timeout: float | None) -> Prepared:
        """Take note of how a trial went, and return what will do."""
        place, sql, shape, statement = trial
        if fits:
            place.unproven.discard(sql)
        else:
            self._shapes.differ(place, sql, shape)
            statement = await self._own(place, sql, timeout)
        self.here[sql] = statement
        return statement

    async def _own(self, place: Place, sql: str, timeout: float | None) -> Prepared:
        """Have a statement prepared in the place, for it alone if nothing is proven yet."""
        made = Prepared(await self._parse(sql, timeout))
        shape = self._shapes.learn(place, sql, made.signature)
        return self._keep(sql, place.name if sql in place.unproven else shape, made)

    async def _fits(
        self, statement: Prepared, args: tuple[object, ...], timeout: float | None
    ) -> bool | None:
        """Have the server plan a statement of another place, without running it; ``None``: it cannot tell."""
        nested = self._raw.is_in_transaction()
        if nested:
            await self._raw.execute(f"SAVEPOINT {_SAVEPOINT}", timeout=timeout)
        fits: bool | None = True
        try:
            await self._raw._protocol.bind(statement.state, args, "", timeout)
        except asyncpg.InvalidCachedStatementError:
            fits = False
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError:
            fits = None  # the text's own fault, or a value's: who runs it hears of that
        if nested:
            undo = "" if fits else f"ROLLBACK TO {_SAVEPOINT}; "
            await self._raw.execute(f"{undo}RELEASE {_SAVEPOINT}", timeout=timeout)
        return fits

    def _find(self, sql: str, of: Shape | str | None) -> Prepared | None:
        found = self._young.get((sql, of))
        if found is None:
            found = self._old.pop((sql, of), None)
            if found is not None:
                self._keep(sql, of, found)
        return found

    def _keep(self, sql: str, of: Shape | str | None, statement: Prepared) -> Prepared:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
            self.here.clear()
        self._young[sql, of] = statement
        return statement

    async def _parse(self, sql: str, timeout: float | None, name: str | None = None) -> Any:
        return await _before(self._raw.prepare(sql, name=name, timeout=timeout))

    async def doubt(self, sql: str, exc: BaseException) -> None:
        """Drop what may be out of date after an error, so that the next try prepares it anew."""
        place = self.place
        if isinstance(exc, _STALE):
            self.here.clear()
            self._young, self._old = {}, {}
            if place is not None:
                place.forget()
            await self._raw.reload_schema_state()  # before the change of a type
            return
        unsent = getattr(exc, "severity", None) is None  # asyncpg's own, of a parameter
        if unsent or not isinstance(exc, asyncpg.DataError):
            if unsent and not self._raw.is_in_transaction():
                # asyncpg prepares without a Sync: until the next one all is a transaction, with its locks
                await self._raw.execute("SELECT")
            self.here.pop(sql, None)
            shape = None if place is None else place.shapes.get(sql)
            for of in (shape, self._name):
                self._young.pop((sql, of), None)
                self._old.pop((sql, of), None)
            if place is not None:
                place.forget(sql)


async def _before(sent: Awaitable[Any]) -> Any:
    """Wait for what is sent ahead of a statement; if the connection is lost there, that has not run."""
    try:
        return await sent
    except _LOST as exc:
        error = translate(exc)
    if isinstance(error, ConnectionLost):
        error.sent = Sent.NO
    raise error
