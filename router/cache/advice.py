"""What each reason that keeps a read from the cache means, and what to do about it."""

from __future__ import annotations

from typing import Final, NamedTuple

from router.cache.refusal import Refusal, Unstored
from router.cache.serving import Refusal as Unserved
from router.cache.worth import ABSENT


class Advice(NamedTuple):
    """Hold a fact and the next step, each as a sentence without its full stop."""

    fact: str
    remedy: str


_LEAVE: Final = "Leave cache= out of the call, and it out of the rules"
_DECLARE: Final = "Name its tables under cache.dependencies, or l" + _LEAVE[1:]

ADVICE: Final[dict[str, Advice]] = {
    # there was nothing to give
    ABSENT: Advice(
        "the same reads are seldom made twice while an answer is kept",
        "Cache what is read more often (cache.auto finds it), keep it longer, or raise cache.size",
    ),
    # an answer was there and did not do
    Unserved.OLD: Advice("answers are too old when they are asked for again", "Raise cache= or the ttl"),
    Unserved.WRITTEN: Advice(
        "their tables are written before an answer is asked for again",
        "Cache reads of tables that change less; see dependencies if a trigger is why they seem to change",
    ),
    Unserved.FAILOVER: Advice("another server has become the primary", "Nothing: it passes by itself"),
    Unserved.OWN_WRITE: Advice(
        "sessions read what they have just written", "Leave cache= out where a session has written before"
    ),
    Unserved.TOKEN: Advice(
        "sessions bring tokens that are newer than the answers",
        "Hand tokens on only where a write has to be seen",
    ),
    Unserved.SHOWN: Advice(
        "sessions were shown newer rows of the same tables",
        "Set cache.broadcast, so that writes of other processes are known; or read with consistency=eventual",
    ),
    Unserved.BOUND: Advice("answers are older than freshness.max_time", "Raise it, or cache for less"),
    Unserved.UNKNOWN: Advice(
        "the database could not be asked which tables depend on each other", "See the router's errors"
    ),
    # it could not be kept
    Unstored.VALUE: Advice(
        "answers are larger than cache.largest, or hold a type that cannot be kept exactly",
        "Raise cache.largest, or select fewer rows and columns",
    ),
    Unstored.AGE: Advice(
        "it is not known how new the answers are: replicas lag, or were not asked lately",
        "See the lag of replicas",
    ),
    Unstored.SCHEMA: Advice("the schema changes while answers are read", "Nothing: it passes by itself"),
    Unstored.OLDER: Advice("slower reads of the same come in after faster ones", "Nothing: the newer stays"),
    Unstored.NOT_ADMITTED: Advice(
        "others are asked for more often, and there is no room for both", "Raise cache.size or cache.entries"
    ),
    # it is never kept
    Refusal.NOT_A_READ: Advice("it is not proven to be a read", _LEAVE),
    Refusal.USER_FUNCTION: Advice("it calls a function that may read tables out of sight", _LEAVE),
    Refusal.NOT_REPEATABLE: Advice(
        "it asks the clock, chance, the login or the session",
        "Give the moment as a parameter, rounded; else l" + _LEAVE[1:],
    ),
    Refusal.TIME_LITERAL: Advice(
        "it has a literal that may mean a moment, such as 'now' or 'today'", "Give the moment as a parameter"
    ),
    Refusal.SAMPLE: Advice("TABLESAMPLE answers by chance", _LEAVE),
    Refusal.UNCLEAR_TABLES: Advice("its tables cannot be known from the text", _DECLARE),
    Refusal.NO_TABLES: Advice("it reads no table, which costs the server next to nothing", _LEAVE),
    Refusal.UNKNOWN_TABLE: Advice(
        "the database's catalog does not show one of its relations, or not all that it shows", _DECLARE
    ),
    Refusal.SYSTEM_TABLE: Advice("it reads a catalog of the server, which changes by itself", _LEAVE),
    Refusal.TEMPORARY_TABLE: Advice("it reads a temporary table, of which each session has its own", _LEAVE),
    Refusal.FOREIGN_TABLE: Advice("it reads a foreign table, which others change", _LEAVE),
    Refusal.NO_TRANSACTIONS: Advice(
        "it reads a table whose engine has no transactions: a write that fails leaves rows in it", _LEAVE
    ),
    Refusal.ROW_SECURITY: Advice("row-level security lets each login see other rows", _LEAVE),
    Refusal.SEQUENCE: Advice("it reads a sequence, which changes outside of transactions", _LEAVE),
    Refusal.CASCADE_FROM_OUTSIDE: Advice(
        "a foreign key lets a table of another database change one of its tables", _LEAVE
    ),
    # it was never looked up
    "parameters": Advice(
        "a parameter has a type of which no exact key can be made",
        "Convert it to a plain type before the call",
    ),
    "primary": Advice("the caller wants the primary", "Leave primary=True out where an answer may be cached"),
    "strong": Advice("consistency=strong asks the primary each time", "Choose session where that will do"),
    "bound": Advice(
        "freshness.max_bytes bounds the read in bytes, which are not known of an answer",
        "Bound it in time instead: freshness.max_time",
    ),
}  # fmt: skip
"""By the word that metrics and events have for a reason; complete."""
