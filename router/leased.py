"""Run statements on a lease that is already held, such as a transaction's: nothing is routed or repeated."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf
from typing import Any

from router import proving
from router.errors import RouterError
from router.execution import Executor
from router.pools.lease import Lease
from router.requests import Request
from router.rows import Row


async def run(executor: Executor, lease: Lease, request: Request) -> Any:
    """Run a request and return what its verb returns; emit its event."""
    executor.check_loop()
    request.started = executor.clock()
    request.lookup = request.started - request.asked
    request.attempts = 1
    if executor.dispatcher.announces:
        executor.teller.started(request)
    failure: RouterError
    try:
        value = await executor.send(lease, request, request.started)
    except RouterError as error:
        failure = request.describe(error)
        if not lease.readonly:  # else a write that it refuses says nothing about the server
            request.target.backend.health.failed(lease.pool.endpoint.node, error)
    except BaseException as exc:
        executor.teller.failed(request, exc)
        raise
    else:
        request.execute = executor.clock() - request.started
        proving.forget(request)
        if request.note is not None:
            request.note(request.statement)
        executor.teller.finished(request, value)
        return value
    executor.teller.failed(request, failure)
    raise failure


async def stream(executor: Executor, lease: Lease, request: Request, batch: int) -> AsyncGenerator[Row, None]:
    """Yield the rows of a request from a cursor; emit its event at the end."""
    executor.check_loop()
    request.started = executor.clock()
    request.lookup = request.started - request.asked
    request.attempts = 1
    if executor.dispatcher.announces:
        executor.teller.started(request)
    statement, connection = request.statement, lease.connection
    connection.dirt = max(connection.dirt, statement.dirt)
    limit = request.deadline - request.started
    failure: RouterError | None = None
    count, first = 0, inf
    try:
        async with aclosing(lease.stream(statement.sql, request.args, batch, limit)) as batches:
            async for rows in batches:
                if not count:
                    first = executor.clock()
                count += len(rows)
                for row in rows:
                    yield row
    except RouterError as error:
        failure = request.describe(error)
    now = executor.clock()
    request.execute = min(first, now) - request.started
    request.fetch = max(now - first, 0.0)
    if failure is not None:
        executor.teller.failed(request, failure)
        raise failure
    if request.note is not None:
        request.note(request.statement)
    executor.teller.finished(request, count)
