"""Cut a statement into tokens, and write from them the driver's text and the text that is safe to log.

One pass per text with one compiled expression per dialect. White space and comments become no tokens, and
no token holds what a literal says, so neither an error nor a traceback can show it.

A parameter is ``:name`` where an expression may begin. A colon right after a name, a digit, a quote, ``)``
or ``]`` is part of an array slice (``a[1:n]``, ``a[lo:hi]``), so write ``a[: n]`` for an open lower bound
that is a column. Colons in literals, comments and quoted names, ``::`` and ``:=`` are left alone. Strings
are read as the servers do by default: PostgreSQL with ``standard_conforming_strings`` on, MySQL without
``ANSI_QUOTES`` and ``NO_BACKSLASH_ESCAPES``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from router.errors import StatementError


class Dialect(StrEnum):
    """Name a dialect of SQL; MariaDB speaks MySQL's."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    SQLITE = "sqlite"


WORD: Final = "word"  # keyword or unquoted name, folded to lower case
QUOTED: Final = "quoted"  # quoted name, without the quotes
LITERAL: Final = "literal"  # number, string, bit string; the value is "?"
PARAMETER: Final = "parameter"  # :name, the value is the name
OPERATOR: Final = "operator"
PUNCTUATION: Final = "punctuation"
VARIABLE: Final = "variable"  # MySQL @user or @@system
EXECUTABLE: Final = "executable"  # MySQL /*! comment that the server runs */
ODD: Final = "odd"  # what the servers do not accept either, or what we do not decode


class Token(NamedTuple):
    """Hold one token: its kind, its value for comparisons, and where it stands in the text."""

    kind: str
    value: str
    start: int  # characters from 0
    end: int


_STRING = r"'[^']*+(?:''[^']*+)*+'"
_ESCAPED = r"'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'"
_NAME = r'"[^"]*+(?:""[^"]*+)*+"'
_BACKTICK = r"`[^`]*+(?:``[^`]*+)*+`"
_HIGH = r"\x80-\U0010ffff"  # every server takes these as letters of a name, odd spaces included
_DECIMAL = r"(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?"
_NUMBER = rf"(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|{_DECIMAL})"
_SPACE = r"(?P<space>[ \t\n\r\f\v]+)"
_PARAMETER = r"""(?<![\w:)\]"'`$]):(?P<parameter>[^\W\d]\w*)"""
_FOREIGN = r"%(?:s(?!\w)|\(\w+\)s(?!\w))"  # %s and %(name)s of other drivers

