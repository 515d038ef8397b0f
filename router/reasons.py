"""The words for why a request went to the node it went to; each is a bounded metric label."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Say why a route leads where it leads."""

    # to a replica
    READ = "read"  # a proven read
    DECLARED_READ = "declared_read"  # the caller said readonly=True
    READ_TRANSACTION = "read_transaction"  # a transaction declared read-only
    LATE_REPLICA = "late_replica"  # an eventual read while there is no primary and every replica is late
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
    OWN_WRITE = "own_write"  # the session has written; its reads must see that
    TRANSACTION = "transaction"  # inside a transaction that may write
    # to the primary, because of the cluster
    NO_REPLICA = "no_replica"  # none configured, or none usable now
    REPLICAS_LATE = "replicas_late"  # none usable now, since those that answer are too far behind
    REPLICA_FAILED = "replica_failed"  # every replica was tried and failed
    REFUSED_BY_REPLICA = "refused_by_replica"  # a replica answered that it is a write
