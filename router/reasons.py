"""The words for why a request went to the node it went to; each is a bounded metric label."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Say why a route leads where it leads."""

    # to a replica
    READ = "read"  # a proven read
    DECLARED_READ = "declared_read"  # the caller said readonly=True
    READ_TRANSACTION = "read_transaction"  # a transaction declared read-only
    CAUGHT_UP = "caught_up"  # a replica that is known to have all that the session has seen
    CHECKED = "checked"  # a replica that was asked first, and had it
    WAITED = "waited"  # a replica that had it after a short wait
    LATE_REPLICA = "late_replica"  # an eventual read while there is no primary and every replica is late
    # to no node
    CACHED = "cached"  # answered from memory
    # to the primary, because of the statement
    WRITE = "write"  # INSERT, UPDATE, DELETE, MERGE, REPLACE, COPY ...
    DDL = "ddl"  # changes the schema
    LOCKING = "locking"  # FOR UPDATE and kin, at any depth
    WRITING_CTE = "writing_cte"  # a WITH that changes data
    SELECT_INTO = "select_into"  # a SELECT that writes its result somewhere
    VOLATILE_FUNCTION = "volatile_function"  # calls a function known to be volatile
    UNKNOWN_FUNCTION = "unknown_function"  # calls a function not known to be free of side effects
    SESSION_STATE = "session_state"  # reads or changes the state of the connection
    TRANSACTION_CONTROL = "transaction_control"  # BEGIN, COMMIT, SAVEPOINT ... as text
    MULTIPLE_STATEMENTS = "multiple_statements"  # more than one statement in a text
    NOT_A_QUERY = "not_a_query"  # any other command
    UNPARSED = "unparsed"  # the text could not be understood
    RAW = "raw"  # execute_raw: the text is not looked at
    # to the primary, because of the request
    DECLARED_PRIMARY = "declared_primary"  # the caller said primary=True
    STRONG = "strong"  # consistency: strong
    TRANSACTION = "transaction"  # inside a transaction that may write
    # to the primary, because no replica is known to have what the read must see
    OWN_WRITE = "own_write"  # the session has written
    SEEN_ON_PRIMARY = "seen_on_primary"  # the session has read on the primary
    READ_AHEAD = "read_ahead"  # the session has read on a replica that was ahead of the others
    TOKEN_AHEAD = "token_ahead"  # a token stands for more than any replica has  # noqa: S105
    TOKEN_IGNORED = "token_ignored"  # a token could not be used; what it stood for is on the primary  # noqa: S105
    OLD_REIGN = "old_reign"  # a token or a write is from before another server became the primary
    WAIT_TIMED_OUT = "wait_timed_out"  # a replica was asked and did not get there in time
    TOO_STALE = "too_stale"  # every replica is further behind than the read allows (bounded)
    # to the primary, because of the cluster
    NO_REPLICA = "no_replica"  # none configured, or none usable now
    REPLICAS_LATE = "replicas_late"  # none usable now, since those that answer are too far behind
    REPLICA_FAILED = "replica_failed"  # every replica was tried and failed
    REFUSED_BY_REPLICA = "refused_by_replica"  # a replica answered that it is a write
