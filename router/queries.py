"""The query methods that sessions and transactions share: one set of names, one set of arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar, overload

from router.consistency import Bounded, Consistency
from router.errors import UsageError
from router.routing import Intent
from router.rows import Result, Row, converter

T = TypeVar("T")
Params = Mapping[str, object] | None
Level = Consistency | Bounded | str | None


@dataclass(frozen=True, slots=True)
class Options:
    """Hold what a caller may say about one statement."""

    intent: Intent = Intent.AUTO
    consistency: Consistency | Bounded | None = None
    timeout: float | None = None
    idempotent: bool = False
    cache: float | None = (
        None  # seconds that an answer may be old; 0.0 for no cache, None for the tenant's rules
    )


PLAIN = Options()
_CACHED: dict[float, Options] = {}  # a cached read takes as long as making these would


def options(
    *,
    readonly: bool = False,
    primary: bool = False,
    timeout: float | None = None,
    idempotent: bool = False,
    consistency: Level = None,
    cache: float | None = None,
) -> Options:
    """Return the options of a call; one shared object where nothing was said."""
    if cache is not None:
        cache = lifetime(cache)
    if cache is None and not (readonly or primary or idempotent) and timeout is None and consistency is None:
        return PLAIN
    if readonly and primary:
        raise UsageError("readonly=True and primary=True contradict each other. Give one of them")
    intent = Intent.READONLY if readonly else Intent.PRIMARY if primary else Intent.AUTO
    asked = None if consistency is None else level(consistency, None)
    return Options(intent, asked, seconds(timeout), idempotent, cache)


def given_options(given: Mapping[str, Any]) -> Options:
    """Return the options of a call that gave some."""
    if len(given) == 1 and (ttl := given.get("cache")).__class__ is int:
        known = _CACHED.get(ttl)
        if known is None and len(_CACHED) < 1_000:
            known = _CACHED[ttl] = options(cache=ttl)
        if known is not None:
            return known
    return options(**given)


def lifetime(cache: object) -> float:
    """Return for how many seconds an answer may be taken from memory; 0.0 for never."""
    if cache is False:
        return 0.0
    if cache is True or not isinstance(cache, int | float) or not 0 <= cache < inf:
        raise UsageError(
            f"cache is {cache!r}, but must be a number of seconds that the answer may be old. Leave it out "
            "for the tenant's own rules, or give False to go to the database"
        )
    return float(cache)


def seconds(timeout: float | None) -> float | None:
    """Return a timeout as it was given; one that leaves no time is a mistake, not "no limit"."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise UsageError(
            f"timeout is {timeout!r}, but must be a number of seconds above 0. Leave it out to use the "
            "tenant's own setting"
        )
    return timeout


def level(name: Consistency | Bounded | str, bounded: Bounded | None) -> Consistency | Bounded:
    """Return the consistency level of that name; ``bounded`` stands for the bare word."""
    if isinstance(name, Bounded):
        return name
    try:
        found = Consistency(name)
    except ValueError:
        known = ", ".join(Consistency)
        raise UsageError(
            f"there is no consistency level {name!r}. Use one of: {known}, or Bounded(seconds=...)"
        ) from None
    return bounded if bounded is not None and found is Consistency.BOUNDED else found


