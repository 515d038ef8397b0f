"""Judge a statement by its tokens: its verb, the functions it calls, and every sign that it is no read.

This is the first of two opinions; ``router.syntax`` has the other. It errs to one side only: a name before
a parenthesis is a call unless the syntax around it rules that out, and a keyword that can announce a change
counts unless it stands where only a name can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from router.dirt import left_behind
from router.errors import StatementError
from router.functions import MYSQL, POSTGRESQL, SQLITE, Functions
from router.lexer import (
    EXECUTABLE,
    LITERAL,
    ODD,
    OPERATOR,
    PARAMETER,
    PUNCTUATION,
    QUOTED,
    VARIABLE,
    WORD,
    Dialect,
    Token,
)
from router.reasons import Reason
from router.verbs import CHANGES, QUERIES, QUERY, UNKNOWN, VERBS, Dirt, Kind

FUNCTIONS: Final[Mapping[Dialect, Functions]] = {
    Dialect.POSTGRESQL: POSTGRESQL,
    Dialect.MYSQL: MYSQL,
    Dialect.SQLITE: SQLITE,
}
_LOCKS = frozenset(("update", "share", "no", "key"))
_SEQUENCE = frozenset(("nextval", "currval", "lastval"))
# Names that look called, and what stands before them where they are not.
_AFTER: Final[Mapping[str, frozenset[str]]] = {
    "cube": frozenset(("by",)),
    "rollup": frozenset(("by",)),
    "any": frozenset(("=", "<>", "!=", "<", ">", "<=", ">=")),
    "some": frozenset(("=", "<>", "!=", "<", ">", "<=", ">=")),
    "by": frozenset(("group", "order", "partition")),
    "sets": frozenset(("grouping",)),
    "varying": frozenset(("character", "char", "bit", "nchar")),
    "conflict": frozenset(("on",)),
    "insert": frozenset(("then",)),
    "first": frozenset(("fetch",)),
    "next": frozenset(("fetch",)),
    "bernoulli": frozenset(("tablesample",)),
    "system": frozenset(("tablesample",)),
}
# PostgreSQL lets functions have these names, but after an operand they are operators or clauses.
_INFIX = frozenset(("join", "like", "ilike", "is", "set", "similar"))


class Scan(NamedTuple):
    """Hold what the tokens of a text say."""

    verb: str  # the keyword that says what is done; of a WITH the one after it
    kind: Kind
    verdict: Reason  # READ if nothing speaks against it
    functions: frozenset[str]
    unproven: frozenset[str]
    dirt: Dirt
    returns_rows: bool


class _Source(NamedTuple):
    """Hold one statement's tokens and what is derived from them once."""

    text: str
    tokens: Sequence[Token]
    dialect: Dialect
    partners: Mapping[int, int]  # index of each parenthesis to that of its other half
    balanced: bool
    common: frozenset[int]  # where names of common table expressions stand

    def at(self, index: int) -> str:
        """Return the value of a word or sign at ``index``, "" for anything else and outside."""
        if not 0 <= index < len(self.tokens):
            return ""
        token = self.tokens[index]
        return token.value if token.kind in (WORD, PUNCTUATION, OPERATOR) else ""

    def is_name(self, index: int) -> bool:
        """Tell whether a word or quoted name stands at ``index``."""
        return 0 <= index < len(self.tokens) and self.tokens[index].kind in (WORD, QUOTED)


def scan(text: str, tokens: Sequence[Token], dialect: Dialect) -> Scan:
    """Return what ``tokens`` say, of one statement or several in one text.

    Raises :class:`StatementError` if there is no statement.
    """
    found = parts(tokens)
    if not found:
        raise StatementError("statement is empty: only white space, comments or semicolons. Pass a statement")
    if len(found) == 1:
        return _scan_one(text, found[0], dialect)
    if found[0][0].value == "create":  # the bodies of routines and triggers have semicolons
        return _scan_one(text, tokens, dialect)
    scans = [_scan_one(text, part, dialect) for part in found]
    return Scan(
        verb="",
        kind=scans[0].kind if len({each.kind for each in scans}) == 1 else Kind.OTHER,
        verdict=Reason.MULTIPLE_STATEMENTS,
        functions=frozenset[str]().union(*(each.functions for each in scans)),
        unproven=frozenset[str]().union(*(each.unproven for each in scans)),
        dirt=max(Dirt.RESET, *(each.dirt for each in scans)),
        returns_rows=any(each.returns_rows for each in scans),
    )


