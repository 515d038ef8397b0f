"""Make the facts of a schema from what its catalog answered, and share them among schemas alike."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final
from weakref import WeakValueDictionary

from router.cache.refusal import Refusal
from router.cache.relations import HIDDEN, TABLE, Fact, Relations, Shape
from router.cache.views import view
from router.errors import StatementError
from router.functions import POSTGRESQL
from router.lexer import PUNCTUATION, WORD, Dialect, lex
from router.rows import Row

Found = dict[str, Fact]

_FOREIGN: Final = Fact(acts=True, refusal=Refusal.FOREIGN_TABLE)
_SEQUENCE: Final = Fact(refusal=Refusal.SEQUENCE)
_TEMPORARY: Final = Fact(refusal=Refusal.TEMPORARY_TABLE)
#: Tenants of one application have the same schema: 5,000 of them need the memory of one.
_SHARED: Final[WeakValueDictionary[bytes, Shape]] = WeakValueDictionary()


def relations_of(rows: Iterable[Row], dialect: Dialect, declared: Mapping[str, tuple[str, ...]]) -> Relations:
    """Return what the rows of ``router.cache.catalogs.QUERIES`` say."""
    schema, path, facts = _READERS[dialect](list(rows))
    return Relations(schema, path, _shape(dialect, facts), declared)


def _shape(dialect: Dialect, facts: Found) -> Shape:
    said = [
        (name, None if fact is TABLE else fact) for name, fact in sorted(facts.items(), key=itemgetter(0))
    ]
    key = blake2b(repr((dialect, said)).encode(), digest_size=16).digest()
    return _SHARED.setdefault(key, Shape(dialect, facts))


# --- PostgreSQL ------------------------------------------------------------------------------------------


def _postgresql(rows: list[Any]) -> tuple[str, tuple[str, ...], Found]:
    path = next(tuple(row[2] or ("",)) for row in rows if row[1] is None)
    told = [row for row in rows if row[1] is not None]
    names = {row[5][:-1]: _name(row[0], row[1], path[0]) for row in told}
    facts: Found = {}
    for row in told:
        name = names[row[5][:-1]]
        dotted = "." in row[1] or "." in row[0]  # a text's tables do not tell it from schema and table
        facts[name] = HIDDEN if dotted or name in facts else _relation(row, names)
    return path[0], path[1:], facts


def _name(schema: str, name: str, own: str) -> str:
    return sys.intern(name if schema == own else f"{schema}.{name}")


def _relation(row: Any, names: Mapping[str, str]) -> Fact:
    """Return the fact of one row; a number without a name is a relation that was not reached: unknown."""
    _, _, shows, drags, calls, kind, persistence, secured, acts, computed = row
    kind = kind[-1]
    if persistence == "t":
        return _TEMPORARY
    if kind == "f":
        return _FOREIGN
    if kind == "S":
        return _SEQUENCE
    refusal = Refusal.ROW_SECURITY if secured else None
    if kind == "v":
        refusal = _judge(calls or ())
    if computed:
        refusal = refusal or Refusal.USER_FUNCTION
    fact = Fact(
        holds=kind != "v",
        shows=tuple(sorted(names.get(each, f"?.{each}") for each in shows or ())),
        drags=tuple(sorted(names.get(each, f"?.{each}") for each in drags)),
        acts=acts,
        refusal=refusal,
    )
    return TABLE if fact == TABLE else fact


def _judge(calls: Iterable[str]) -> Refusal | None:
    """Return why a view that calls these is not cached; "" stands for a function of the users'."""
    if "" in calls:
        return Refusal.USER_FUNCTION
    known = not any(map(str.isupper, calls)) and POSTGRESQL.not_repeatable.isdisjoint(calls)
    return None if known else Refusal.NOT_REPEATABLE  # in upper case: a part of the stored tree


# --- MySQL and MariaDB -----------------------------------------------------------------------------------

# Others may have their rows elsewhere (FEDERATED, CONNECT, SPIDER, S3), or in other tables (MRG_MyISAM).
_ENGINES: Final = frozenset(("innodb", "rocksdb", "tokudb"))
_WITHOUT_TRANSACTIONS: Final = frozenset(("myisam", "aria", "memory", "archive", "csv", "mroonga"))
_MYSQL_TABLES: Final = frozenset(("BASE TABLE", "SYSTEM VERSIONED"))


