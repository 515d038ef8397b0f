"""Turn what a caller passes (text or a Core construct, parameters) into a request."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from router.backend import Target
from router.errors import RouterError, StatementError
from router.execution import Affinity, Executor, Request
from router.lexer import check_characters
from router.reasons import Reason
from router.statements import Dialect, Dirt, Kind, Statement


def request_for(
    executor: Executor, target: Target, affinity: Affinity, verb: str, sql: Any, params: Any
) -> Request:
    """Return a request; the caller sets deadline, intent and the like.

    Raises:
        StatementError: the text cannot be run by this verb.
        ParameterError: parameters are missing or too many.
    """
    try:
        if isinstance(sql, str):
            return _from_text(executor, target, affinity, verb, sql, params)
        return _from_construct(executor, target, affinity, verb, sql, params)
    except RouterError as error:
        placement = target.placement
        raise error.at(tenant=placement.tenant, schema=placement.schema, cluster=placement.cluster.name)


def _from_text(
    executor: Executor, target: Target, affinity: Affinity, verb: str, sql: str, params: Any
) -> Request:
    args: Any
    if verb == "execute_raw":
        statement, args = raw_statement(sql, target.backend.driver.dialect), ()
    else:
        statement = target.backend.statements.of(sql)
        if statement.verdict in _REFUSED:
            raise StatementError(_REFUSED[statement.verdict]).at(fingerprint=statement.fingerprint)
        args = [statement.bind(each) for each in params] if verb == "execute_many" else statement.bind(params)
    return Request(target, affinity, verb, statement, args, executor.clock())


_REFUSED = {
    Reason.MULTIPLE_STATEMENTS: "the text holds more than one statement. Run them one by one, or use execute_raw()",
    Reason.TRANSACTION_CONTROL: (
        "a transaction cannot be controlled by text: the next statement may run on another connection. "
        "Use session.transaction(), savepoint(), or begin(), commit() and rollback()"
    ),
}


def raw_statement(text: str, dialect: Dialect) -> Statement:
    """Return the stand-in for a text that is not looked at: it may do anything."""
    check_characters(text)
    if not text.strip():
        raise StatementError("statement is empty. Pass the text to run")
    return Statement(
        text=text,
        dialect=dialect,
        kind=Kind.OTHER,
        verdict=Reason.RAW,
        functions=frozenset(),
        unproven=frozenset(),
        tables=frozenset(),
        sql=text,
        names=(),
        parameters=frozenset(),
        fingerprint=hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest(),
        normalized="(raw)",
        returns_rows=False,
        dirt=Dirt.DISCARD,
    )


def _from_construct(
    executor: Executor, target: Target, affinity: Affinity, verb: str, construct: Any, params: Any
) -> Request:
    if not hasattr(construct, "compile"):
        raise StatementError(f"a statement is text or a SQLAlchemy construct, not {type(construct).__name__}")
    bridge = target.backend.bridge
    statement = target.backend.statements.of(bridge.text_of(construct))
    request = Request(target, affinity, verb, statement, (), executor.clock())
    request.work = partial(bridge.run, construct, params, verb)
    return request
