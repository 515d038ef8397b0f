"""Say what a statement may leave behind on its connection, so that a pool resets only when it must.

Clean is what is proven clean: queries and changes that call nothing but the server's own functions. What
triggers, views and default expressions do is out of sight here.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.functions import Functions
from router.lexer import EXECUTABLE, LITERAL, ODD, QUOTED, VARIABLE, WORD, Dialect, Token
from router.verbs import QUERY, Dirt, Kind, Verb

_ROLES = frozenset(("role", "session_authorization"))
_TEMPORARY = frozenset(("temp", "temporary"))
# Connections and code that stay until the session ends.
_STAYING = frozenset(("dblink_connect", "dblink_connect_u", "load_extension"))


def left_behind(
    text: str,
    tokens: Sequence[Token],
    dialect: Dialect,
    verb: Verb,
    functions: Functions,
    called: frozenset[str],
    unproven: frozenset[str],
) -> Dirt:
    """Return what one statement may leave behind; ``called`` and ``unproven`` name its functions."""
    if _spoils(text, tokens, dialect, verb, called):
        return Dirt.DISCARD
    if verb is not QUERY and verb.kind is not Kind.WRITE:
        return verb.dirt
    lasting = any(name not in functions.passing for name in called if functions.has_effects(name))
    unknown = any(not functions.has_effects(name) for name in unproven)
    if lasting or unknown or any(_unclear(token, dialect, verb) for token in tokens):
        return max(Dirt.RESET, verb.dirt)
    return verb.dirt


def _unclear(token: Token, dialect: Dialect, verb: Verb) -> bool:
    """Tell whether the token may set a variable, make a temporary table, or do we know not what."""
    if token.kind == WORD:
        return token.value == "into" and verb is QUERY
    if token.kind == VARIABLE:
        return token.value == "@"  # a user variable; system variables are only looked at outside SET
    return token.kind == ODD or (token.value == ":=" and dialect is Dialect.MYSQL)


def _spoils(text: str, tokens: Sequence[Token], dialect: Dialect, verb: Verb, called: frozenset[str]) -> bool:
    """Tell whether no reset of the session is sure to cure what the statement does."""
    if not called.isdisjoint(_STAYING):
        return True
    if "set_config" in called and _sets_role(text, tokens):
        return True
    for token in tokens:
        if token.kind == EXECUTABLE:
            return True
        if token.kind not in (WORD, QUOTED):
            continue
        value = token.value.lower()
        if dialect is Dialect.SQLITE:
            if value in _TEMPORARY and verb.kind is Kind.DDL:  # there is no reset that drops them
                return True
        elif verb.kind is Kind.SESSION:
            if value in _ROLES or value == "authorization":  # RESET ALL leaves the role as it is
                return True
        elif value == "pg_settings" and verb.kind is Kind.WRITE:  # updating this view is SET
            return True
    return False


def _sets_role(text: str, tokens: Sequence[Token]) -> bool:
    """Tell whether set_config may set the role: its first argument says so, or is no plain string."""
    for index, token in enumerate(tokens[:-2]):
        if token.value.lower() == "set_config" and token.kind in (WORD, QUOTED):
            setting = tokens[index + 2]
            name = text[setting.start : setting.end].lower()
            if setting.kind != LITERAL or name[0] != "'" or name.strip("'") in _ROLES:
                return True
    return False