def _mysql(rows: list[Any]) -> tuple[str, tuple[str, ...], Found]:
    by_kind: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for kind, *values in rows:
        by_kind[_text(kind)].append(tuple(map(_text, values)))
    (own, trusted, _, _) = by_kind["schema"][0]
    schema = own.lower()
    texts = {name.lower(): text.replace(f"`{own}`.", "") for name, text, _, _ in by_kind["view"]}
    acting = {each[0].lower() for each in by_kind["trigger"]}
    made: dict[str, Refusal | None] = {}  # columns by expressions
    for table, expression, _, _ in by_kind["column"]:
        name = table.lower()
        text = f"SELECT {expression} FROM t"  # noqa: S608 - only looked at, never run
        made[name] = made.get(name) or view(text, Dialect.MYSQL).refusal
    drags: defaultdict[str, set[str]] = defaultdict(set)
    outside: set[str] = set()
    for parent, child, parent_schema, _ in by_kind["key"]:
        if parent_schema == own:
            drags[parent.lower()].add(child.lower())
        else:
            outside.add(child.lower())
    _spread(outside, drags)
    facts: Found = {}
    for name, kind, engine, _ in by_kind["relation"]:
        name = sys.intern(name.lower())
        if name in facts or "." in name:  # names that differ in case only are one to us
            facts[name] = HIDDEN
            continue
        acts = trusted != "1" or name in acting
        fact = _kind(kind, engine, acts, texts.get(name, ""), tuple(sorted(drags[name])))
        if name in outside:
            made[name] = Refusal.CASCADE_FROM_OUTSIDE
        if fact.refusal is None and made.get(name) is not None:
            fact = replace(fact, refusal=made[name])
        facts[name] = TABLE if fact == TABLE else fact
    return schema, (), facts


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else "" if value is None else str(value)


def _kind(kind: str, engine: str, acts: bool, text: str, drags: tuple[str, ...]) -> Fact:
    if kind == "VIEW":
        return Fact(holds=False, acts=acts, text=text)
    if kind == "SEQUENCE":
        return _SEQUENCE
    if "TEMPORARY" in kind:
        return _TEMPORARY
    if kind in _MYSQL_TABLES and engine.lower() in _WITHOUT_TRANSACTIONS:
        return Fact(acts=acts, drags=drags, refusal=Refusal.NO_TRANSACTIONS)
    if kind not in _MYSQL_TABLES or engine.lower() not in _ENGINES:
        return _FOREIGN
    return Fact(acts=acts, drags=drags)


def _spread(reached: set[str], drags: Mapping[str, set[str]]) -> None:
    """Add to ``reached`` all that follows from it."""
    waiting = list(reached)
    while waiting:
        new = drags.get(waiting.pop(), set()) - reached
        reached |= new
        waiting.extend(new)


# --- SQLite ----------------------------------------------------------------------------------------------


def _sqlite(rows: list[Any]) -> tuple[str, tuple[str, ...], Found]:
    drags: defaultdict[str, set[str]] = defaultdict(set)
    acting: set[str] = set()
    for kind, name, other, _, _ in rows:
        if kind == "key":
            drags[name.lower()].add(other.lower())
        elif kind == "trigger":
            acting.add(name.lower())
    facts: Found = {}
    for kind, name, text, _, _ in rows:
        if kind not in ("table", "view"):
            continue
        name = sys.intern(name.lower())
        if name in facts or "." in name:
            fact = HIDDEN
        elif kind == "view":
            fact = Fact(holds=False, acts=name in acting, text=_query(text))
        elif text is not None and text[:15].upper() == "CREATE VIRTUAL ":
            fact = _FOREIGN
        else:
            fact = Fact(drags=tuple(sorted(drags[name])), acts=name in acting)
        facts[name] = TABLE if fact == TABLE else fact
    return "main", (), facts


def _query(text: str) -> str:
    """Return what stands after AS in CREATE VIEW, past a list of columns; "" if it cannot be read."""
    depth = 0
    try:
        tokens = lex(text, Dialect.SQLITE)
    except StatementError:
        return ""
    for token in tokens:
        if token.kind == PUNCTUATION:
            depth += (token.value == "(") - (token.value == ")")
        elif token.kind == WORD and token.value == "as" and depth == 0:
            return text[token.end :]
    return ""


_READERS: Final[Mapping[Dialect, Callable[[list[Any]], tuple[str, tuple[str, ...], Found]]]] = {
    Dialect.POSTGRESQL: _postgresql,
    Dialect.MYSQL: _mysql,
    Dialect.SQLITE: _sqlite,
}
