"""A sentence for each reason: what a person wants to read next to the word."""

from __future__ import annotations

from router.reasons import Reason

SENTENCES: dict[Reason, str] = {
    Reason.READ: "It is proven to change nothing, so any replica may answer.",
    Reason.DECLARED_READ: "The caller vouches that it changes nothing (readonly).",
    Reason.READ_TRANSACTION: "The transaction is declared read-only and runs on one replica.",
    Reason.CACHED: "It was answered from memory; no server was asked.",
    Reason.CAUGHT_UP: "These replicas are known to have all that the session has seen.",
    Reason.CHECKED: "This replica is asked first whether it has what the read must see; else the primary.",
    Reason.WAITED: "This replica had what the read must see after a short wait.",
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
    Reason.TRANSACTION: "It is part of a transaction that may write.",
    Reason.OWN_WRITE: "The session has written, and no replica is known to have that yet.",
    Reason.SEEN_ON_PRIMARY: "The session has read on the primary what no replica is known to have yet.",
    Reason.READ_AHEAD: "The session has read on a replica that was ahead of the others.",
    Reason.TOKEN_AHEAD: "No replica is known to have what the token stands for.",
    Reason.TOKEN_IGNORED: "A token could not be used; whatever it stood for, the primary has it.",
    Reason.OLD_REIGN: "What the read must see is from before another server became the primary.",
    Reason.WAIT_TIMED_OUT: "A replica was asked and did not have what the read must see in time.",
    Reason.TOO_STALE: "No replica is known to be as near to the primary as the read demands (bounded).",
    Reason.NO_REPLICA: "It may go to a replica, but the cluster has none that is usable.",
    Reason.LATE_REPLICA: "There is no primary, every replica is late, and the caller takes old rows.",
    Reason.REPLICAS_LATE: "It may go to a replica, but those that answer are too far behind.",
    Reason.REPLICA_FAILED: "It may go to a replica, but every one has failed.",
    Reason.REFUSED_BY_REPLICA: "A replica has refused it as a write.",
}
"""Why a request went where it went, by reason; complete for every Reason."""
