"""The words for why a read is not answered from memory, or its result not kept; each is a bounded label."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """Say why a result must not be cached."""

    # the text says it
    NOT_A_READ = "not_a_read"  # not a proven read: writes, locks, session state, what was not understood
    USER_FUNCTION = "user_function"  # calls what is not the server's own: it may read tables out of sight
    NOT_REPEATABLE = "not_repeatable"  # asks the clock, chance, the login, the session or the node
    TIME_LITERAL = "time_literal"  # a literal that PostgreSQL may read as a moment: 'now', 'today' ...
    SAMPLE = "sample"  # TABLESAMPLE answers by chance
    UNCLEAR_TABLES = "unclear_tables"  # its tables cannot be known from the text
    NO_TABLES = "no_tables"  # costs the server next to nothing
    # the database's catalog says it
    UNKNOWN_TABLE = "unknown_table"  # no such name is visible, or not all that it shows
    SYSTEM_TABLE = "system_table"  # a catalog: it changes without a statement that names it
    TEMPORARY_TABLE = "temporary_table"  # each session has its own
    FOREIGN_TABLE = "foreign_table"  # its rows are elsewhere, or made up: others change them
    NO_TRANSACTIONS = "no_transactions"  # a write that fails, or is rolled back, leaves rows in it
    ROW_SECURITY = "row_security"  # what is seen depends on who asks
    SEQUENCE = "sequence"  # changes outside of transactions
    CASCADE_FROM_OUTSIDE = "cascade_from_outside"  # a foreign key lets another database change it


class Bypass(StrEnum):
    """Say why a call is not answered from memory, whatever it reads."""

    PRIMARY = "primary"  # the caller wants the primary
    STRONG = "strong"  # nothing but the primary's present state will do
    BOUND = "bound"  # bounded in bytes of the primary's log, which are not known of an answer
    PARAMETERS = "parameters"  # a parameter of a type of which no exact key can be made


class Unstored(StrEnum):
    """Say why an answer that may be cached was not kept."""

    VALUE = "value"  # too large, or of a type that cannot be kept exactly
    AGE = "age"  # it is not known how new it is, or it may be older than what is known of writes
    WRITTEN = "written"  # one of its tables was written meanwhile
    SCHEMA = "schema"  # the schema has changed meanwhile, or may have
    OLDER = "older"  # another read has kept a newer answer meanwhile
    NOT_ADMITTED = "not_admitted"  # there is no room: others are asked for more often