# A string that goes on after a line break keeps the rules of its first piece, so E'..' has to take the rest.
_POSTGRESQL = rf"""
    {_SPACE}
    | (?P<comment>--[^\n\r]*) | (?P<block>/\*)
    | (?P<cast>::) | {_PARAMETER}
    | (?P<literal>[eE]{_ESCAPED}(?:(?:[ \t\f]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f]|--[^\n\r]*[\n\r])*{_ESCAPED})*
        | (?:[nNbBxX]|[uU]&)?{_STRING} | {_NUMBER})
    | (?P<unicode>[uU]&{_NAME})
    | (?P<quoted>{_NAME})
    | (?P<open>[eE]?'|")
    | (?P<word>[A-Za-z_{_HIGH}][A-Za-z0-9_${_HIGH}]*)
    | (?P<dollar>\$(?:[A-Za-z_{_HIGH}][A-Za-z0-9_{_HIGH}]*)?\$)
    | (?P<foreign>{_FOREIGN}|\$[0-9]+)
    | (?P<punctuation>[()\[\],;.] | :(?!=))
    | (?P<operator>:= | (?:(?!--|/\*|{_FOREIGN})[-+*/<>=~!@\#%^&|`?])+)
    | (?P<odd>.)
"""
_MYSQL = rf"""
    {_SPACE}
    | (?P<executable>/\*M?!.*?\*/)
    | (?P<comment>\#[^\n]* | --(?=[\x00-\x20]|\Z)[^\n]* | /\*(?!M?!).*?\*/)
    | {_PARAMETER}
    | (?P<literal>[nNbBxX]?{_ESCAPED} | "[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+" | \\N | {_NUMBER}(?![\w$]))
    | (?P<quoted>{_BACKTICK})
    | (?P<variable>@@?(?:[\w.$]+|{_BACKTICK}|{_ESCAPED}|"[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+"))
    | (?P<word>[0-9A-Za-z_${_HIGH}]+)
    | (?P<foreign>{_FOREIGN}|\?)
    | (?P<punctuation>[()\[\],;.])
    | (?P<operator>:= | ->>? | <=> | <> | != | <= | >= | << | >> | \|\| | && | (?!/\*)[-+*/<>=~!@%^&|:])
    | (?P<open>['"`]|/\*)
    | (?P<odd>.)
"""
_SQLITE = rf"""
    {_SPACE}
    | (?P<comment>--[^\n]* | /\*.*?\*/)
    | {_PARAMETER}
    | (?P<literal>[xX]?{_STRING} | {_NUMBER})
    | (?P<quoted>{_NAME} | {_BACKTICK} | \[[^\]]*\])
    | (?P<word>[A-Za-z_{_HIGH}][A-Za-z0-9_${_HIGH}]*)
    | (?P<foreign>{_FOREIGN} | \?[0-9]* | [$@\#]\w+)
    | (?P<punctuation>[(),;.])
    | (?P<operator>->>? | \|\| | <= | <> | >= | == | != | << | >> | (?!/\*)[-+*/<>=~%&|])
    | (?P<open>['"`\[]|/\*)
    | (?P<odd>.)
"""
_PATTERNS = {
    dialect: re.compile(pattern, re.VERBOSE | re.DOTALL)
    for dialect, pattern in (
        (Dialect.POSTGRESQL, _POSTGRESQL),
        (Dialect.MYSQL, _MYSQL),
        (Dialect.SQLITE, _SQLITE),
    )
}
_COMMENT_ENDS = re.compile(r"/\*|\*/")
_SPECIAL = frozenset("~!@#%^&|`?")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def lex(text: str, dialect: Dialect) -> list[Token]:
    """Return the tokens of ``text``.

    Raises :class:`StatementError` with the position, never the content, for NUL, text that is not valid
    Unicode, a literal or comment that is not closed, and another driver's placeholders.
    """
    check_characters(text)
    match = _PATTERNS[dialect].match
    tokens: list[Token] = []
    position, length = 0, len(text)
    while position < length:
        found = match(text, position)
        assert found is not None  # noqa: S101 - the last alternative takes any character
        group, end = found.lastgroup, found.end()
        if group == "word":
            word = found[0]
            tokens.append(Token(WORD, word.lower() if word.isascii() else fold(word), position, end))
        elif group == "literal":
            tokens.append(Token(LITERAL, "?", position, end))
        elif group == "punctuation":
            tokens.append(Token(PUNCTUATION, found[0], position, end))
        elif group != "space" and group != "comment":
            token = _uncommon(text, dialect, found)
            end = token.end
            if token.kind:
                tokens.append(token)
        position = end
    return tokens


def fold(name: str) -> str:
    """Return ``name`` with A to Z in lower case, as servers fold names.

    ``str.lower`` also folds letters such as the Kelvin sign, so that a user's function could pass for a
    built-in one.
    """
    return name.translate(_ASCII_LOWER)