class Queries(ABC):
    """Run statements. ``sql`` is text with ``:name`` parameters, or a SQLAlchemy Core construct.

    Every method takes these options: ``readonly=True`` vouches that the statement is a read, ``primary=True``
    sends it to the primary, ``timeout`` bounds the whole request in seconds, ``idempotent=True`` says that
    running it twice is harmless, ``consistency`` overrides the session's level. The fetch methods also take
    ``cache``, the seconds that an answer may be old and come from memory, or False for never. ``into`` is a
    dataclass, a pydantic model or a msgspec Struct that each row becomes.

    Raises the errors of ``router.errors``; a write without an answer is ``CommitOutcomeUnknown``.
    """

    __slots__ = ()

    @abstractmethod
    def _run(self, verb: str, sql: Any, params: Any, given: Options) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that runs one request."""

    @overload
    async def fetch_all(
        self, sql: Any, params: Params = None, *, into: type[T], readonly: bool = ..., primary: bool = ...,
        timeout: float | None = ..., idempotent: bool = ..., consistency: Level = ...,
        cache: float | None = ...,
    ) -> list[T]: ...  # fmt: skip
    @overload
    async def fetch_all(
        self, sql: Any, params: Params = None, *, into: None = ..., readonly: bool = ..., primary: bool = ...,
        timeout: float | None = ..., idempotent: bool = ..., consistency: Level = ...,
        cache: float | None = ...,
    ) -> list[Row]: ...  # fmt: skip
    async def fetch_all(
        self, sql: Any, params: Params = None, *, into: type[Any] | None = None, **given: Any
    ) -> list[Any]:
        """Run a statement and return all its rows."""
        make = None if into is None else converter(into)  # a mistake must show before the statement runs
        rows: list[Any] = await self._run("fetch_all", sql, params, given_options(given) if given else PLAIN)
        return rows if make is None else list(map(make, rows))

    @overload
    async def fetch_one(
        self, sql: Any, params: Params = None, *, into: type[T], readonly: bool = ..., primary: bool = ...,
        timeout: float | None = ..., idempotent: bool = ..., consistency: Level = ...,
        cache: float | None = ...,
    ) -> T | None: ...  # fmt: skip
    @overload
    async def fetch_one(
        self, sql: Any, params: Params = None, *, into: None = ..., readonly: bool = ..., primary: bool = ...,
        timeout: float | None = ..., idempotent: bool = ..., consistency: Level = ...,
        cache: float | None = ...,
    ) -> Row | None: ...  # fmt: skip
    async def fetch_one(
        self, sql: Any, params: Params = None, *, into: type[Any] | None = None, **given: Any
    ) -> Any:
        """Run a statement and return its first row, or ``None`` if it has none."""
        make = None if into is None else converter(into)  # a mistake must show before the statement runs
        row = await self._run("fetch_one", sql, params, given_options(given) if given else PLAIN)
        return row if make is None or row is None else make(row)

    async def fetch_value(self, sql: Any, params: Params = None, **given: Any) -> Any:
        """Run a statement and return the first column of its first row, or ``None`` if it has no row."""
        row = await self._run("fetch_one", sql, params, given_options(given) if given else PLAIN)
        return None if row is None else row[0]

    async def execute(self, sql: Any, params: Params = None, **given: Any) -> Result:
        """Run a statement and return its :class:`~router.rows.Result`: row count, generated key, rows."""
        result: Result = await self._run("execute", sql, params, given_options(given) if given else PLAIN)
        return result

    async def execute_many(self, sql: Any, params: Iterable[Mapping[str, object]], **given: Any) -> int:
        """Run a statement once for each mapping in one batch, all or none.

        Return the number of rows changed, or -1 where the protocol does not tell (PostgreSQL).
        """
        changed: int = await self._run("execute_many", sql, list(params), options(**given))
        return changed

    async def execute_raw(self, text: str, *, timeout: float | None = None) -> None:
        """Run a text on the primary exactly as it is: no parameters, several statements allowed.

        The connection is closed afterwards, since the text is not looked at and may have changed it.
        """
        await self._run("execute_raw", text, None, options(timeout=timeout))

    @abstractmethod
    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        batch: int = 500,
        readonly: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[Row, None]:
        """Iterate over the rows of a query with a cursor on the server; memory stays constant.

        ``batch`` rows are fetched at a time; ``timeout`` holds for each batch, in seconds. A loop that may
        end early belongs inside ``contextlib.aclosing``: otherwise the connection is held until the garbage
        collector finds the generator.
        """

    @abstractmethod
    async def prepare(self, sql: str) -> PreparedStatement:
        """Return a statement to run many times; it is parsed now, and prepared on each connection once."""


class PreparedStatement:
    """Run one text many times; the drivers keep it prepared on each connection that has run it."""

    def __init__(self, on: Queries, sql: str) -> None:
        self._on = on
        self.sql = sql

    async def fetch_all(self, params: Params = None, **given: Any) -> list[Row]:
        """Return all rows."""
        return await self._on.fetch_all(self.sql, params, **given)

    async def fetch_one(self, params: Params = None, **given: Any) -> Row | None:
        """Return the first row, or ``None``."""
        return await self._on.fetch_one(self.sql, params, **given)

    async def fetch_value(self, params: Params = None, **given: Any) -> Any:
        """Return the first column of the first row, or ``None``."""
        return await self._on.fetch_value(self.sql, params, **given)

    async def execute(self, params: Params = None, **given: Any) -> Result:
        """Return what the statement did."""
        return await self._on.execute(self.sql, params, **given)

    def __repr__(self) -> str:
        return f"<PreparedStatement {self.sql!r}>"
