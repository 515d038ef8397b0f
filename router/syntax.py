"""Judge a statement by its syntax tree: a second opinion that may only object, and the tables it touches.

sqlglot understands nesting, which tokens do not show, but it also reads some commands as expressions
(``LISTEN x`` as an aliased column), so its word alone makes nothing a read. It never sees what a literal
says: its errors quote the statement and its warnings go to a log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect as Grammar
from sqlglot.errors import SqlglotError

from router.lexer import LITERAL, PARAMETER, QUOTED, WORD, Dialect, Token

_GRAMMARS: Final = {
    Dialect.POSTGRESQL: Grammar.get_or_raise("postgres"),
    Dialect.MYSQL: Grammar.get_or_raise("mysql"),
    Dialect.SQLITE: Grammar.get_or_raise("sqlite"),
}
_QUERIES: Final = (exp.Query, exp.Values)
_CHANGES: Final = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
_FORBIDDEN: Final = (
    *_CHANGES,
    exp.Into,
    exp.Lock,
    exp.DDL,
    exp.Drop,
    exp.Alter,
    exp.Command,
    exp.Set,
    exp.Parameter,
    exp.SessionParameter,
    exp.PropertyEQ,
    exp.NextValueFor,
)


_LONGEST: Final = 1 << 16  # characters of shape: the parser takes up to 5 microseconds for each
# Many literals tell the grammar no more than a few: lists after IN, rows after VALUES.
_LISTS: Final = re.compile(r"(?:(?:1|'\$') , ){8,}")
_ROWS: Final = re.compile(r"(\( (?:(?:1|'\$'|null|default)(?: , )?)+ \))(?: , \1)+", re.IGNORECASE)


class Syntax(NamedTuple):
    """Hold what the syntax tree of one statement says."""

    query: bool  # nothing in the tree speaks against a read
    tables: frozenset[str]  # empty where nothing is known
    functions: frozenset[str]  # those called that the grammar does not know


NOTHING: Final = Syntax(query=False, tables=frozenset(), functions=frozenset())


def examine(text: str, tokens: Sequence[Token], dialect: Dialect) -> Syntax:
    """Return what the syntax tree says of one query or change; ``NOTHING`` if it cannot be read."""
    shape = _shape(text, tokens)
    if len(shape) > _LONGEST:
        return NOTHING
    try:
        trees = _GRAMMARS[dialect].parse(shape)
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError, LookupError):
        return NOTHING  # its parser fails in several ways on what it does not know
    if len(trees) != 1 or trees[0] is None:
        return NOTHING
    return _read_tree(trees[0], dialect)


def _shape(text: str, tokens: Sequence[Token]) -> str:
    """Return the statement with every literal and parameter replaced, which keeps values out of sqlglot."""
    pieces = []
    for index, token in enumerate(tokens):
        if token.kind == PARAMETER:
            pieces.append("1")
        elif token.value == "replace" and token.kind == WORD and _opens_change(tokens, index):
            pieces.append("INSERT")  # sqlglot gives up on REPLACE INTO, and says so in a log
        elif token.kind == LITERAL:
            digit = text[token.start] in ".0123456789" and text[token.start : token.start + 2].lower() != "0x"
            pieces.append("1" if digit else "'$'")
        else:
            pieces.append(text[token.start : token.end])
    return _ROWS.sub(r"\1", _LISTS.sub("1 , ", " ".join(pieces)))


def _opens_change(tokens: Sequence[Token], index: int) -> bool:
    """Tell whether REPLACE at ``index`` is the verb: not the function, nor part of INSERT OR REPLACE."""
    if index and tokens[index - 1].value == "or":
        return False
    return index + 1 < len(tokens) and tokens[index + 1].kind in (WORD, QUOTED)


def _read_tree(tree: exp.Expr, dialect: Dialect) -> Syntax:
    query = isinstance(tree, _QUERIES)
    tables: set[str] = set()
    functions: set[str] = set()
    for node in tree.walk():
        if isinstance(node, exp.Table):
            name = _table(node, dialect)
            if name:
                tables.add(name)
        elif isinstance(node, exp.Anonymous):
            functions.add(str(node.name).lower())
        elif isinstance(node, _FORBIDDEN):
            query = False
    return Syntax(query, frozenset(tables), frozenset(functions))


def _table(table: exp.Table, dialect: Dialect) -> str:
    """Return the name of a table as cached reads know it, "" for a function or common table expression."""
    if not isinstance(table.this, exp.Identifier):
        return ""
    parts = [part for part in table.parts if isinstance(part, exp.Identifier)]
    keep_case = dialect is Dialect.POSTGRESQL
    name = ".".join(
        part.name if part.args.get("quoted") and keep_case else part.name.lower() for part in parts
    )
    common = len(parts) == 1 and not _is_changed(table) and _is_common(table, name, keep_case)
    return "" if common else name


def _is_changed(table: exp.Table) -> bool:
    """Tell whether a change is made to ``table``: that is a real one, whatever a WITH calls by its name."""
    node: exp.Expr = table.parent if isinstance(table.parent, exp.Schema) else table
    return node.arg_key == "this" and isinstance(node.parent, _CHANGES)


def _is_common(table: exp.Table, name: str, keep_case: bool) -> bool:
    """Tell whether ``name`` means a WITH's expression here: one defined around it, or before it beside it.

    In ``WITH t AS (SELECT * FROM t) ...`` the inner ``t`` is the real table, unless the WITH is recursive.
    """
    inner: exp.Expr | None = table
    outer = table.parent
    while outer is not None:
        clause = outer.args.get("with_") or outer.args.get("with")
        if isinstance(clause, exp.With):
            for common in clause.expressions:
                if inner is clause and not clause.recursive and common is _branch(table, clause):
                    break  # this one and those after it are not visible in its own definition
                alias = common.args["alias"].this
                quoted = alias.args.get("quoted") and keep_case
                if name == (alias.name if quoted else alias.name.lower()):
                    return True
        inner, outer = outer, outer.parent
    return False


def _branch(node: exp.Expr, ancestor: exp.Expr) -> exp.Expr:
    """Return the child of ``ancestor`` that ``node`` stands in."""
    while node.parent is not ancestor and node.parent is not None:
        node = node.parent
    return node
