"""Understand each text once: what it does, whether it is a read, its parameters, tables and fingerprint.

A read is what can be proven one; every doubt ends at the primary. Two opinions have to agree, that of the
tokens and that of the syntax tree, and every function called has to be known.

Out of sight of any text: views, row-security policies, casts and operators that call volatile functions,
and PostgreSQL's functional notation (``SELECT t.f FROM t`` calls ``f(t)`` if ``t`` has no column ``f``).
Replica connections are read-only in the database for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from operator import itemgetter
from typing import Final

from router.errors import ParameterError
from router.lexer import PUNCTUATION, Dialect, Token, compile_parameters, lex, normalize
from router.reasons import Reason
from router.scan import FUNCTIONS, Scan, scan
from router.syntax import NOTHING, Syntax, examine
from router.verbs import CHANGES, QUERIES, Dirt, Kind

__all__ = ["Dialect", "Dirt", "Kind", "Statement", "Statements", "parse"]

_PARSED: Final = QUERIES | CHANGES
_LONGEST_PARSED: Final = 1 << 20  # characters; a longer text gets no syntax tree, so it is no proven read
_CACHED_CHARACTERS: Final = 4 << 20  # per generation, so that a few huge texts cannot fill the memory


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Statement:
    """Hold all that is known of one text; made once, shared by every request that sends it.

    ``verdict`` is ``Reason.READ`` for a proven read, else why it is none. On PostgreSQL it is a read only if
    the catalog says that none of ``unproven`` is volatile; an entry there that is no name is an operator.
    """

    text: str
    dialect: Dialect
    kind: Kind
    verdict: Reason
    functions: frozenset[str]  # called, without schema; lower case unless quoted
    unproven: frozenset[str]  # of ``functions``: not known to be without effects
    tables: frozenset[str]  # with schema if written so; lower case unless quoted; empty where not known
    sql: str  # for the driver
    names: tuple[str, ...]  # the parameter at each position of ``sql``
    parameters: frozenset[str]  # the names of ``names``, once each
    fingerprint: str  # 16 hexadecimal digits; the same for texts that are ``normalized`` to the same
    normalized: str  # without literals, parameters and comments: safe to log
    returns_rows: bool
    dirt: Dirt

    def bind(self, params: Mapping[str, object] | None) -> tuple[object, ...]:
        """Return the values in the order of ``names``.

        Raises :class:`ParameterError` for missing or unexpected names; it shows names, never values.
        """
        try:
            if params is None:
                if not self.names:
                    return ()
            elif len(params) == len(self.parameters):
                names = self.names
                return (params[names[0]],) if len(names) == 1 else tuple(map(params.__getitem__, names))
        except (KeyError, TypeError, IndexError):
            pass
        given = list(params) if isinstance(params, Mapping) else None if params is not None else []
        del params  # the values must not be found in the traceback
        raise _mismatch(self, given)

    def bind_many(self, params: Sequence[Mapping[str, object]]) -> list[tuple[object, ...]]:
        """Return the values of each mapping as :meth:`bind` does."""
        names = self.names
        if len(names) > 1:
            try:
                rows = list(map(itemgetter(*names), params))
                if set(map(len, params)) <= {len(self.parameters)}:
                    return rows
            except (KeyError, TypeError, IndexError):
                pass  # the row that is wrong is told by bind()
        return [self.bind(each) for each in params]

    def repeatable(self) -> bool:
        """Tell whether the same data always give the same answer.

        It asks no clock and no chance, and not who asks, on which node, or what the catalog says.
        """
        return self.functions.isdisjoint(FUNCTIONS[self.dialect].not_repeatable)

    def __repr__(self) -> str:
        return f"<Statement {self.fingerprint} {self.kind} {self.verdict}: {self.normalized[:80]}>"


class Statements:
    """Parse each text once, and keep no more than ``bound`` of them.

    Two generations: what is asked for moves to the young one; when that is half of the bound, the old one
    goes and the young one becomes old. So a hit is one look-up and eviction costs nothing per entry.
    """

    __slots__ = ("_dialect", "_half", "_old", "_size", "_young")

    def __init__(self, dialect: Dialect, *, bound: int = 4096) -> None:
        self._dialect = dialect
        self._half = max(1, bound // 2)
        self._young: dict[str, Statement] = {}
        self._old: dict[str, Statement] = {}
        self._size = 0  # characters in the young generation

    def of(self, text: str) -> Statement:
        """Return the statement of ``text``. Raises :class:`StatementError` as :func:`parse` does."""
        return self._young.get(text) or self._find(text)

    def _find(self, text: str) -> Statement:
        statement = self._old.pop(text, None) or parse(text, self._dialect)
        if len(self._young) >= self._half or self._size + len(text) > _CACHED_CHARACTERS:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[text] = statement
        self._size += len(text)
        return statement

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __repr__(self) -> str:
        return f"<Statements {self._dialect}: {len(self)} of {2 * self._half}>"


def parse(text: str, dialect: Dialect) -> Statement:
    """Return what is known of ``text``. Pure, and not cached.

    Raises :class:`StatementError` for an empty text, one that is not closed (literal, comment), one with NUL
    or with another driver's placeholders.
    """
    tokens = lex(text, dialect)
    while tokens and tokens[-1].kind == PUNCTUATION and tokens[-1].value == ";":
        tokens.pop()
    scanned = scan(text, tokens, dialect)
    syntax = _second_opinion(text, tokens, dialect, scanned)
    verdict, functions, unproven = scanned.verdict, scanned.functions, scanned.unproven
    if verdict is Reason.READ and not syntax.query:
        verdict = Reason.UNPARSED
    if verdict is Reason.READ and (missed := _missed(scanned, syntax, dialect)):
        functions, unproven = functions | missed, unproven | missed
        verdict = Reason.READ if dialect is Dialect.POSTGRESQL else Reason.UNKNOWN_FUNCTION
    sql, names = compile_parameters(text, tokens, dialect)
    normalized = normalize(tokens, FUNCTIONS[dialect].words)
    return Statement(
        text=text,
        dialect=dialect,
        kind=scanned.kind,
        verdict=verdict,
        functions=functions,
        unproven=unproven,
        tables=syntax.tables,
        sql=sql,
        names=names,
        parameters=frozenset(names),
        fingerprint=blake2b(normalized.encode(), digest_size=8).hexdigest(),
        normalized=normalized,
        returns_rows=scanned.returns_rows,
        dirt=scanned.dirt,
    )


def _second_opinion(text: str, tokens: list[Token], dialect: Dialect, scanned: Scan) -> Syntax:
    if scanned.verb not in _PARSED or scanned.verdict is Reason.UNPARSED or len(text) > _LONGEST_PARSED:
        return NOTHING
    return examine(text, tokens, dialect)


def _missed(scanned: Scan, syntax: Syntax, dialect: Dialect) -> frozenset[str]:
    """Return the unproven functions that only the syntax tree shows."""
    seen = {name.lower() for name in scanned.functions}
    return frozenset(syntax.functions - seen - FUNCTIONS[dialect].safe)


def _mismatch(statement: Statement, given: list[str] | None) -> ParameterError:
    """Return the error that names what is missing and what is too much; ``given`` is None for no mapping."""
    if given is None:
        return ParameterError('parameters are not a mapping. Pass them by name: {"id": 7} for :id')
    missing = [name for name in dict.fromkeys(statement.names) if name not in given]
    extra = [str(name) for name in given if name not in statement.parameters]
    facts = [
        f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unexpected", extra)) if names
    ]
    hints = []
    for name in missing:
        close = get_close_matches(name, extra, n=1)
        if close:
            hints.append(f"is {close[0]} meant as {name}?")
    advice = " ".join(hints) or "Pass exactly the names that the statement uses"
    count = f"{len(statement.parameters)} parameters, {len(given)} given"
    error = ParameterError(f"statement takes {count}: {'; '.join(facts)}. {advice}")
    return error.at(fingerprint=statement.fingerprint)