def parts(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Return the statements between semicolons, without empty ones."""
    ends = [i for i, token in enumerate(tokens) if token.value == ";" and token.kind == PUNCTUATION]
    bounds = zip([-1, *ends], [*ends, len(tokens)], strict=True)
    return [tokens[before + 1 : end] for before, end in bounds if end > before + 1]


def _scan_one(text: str, tokens: Sequence[Token], dialect: Dialect) -> Scan:
    source, main = _source(text, tokens, dialect)
    word = source.at(main)
    verb = QUERY if word in QUERIES else VERBS[dialect].get(word, UNKNOWN)
    functions = FUNCTIONS[dialect]
    calls = set(_calls(source))
    names = frozenset(name for name, _ in calls)
    unproven = frozenset(name for name, foreign in calls if foreign or name not in functions.safe)
    verdict, kind = verb.reason, verb.kind
    if verb is QUERY:
        verdict = _objection(source, main) or _judge_functions(names, unproven, dialect)
        if verdict in (Reason.SELECT_INTO, Reason.WRITING_CTE):
            kind = Kind.WRITE
    rows = verb.rows and verdict is not Reason.SELECT_INTO
    return Scan(
        verb=word,
        kind=kind,
        verdict=verdict,
        functions=names,
        unproven=unproven,
        dirt=left_behind(text, tokens, dialect, verb, functions, names, unproven),
        returns_rows=rows or (kind is Kind.WRITE and _has_returning(source)),
    )


# --- structure -------------------------------------------------------------------------------------------


def _source(text: str, tokens: Sequence[Token], dialect: Dialect) -> tuple[_Source, int]:
    """Return the statement with its structure, and the index of its main verb."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    balanced = True
    for index, token in enumerate(tokens):
        if token.kind != PUNCTUATION:
            continue
        if token.value == "(":
            opened.append(index)
        elif token.value == ")":
            if opened:
                begin = opened.pop()
                partners[begin], partners[index] = index, begin
            else:
                balanced = False
    source = _Source(text, tokens, dialect, partners, balanced and not opened, frozenset())
    common: set[int] = set()
    main = first = _skip(source, 0)
    for index, token in enumerate(tokens):
        if token.value == "with" and token.kind == WORD:
            names, end = _common_tables(source, index)
            common.update(names)
            if index == first:
                main = _skip(source, end)
    return source._replace(common=frozenset(common)), main


def _skip(source: _Source, index: int) -> int:
    """Return the index after any opening parentheses."""
    while source.at(index) == "(":
        index += 1
    return index


def _common_tables(source: _Source, at: int) -> tuple[set[int], int]:
    """Return where the names that a WITH defines stand, and where the list of them ends."""
    names: set[int] = set()
    index = at + 1
    if source.at(index) == "recursive":
        index += 1
    while source.is_name(index):
        name, index = index, index + 1
        if source.at(index) == "(":
            index = source.partners.get(index, len(source.tokens)) + 1
        if source.at(index) != "as":
            break
        index += 1
        while source.at(index) in ("not", "materialized"):
            names.add(index)  # no function either
            index += 1
        if source.at(index) != "(":
            break
        names.add(name)
        index = source.partners.get(index, len(source.tokens)) + 1
        if source.at(index) != ",":
            break
        index += 1
    while source.at(index) in ("search", "cycle"):  # PostgreSQL: SEARCH DEPTH FIRST BY a, b SET c
        while index < len(source.tokens) and source.at(index) not in QUERIES | CHANGES | {"("}:
            index += 1
    return names, index


# --- functions -------------------------------------------------------------------------------------------


def _calls(source: _Source) -> Iterator[tuple[str, bool]]:
    """Yield each function, and each operator that users may have defined, with whether it is foreign.

    Foreign means that the name does not lead to the server's own function, whatever it is called: it has a
    schema or database in front, or is an operator that the server does not bring.
    """
    functions = FUNCTIONS[source.dialect]
    for index, (kind, value, _, _) in enumerate(source.tokens):
        if kind == PUNCTUATION:
            if value == "(" and source.is_name(index - 1):
                call = _call(source, index - 1, functions)
                if call is not None:
                    yield call
        elif kind == WORD and value in functions.bare and source.at(index - 1) != ".":
            yield value, False
        elif kind == OPERATOR and functions.operators:
            if value not in functions.operators and value not in ("::", ":="):
                yield value, True
        elif source.dialect is Dialect.SQLITE and value.lower().startswith("pragma_"):
            yield value.lower(), False  # a table function even without parentheses


def _call(source: _Source, at: int, functions: Functions) -> tuple[str, bool] | None:
    """Return the call of the name at ``at``, or None where the parenthesis after it means another thing."""
    begin = at
    while source.at(begin - 1) == "." and source.is_name(begin - 2):
        begin -= 2
    name = source.tokens[at]
    if begin < at:
        if _not_called(source, begin, functions, word=""):
            return None
        return name.value, source.tokens[begin].value != "pg_catalog" or begin != at - 2
    word = name.value if name.kind == WORD else ""
    if _not_called(source, begin, functions, word=word):
        return None
    # MySQL and SQLite find functions without regard to case or quotes
    return (name.value if source.dialect is Dialect.POSTGRESQL else name.value.lower()), False


def _not_called(source: _Source, at: int, functions: Functions, *, word: str) -> bool:
    """Tell whether what comes before the name at ``at`` rules out that it is called."""
    before = source.at(at - 1)
    if word in functions.words or at in source.common:
        return True
    if before in ("as", "into", "::"):  # an alias with columns, the columns to insert, a type
        return True
    if (
        before == ")"
    ):  # an alias with columns, OVER, FILTER; but not in DISTINCT ON (a) f(b), a OPERATOR(+) f(b)
        opening = source.partners.get(at - 1, 0)
        distinct = source.at(opening - 1) == "on" and source.at(opening - 2) == "distinct"
        return not distinct and source.at(opening - 1) != "operator"
    if word in _AFTER:
        return before in _AFTER[word]
    return word in _INFIX and _is_operand(source, at - 1, functions)


def _is_operand(source: _Source, index: int, functions: Functions) -> bool:
    if index < 0:
        return False
    kind, value, _, _ = source.tokens[index]
    if kind == WORD:
        return value not in functions.words and value not in _AFTER and value not in _INFIX
    return kind in (QUOTED, LITERAL, PARAMETER) or value == "]"


def _judge_functions(names: frozenset[str], unproven: frozenset[str], dialect: Dialect) -> Reason:
    """Return READ, or why the functions called forbid it.

    PostgreSQL's unproven functions are left to be asked of its catalog; the others have none to ask.
    """
    if any(FUNCTIONS[dialect].has_effects(name) for name in names):
        return Reason.VOLATILE_FUNCTION
    if unproven and dialect is not Dialect.POSTGRESQL:
        return Reason.UNKNOWN_FUNCTION
    return Reason.READ


# --- signs that a query is no read -----------------------------------------------------------------------


def _objection(source: _Source, main: int) -> Reason | None:
    """Return the first reason, other than functions, why a query is not a plain read."""
    if not source.balanced:
        return Reason.UNPARSED
    for index, (kind, value, _, _) in enumerate(source.tokens):
        reason: Reason | None = None
        if kind == WORD and source.at(index - 1) not in (".", "as"):
            reason = _word(source, index, value, main)
        elif kind in (ODD, EXECUTABLE):
            reason = Reason.UNPARSED
        elif kind == VARIABLE or (value == ":=" and source.dialect is Dialect.MYSQL):
            reason = Reason.SESSION_STATE
        elif kind == LITERAL and source.at(index + 1) == "(":  # a name, if MySQL has ANSI_QUOTES set
            reason = Reason.UNPARSED
        elif source.dialect is Dialect.MYSQL and source.at(index - 1) == "." and value.lower() in _SEQUENCE:
            reason = Reason.VOLATILE_FUNCTION  # MariaDB's Oracle mode: s.nextval
        if reason is not None:
            return reason
    return None


def _word(source: _Source, index: int, value: str, main: int) -> Reason | None:
    """Return what the keyword at ``index`` says against a read."""
    following = source.at(index + 1)
    if value == "into":
        return Reason.SELECT_INTO
    if (value == "for" and following in _LOCKS) or (value == "lock" and following == "in"):
        return Reason.LOCKING
    if value in CHANGES and index != main and source.is_name(index + 1):
        return Reason.WRITING_CTE if source.at(index - 1) in ("(", ")") else None
    if source.dialect is not Dialect.MYSQL:
        return None
    if value == "value" and following == "for":  # NEXT VALUE FOR, PREVIOUS VALUE FOR
        return Reason.VOLATILE_FUNCTION
    if value == "procedure":
        return Reason.NOT_A_QUERY
    return Reason.SESSION_STATE if value == "sql_calc_found_rows" else None


def _has_returning(source: _Source) -> bool:
    depth = 0
    for index, token in enumerate(source.tokens):
        if token.kind == PUNCTUATION:
            depth += (token.value == "(") - (token.value == ")")
        elif depth == 0 and token.value == "returning" and token.kind == WORD and source.at(index - 1) != ".":
            return True
    return False
