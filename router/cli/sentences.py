"""A sentence for each reason: what a person wants to read next to the word."""

from __future__ import annotations

from router.reasons import Reason

SENTENCES: dict[Reason, str] = {
    Reason.READ: "It is proven to change nothing, so any replica may answer.",
    Reason.DECLARED_READ: "The caller vouches that it changes nothing (readonly).",
    Reason.READ_TRANSACTION: "The transaction is declared read-only and runs on one replica.",
    Reason.WRITE: "It changes rows.",
    Reason.DDL: "It changes the schema.",
    Reason.LOCKING: "It locks rows (FOR UPDATE or kin), which only the primary can do.",
    Reason.WRITING_CTE: "A part of its WITH changes rows.",
    Reason.SELECT_INTO: "It writes its result into a table, a variable or a file.",
    Reason.VOLATILE_FUNCTION: "It calls a function that may change data.",
    Reason.UNKNOWN_FUNCTION: "It calls a function that is not known to change nothing; "
    "on PostgreSQL the running router asks the server once.",
    Reason.SESSION_STATE: "It reads or changes the state of its connection.",
    Reason.TRANSACTION_CONTROL: "It begins or ends a transaction.",
    Reason.MULTIPLE_STATEMENTS: "It is more than one statement.",
    Reason.NOT_A_QUERY: "It is a command, not a query.",
    Reason.UNPARSED: "It is not understood, so nothing is proven about it.",
    Reason.RAW: "It is sent as it is, without a look at it.",
    Reason.DECLARED_PRIMARY: "The caller asks for the primary.",
    Reason.STRONG: "The consistency level is strong: reads go to the primary.",
    Reason.OWN_WRITE: "The session has written, and its reads must see that.",
    Reason.TRANSACTION: "It is part of a transaction that may write.",
    Reason.NO_REPLICA: "It may go to a replica, but the cluster has none that is usable.",
    Reason.LATE_REPLICA: "There is no primary, every replica is late, and the caller takes old rows.",
    Reason.REPLICAS_LATE: "It may go to a replica, but those that answer are too far behind.",
    Reason.REPLICA_FAILED: "It may go to a replica, but every one has failed.",
    Reason.REFUSED_BY_REPLICA: "A replica has refused it as a write.",
}
"""Why a request went where it went, by reason; complete for every Reason."""