def check_characters(text: str) -> None:
    """Raise StatementError for a text that no server can be sent: with NUL, or not encodable."""
    nul = text.find("\0")
    if nul >= 0:
        raise StatementError(f"statement has a NUL at character {nul + 1}. No server takes it; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            position = error.start + 1
        else:
            return
        raise StatementError(
            f"statement has half a surrogate pair at character {position}. Decode the text properly first"
        )


def _uncommon(text: str, dialect: Dialect, found: re.Match[str]) -> Token:
    """Return the token of a rarer match, with an empty kind for a comment, or raise what is wrong with it."""
    group, start, end, value = found.lastgroup, found.start(), found.end(), found[0]
    if group == "parameter":
        return Token(PARAMETER, found["parameter"], start, end)
    if group == "operator":
        return _operator(value, start, dialect)
    if group == "cast":
        return Token(OPERATOR, "::", start, end)
    if group == "quoted":
        closing = value[-1]
        return Token(QUOTED, value[1:-1].replace(closing * 2, closing), start, end)
    if group == "variable":
        return Token(VARIABLE, value[:2] if value.startswith("@@") else "@", start, end)
    if group == "executable":
        return Token(EXECUTABLE, "?", start, end)
    if group == "block":
        return Token("", "", start, _end_of_comment(text, start))
    if group == "dollar":
        closed = text.find(value, end)
        if closed < 0:
            _refuse_open(text, start, "dollar quote")
        return Token(LITERAL, "?", start, closed + len(value))
    if group == "foreign":
        raise StatementError(
            f"statement has a driver's placeholder at character {start + 1}. Write parameters as :name, in "
            "every dialect; for the operator %, put a space after it"
        )
    if group == "open":
        _refuse_open(text, start, "comment" if value == "/*" else "string or quoted name")
    return Token(ODD, "?", start, end)  # "odd", and U&"..." names, which we do not decode


def _operator(value: str, start: int, dialect: Dialect) -> Token:
    """Return an operator, without the signs that PostgreSQL reads as the beginning of the next one."""
    if dialect is Dialect.POSTGRESQL and len(value) > 1 and value[-1] in "+-" and _SPECIAL.isdisjoint(value):
        value = value.rstrip("+-") or value[0]
    return Token(OPERATOR, value, start, start + len(value))


def _end_of_comment(text: str, start: int) -> int:
    """Return where PostgreSQL's block comment at ``start`` ends; they nest."""
    depth = 0
    for found in _COMMENT_ENDS.finditer(text, start):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            break
    else:
        _refuse_open(text, start, "comment")
    return found.end()


def _refuse_open(text: str, start: int, what: str) -> NoReturn:
    raise StatementError(
        f"statement of {len(text)} characters has a {what} that begins at character {start + 1} and is not "
        "closed. Close it"
    )


def compile_parameters(text: str, tokens: Iterable[Token], dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    """Return the driver's text and the parameter name of each of its positions.

    asyncpg takes ``$1`` and sqlite3 ``?1``, where a repeated name keeps its position; aiomysql takes ``%s``,
    one position each time, and formats the whole text with ``%`` if there are any, so that every other
    percent sign has to be doubled then, also in literals.
    """
    parameters = [token for token in tokens if token.kind == PARAMETER]
    if not parameters:
        return text, ()
    pieces: list[str] = []
    positions: dict[str, int] = {}
    end = 0
    for token in parameters:
        number = positions.setdefault(token.value, len(positions) + 1)
        pieces.append(text[end : token.start])
        if dialect is Dialect.MYSQL:
            pieces[-1] = pieces[-1].replace("%", "%%")
            pieces.append("%s")
        else:
            pieces.append(f"${number}" if dialect is Dialect.POSTGRESQL else f"?{number}")
        end = token.end
    rest = text[end:]
    pieces.append(rest.replace("%", "%%") if dialect is Dialect.MYSQL else rest)
    if dialect is Dialect.MYSQL:
        return "".join(pieces), tuple(token.value for token in parameters)
    return "".join(pieces), tuple(positions)


_TIGHT_BEFORE = frozenset((",", ")", "]", ".", ";", "::"))
_TIGHT_AFTER = frozenset(("(", "[", ".", "::"))
_LIST = re.compile(r"\bin \((?:[-+] )?\?(?:, (?:[-+] )?\?)*\)")
_ROWS = re.compile(r"(\((?:(?:[-+] )?\?|default|null)(?:, (?:(?:[-+] )?\?|default|null))*\))(?:, \1)+")


def normalize(tokens: Iterable[Token], words: frozenset[str]) -> str:
    """Return the statement without what differs between its uses: literals, parameters, comments, spaces.

    ``words`` are the dialect's syntax words; a parenthesis after another name gets no space. Lists after
    IN become ``in (...)``, and equal rows of VALUES become one row and ``...``, so that the text does not
    depend on their number.
    """
    pieces: list[str] = []
    before = ""
    spaced_call = True
    for token in tokens:
        value = token.value
        if token.kind == QUOTED:
            value = '"' + value.replace('"', '""') + '"'
        elif token.kind == PARAMETER:
            value = "?"
        tight = value in _TIGHT_BEFORE or before in _TIGHT_AFTER or (value == "(" and not spaced_call)
        pieces.append(value if tight or not pieces else f" {value}")
        before = value
        spaced_call = not (token.kind == QUOTED or (token.kind == WORD and token.value not in words))
    return _ROWS.sub(r"\1, ...", _LIST.sub("in (...)", "".join(pieces)))
