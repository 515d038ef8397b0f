"""The straight line of a request: what is told, what is tried again, and what never is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from router import Router, errors
from router.errors import (
    CommitOutcomeUnknown,
    ConnectError,
    ConnectionLost,
    PoolTimeout,
    ReadOnlyViolation,
    RouterError,
    Sent,
    StatementTimeout,
)
from router.events import (
    CommitUnknown,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    RequestFailed,
    RequestFinished,
    RetryScheduled,
    SlowRequest,
    TransactionCommitted,
    TransactionRolledBack,
)
from router.statements import Dialect, parse
from tests.doubles import Server, opened
from tests.engines import Recorder
from tests.lateness import taking

READ = "SELECT a FROM t"
FINGERPRINT = parse(READ, Dialect.POSTGRESQL).fingerprint
WRITE = "UPDATE t SET a = 1"
LOST = OSError("the wire was cut")


def names(heard: Recorder) -> list[str]:
    return [type(event).__name__ for event in heard.events]


# --- what is told ----------------------------------------------------------------------------------------


async def test_a_request_is_told_once_and_in_order(server: Server) -> None:
    """Opening comes before the request's end, and each request has one event, on success and on failure."""
    async with opened() as router:
        heard = Recorder(router)
        await router.fetch_all(READ, tenant="acme")
        assert names(heard) == ["RequestStarted", "PoolOpened", "ConnectionOpened", "RequestFinished"]
        heard.clear()
        server.fail("fetch_all", errors.InvalidStatement("no such column", code="42703"))
        with pytest.raises(errors.InvalidStatement):
            await router.fetch_all(READ, tenant="acme", primary=True)
        assert names(heard) == ["RequestStarted", "PoolOpened", "ConnectionOpened", "RequestFailed"]
        failed = heard.of(RequestFailed)[0]
        assert (failed.error, failed.code, failed.message) == ("InvalidStatement", "42703", "no such column")


async def test_an_event_says_who_what_where_and_why(server: Server) -> None:
    """Tenant, schema, text, node, role, reason, context id, parameter names and rows are all there."""
    async with opened() as router:
        heard = Recorder(router)
        async with router.session("acme", context_id="req-7") as session:
            await session.fetch_all("SELECT a FROM t WHERE id = :id", {"id": 1})
            await session.execute("UPDATE t SET a = :a", {"a": 1})
        read, write = heard.of(RequestFinished)
        assert (read.tenant, read.schema, read.kind, read.rows) == ("acme", None, "read", 1)
        assert (read.role, read.reason, read.parameters) == ("replica", "read", ("id",))
        assert read.sql == "SELECT a FROM t WHERE id = :id"
        assert read.node is not None and read.node.name in ("r1", "r2")
        assert (write.role, write.reason, write.kind, write.rows) == ("primary", "write", "write", 1)
        assert read.context_id == write.context_id == "req-7"
        assert abs(read.at - time.time()) < 5


@pytest.mark.timed
async def test_the_times_of_a_request_add_up(server: Server) -> None:
    """The steps are parts of total, and each step's delay is found where it happened."""
    async with opened() as router:
        heard = Recorder(router)
        for verb in ("connect", "bind", "fetch_all"):
            server.delay(verb, 0.05)
        await router.fetch_all(READ, tenant="acme")
        event = heard.of(RequestFinished)[0]
        for step in (event.waits.connect, event.execute):
            assert 0.045 < step < 0.1
        assert event.waits.queue == event.waits.catch_up == event.fetch == 0.0
        steps = event.lookup + event.acquire + event.execute
        assert steps <= event.total < steps + 0.02


async def test_a_slow_request_is_told_by_the_tenants_threshold(server: Server) -> None:
    """SlowRequest comes for what took at least slow_query, with the request inside, also if it failed."""
    async with opened(defaults={"slow_query": "40ms"}) as router:
        heard = Recorder(router)
        await router.fetch_all(READ, tenant="acme")
        assert not heard.of(SlowRequest)
        gate = server.block("fetch_all")
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await router.fetch_all(READ, tenant="acme")
        slow = heard.of(SlowRequest)[0]
        assert (slow.threshold, slow.request) == (0.04, heard.last)
        server.block("fetch_all")
        with pytest.raises(StatementTimeout):
            await router.fetch_all(READ, tenant="acme", timeout=0.06)
        assert heard.of(SlowRequest)[1].request is heard.last


async def test_a_slow_request_is_told_by_the_threshold_of_its_statement(server: Server) -> None:
    """A rule for a table or a fingerprint wins over slow_query, in both directions; the first that fits."""
    patient = {"tables": ["t"], "threshold": "1h"}
    for rules, thresholds in (
        ([patient], []),
        ([{"tables": ["other"], "threshold": "1h"}], [0.0]),
        ([{"tables": ["other", "t"], "threshold": "1ms"}, patient], [0.001]),
        ([{"fingerprints": ["0" * 16, FINGERPRINT], "threshold": "2ms"}], [0.002]),
    ):
        async with opened(defaults={"slow_query": "0s", "slow_statements": rules}) as router:
            heard = Recorder(router)
            server.delay("fetch_all", 0.005)
            await router.fetch_all(READ, tenant="acme")
            assert [event.threshold for event in heard.of(SlowRequest)] == thresholds


async def test_a_listener_that_raises_fails_no_query(server: Server) -> None:
    """Queries, transactions and connects go on whatever a listener does."""
    async with opened() as router:

        def broken(event: Any) -> None:
            raise ZeroDivisionError

        for kind in (RequestFinished, ConnectionOpened, TransactionCommitted):
            router.dispatcher.subscribe(kind, broken)
        async with router.session("acme") as session:
            assert len(await session.fetch_all(READ)) == 1
            async with session.transaction() as tx:
                await tx.execute(WRITE)
        assert sum(stats.failed for stats in router.dispatcher.stats()) >= 4


# --- failures of a replica -------------------------------------------------------------------------------


async def test_a_read_goes_to_the_other_replica(server: Server) -> None:
    """A connection that breaks in a read costs one attempt, at another replica; after three it is out."""
    async with opened() as router:
        heard = Recorder(router)
        server.fail("fetch_all", LOST, breaks=True)
        row = (await router.fetch_all(READ, tenant="acme"))[0]
        assert heard.of(RequestFinished)[0].attempts == 2
        retry = heard.of(RetryScheduled)[0]
        assert (retry.error, retry.attempt, retry.delay) == ("ConnectionLost", 1, 0.0)
        assert retry.node is not None and row["node"] != retry.node.name
        server.fail("fetch_all", LOST, breaks=True, node=retry.node.name, times=2)
        for _ in range(20):
            await router.fetch_all(READ, tenant="acme")
        assert {row["node"] for _ in range(5) for row in await router.fetch_all(READ, tenant="acme")} == {
            row["node"]
        }


async def test_without_a_replica_left_reads_go_to_the_primary(server: Server) -> None:
    """When every replica has failed the primary answers, and the reason says so."""
    server.down |= {"r1", "r2"}
    async with opened() as router:
        heard = Recorder(router)
        assert (await router.fetch_all(READ, tenant="acme"))[0]["node"] == "primary"
        assert heard.last.attempts == 3
        assert heard.route == ("primary", "replica_failed")
        assert [event.error for event in heard.of(ConnectionFailed)] == ["ConnectError"] * 2
        await router.fetch_all(READ, tenant="acme")
        assert heard.route == ("primary", "no_replica")


async def test_a_replica_that_is_back_is_used_again(server: Server) -> None:
    """A replica that failed is left alone for five seconds, not for ever."""
    now = [1_000.0]
    from tests.doubles import config

    server.down |= {"r1"}
    async with Router(config(replicas=1), clock=lambda: now[0]) as router:
        heard = Recorder(router)
        await router.fetch_all(READ, tenant="acme")
        server.down.clear()
        await router.fetch_all(READ, tenant="acme")
        assert heard.route == ("primary", "no_replica")
        now[0] += 5.1
        await router.fetch_all(READ, tenant="acme")
        assert heard.route == ("replica", "read")


async def test_a_read_that_a_replica_refuses_as_a_write_goes_to_the_primary(server: Server) -> None:
    """Refused as a write: the primary runs it at once, and the text is remembered."""
    async with opened() as router:
        heard = Recorder(router)
        server.fail("fetch_all", ReadOnlyViolation("read-only", code="25006"))
        assert (await router.fetch_all(READ, tenant="acme"))[0]["node"] == "primary"
        assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 2)
        await router.fetch_all(READ, tenant="acme")
        assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 1)


# --- what may be repeated --------------------------------------------------------------------------------


async def test_a_write_that_was_not_sent_is_tried_again(server: Server) -> None:
    """Connecting failed, so nothing was sent: the write is made again, and takes effect once."""
    async with opened() as router:
        heard = Recorder(router)
        server.fail("connect", ConnectionRefusedError(111, "refused"), node="primary")
        await router.execute(WRITE, tenant="acme")
        assert heard.last.attempts == 2
        assert server.count("UPDATE") == 1


async def test_a_write_whose_connection_broke_while_binding_is_tried_again(server: Server) -> None:
    """An idle connection that turns out dead when the tenant is set on it: the write was not sent yet."""
    async with opened() as router:
        await router.execute(WRITE, tenant="acme")
        server.fail("bind", LOST, breaks=True)
        await router.execute(WRITE, tenant="globex")
        assert server.count("UPDATE") == 2


@pytest.mark.parametrize("after", [True, False], ids=["executed", "not-executed"])
async def test_a_write_without_an_answer_is_never_repeated(server: Server, after: bool) -> None:
    """Sent and no answer: CommitOutcomeUnknown, one attempt, whether the server had executed it or not."""
    async with opened() as router:
        heard = Recorder(router)
        server.fail("execute", LOST, after=after, breaks=True)
        with pytest.raises(CommitOutcomeUnknown, match="may have been applied, or not") as caught:
            await router.execute(WRITE, tenant="acme")
        assert server.count("UPDATE") == after
        assert (caught.value.sent, caught.value.tenant) == (Sent.UNKNOWN, "acme")
        assert (heard.last.attempts, len(heard.requests)) == (1, 1)
        assert not heard.of(RetryScheduled)


@pytest.mark.parametrize(
    "call",
    [
        lambda router: router.execute_many("INSERT INTO t VALUES (:a)", [{"a": 1}], tenant="acme"),
        lambda router: router.execute_raw("INSERT INTO t VALUES (1)", tenant="acme"),
        lambda router: router.fetch_all("INSERT INTO t VALUES (1) RETURNING a", tenant="acme"),
        lambda router: router.fetch_value("INSERT INTO t VALUES (1) RETURNING a", tenant="acme"),
    ],
    ids=["execute_many", "execute_raw", "fetch_all", "fetch_value"],
)
async def test_no_verb_repeats_a_write(server: Server, call: Callable[[Router], Awaitable[Any]]) -> None:
    """The rule holds for every verb, not for execute() alone."""
    async with opened() as router:
        for verb in ("execute_many", "execute_raw", "fetch_all", "fetch_one"):
            server.fail(verb, LOST, after=True, breaks=True)
        with pytest.raises(CommitOutcomeUnknown):
            await call(router)
        assert server.count("INSERT") == 1


@pytest.mark.timed
async def test_a_write_that_timed_out_is_never_repeated(server: Server) -> None:
    """The router's own timeout says nothing about the server: the outcome is unknown."""
    async with opened() as router:
        server.block("execute")
        async with taking(0.2):
            with pytest.raises(CommitOutcomeUnknown):
                await router.execute(WRITE, tenant="acme", timeout=0.1)


async def test_a_write_declared_idempotent_is_repeated(server: Server) -> None:
    """idempotent=True: the caller says that twice is as good as once."""
    async with opened() as router:
        heard = Recorder(router)
        server.fail("execute", LOST, after=True, breaks=True)
        await router.execute(WRITE, tenant="acme", idempotent=True)
        assert server.count("UPDATE") == 2
        assert heard.last.attempts == 2


async def test_a_write_that_the_server_refused_is_not_repeated(server: Server) -> None:
    """A deadlock undoes the statement; whether to run it again is the caller's decision, or session.run's."""
    async with opened() as router:
        server.fail("execute", errors.Deadlock("deadlock detected", code="40P01"))
        with pytest.raises(errors.Deadlock):
            await router.execute(WRITE, tenant="acme")
        assert server.count("UPDATE") == 0


async def test_attempts_are_bounded_and_listed(server: Server) -> None:
    """No more attempts than the tenant's setting; the error lists the earlier ones."""
    async with opened(defaults={"retries": {"attempts": 4, "min_wait": "1ms", "max_wait": "2ms"}}) as router:
        heard = Recorder(router)
        server.fail("fetch_all", LOST, breaks=True, times=20)
        with pytest.raises(ConnectionLost) as caught:
            await router.fetch_all(READ, tenant="acme")
        assert heard.last.attempts == 4
        assert len(caught.value.attempts) == 4
        assert "(4 attempts: ConnectionLost on" in str(caught.value)
        assert len(server.faults) == 16


async def test_a_read_tries_each_replica_once_and_the_primary_last(server: Server) -> None:
    """The first move is at once and the only quick one; nobody on call has to guess what was tried."""
    slow = {"retries": {"attempts": 5, "min_wait": "20ms", "max_wait": "40ms"}}
    async with opened(replicas=3, defaults=slow) as router:
        heard = Recorder(router)
        server.fail("fetch_all", LOST, breaks=True, times=20)
        with pytest.raises(ConnectionLost) as caught:
            await router.fetch_all(READ, tenant="acme")
        retries = heard.of(RetryScheduled)
        nodes = [each.node.name for each in retries if each.node]
        assert sorted(nodes[:3]) == ["r1", "r2", "r3"]
        assert (nodes[3:], caught.value.node) == (["primary"], "primary")
        assert retries[0].delay == 0.0
        assert all(each.delay > 0.0 for each in retries[1:])
        tried = [each.split(" on ")[1].split(" after ")[0] for each in caught.value.attempts]
        assert tried == [*nodes, "primary"]
        after = [float(each.split(" after ")[1].removesuffix(" s")) for each in caught.value.attempts]
        assert after == sorted(after)
        assert after[-1] >= sum(each.delay for each in retries) - 0.001


@pytest.mark.timed
async def test_one_deadline_bounds_all_attempts(server: Server) -> None:
    """timeout= holds for the whole request: connecting, waiting, running, and trying again."""
    slow = {"retries": {"attempts": 20, "min_wait": "30ms", "max_wait": "30ms"}}
    async with opened(replicas=0, defaults=slow) as router:
        server.down.add("primary")
        async with taking(0.2):
            with pytest.raises(ConnectError):
                await router.execute(WRITE, tenant="acme", timeout=0.15)


@pytest.mark.timed
async def test_the_acquire_timeout_is_the_tenants(server: Server) -> None:
    """A full pool refuses after timeouts.acquire; nothing was sent, and nothing is tried again."""
    given = {"connections": {"max": 1}, "defaults": {"timeouts": {"acquire": "60ms"}}}
    async with opened(replicas=0, **given) as router, router.session("acme") as session:
        heard = Recorder(router)
        async with session.transaction():
            async with taking(0.11, least=0.06):
                with pytest.raises(PoolTimeout) as caught:
                    # in a task of its own: the one that holds the connection would be told at once
                    await asyncio.create_task(router.execute(WRITE, tenant="globex"))
            assert (caught.value.sent, caught.value.tenant) == (Sent.NO, "globex")
            assert heard.last.attempts == 1


# --- cancellation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["connect", "bind", "fetch_all"])
async def test_a_cancelled_request_gives_everything_back(server: Server, verb: str) -> None:
    """Cancelled at any step: the cancellation passes, the connection is not reused, no slot is lost."""
    async with opened(replicas=0, connections={"max": 1}) as router:
        heard = Recorder(router)
        server.block(verb)
        task = asyncio.create_task(router.fetch_all(READ, tenant="acme"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [event.error for event in heard.of(RequestFailed)] == ["CancelledError"]
        old = list(server.connections)
        row = (await router.fetch_all(READ, tenant="acme", timeout=0.5))[0]
        assert all(connection.closed for connection in old)
        assert [event.reason for event in heard.of(ConnectionClosed)] == ["cancelled"] * len(old)
        assert row["node"] == "primary"
        assert router.status().nodes[0].in_flight == 0


async def test_a_timed_out_read_does_not_leave_its_rows_to_the_next(server: Server) -> None:
    """After a timeout of the router's own the connection is closed: its answer may still come."""
    async with opened(replicas=0) as router:
        heard = Recorder(router)
        server.block("fetch_all")
        with pytest.raises(StatementTimeout) as caught:
            await router.fetch_all(READ, tenant="acme", timeout=0.05)
        assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
        assert caught.value.fingerprint
        assert [event.reason for event in heard.of(ConnectionClosed)] == ["broken"]
        await router.fetch_all(READ, tenant="acme")
        assert len(server.connections) == 2


# --- transactions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [True, False], ids=["committed", "not-committed"])
async def test_a_commit_without_an_answer_is_its_own_error(server: Server, after: bool) -> None:
    """The reply to COMMIT was lost: CommitOutcomeUnknown, told as CommitUnknown, committed at most once."""
    async with opened() as router, router.session("acme") as session:
        heard = Recorder(router)
        server.fail("commit", LOST, after=after, breaks=True)
        with pytest.raises(CommitOutcomeUnknown, match="did not answer the commit") as caught:
            async with session.transaction() as tx:
                await tx.execute(WRITE)
        assert server.count("COMMIT") == after
        assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
        assert len(heard.of(CommitUnknown)) == 1
        assert not heard.of(TransactionCommitted) and not heard.of(TransactionRolledBack)
        await session.fetch_all(READ)
        assert heard.route == ("primary", "own_write"), "it may have been applied, so reads must see it"


async def test_a_whole_transaction_is_not_run_again_after_an_unknown_commit(server: Server) -> None:
    """session.run() repeats conflicts, never a transaction whose commit may have been applied."""
    async with opened() as router, router.session("acme") as session:
        server.fail("commit", LOST, after=True, breaks=True)
        ran = []

        async def work(tx: Any) -> None:
            ran.append(1)
            await tx.execute(WRITE)

        with pytest.raises(CommitOutcomeUnknown):
            await session.run(work)
        assert (len(ran), server.count("UPDATE")) == (1, 1)


async def test_a_whole_transaction_is_run_again_after_a_conflict(server: Server) -> None:
    """A deadlock, a conflict at commit and a connection lost before the commit: run again from the start."""
    async with opened() as router, router.session("acme") as session:
        heard = Recorder(router)
        server.fail("execute", errors.Deadlock("deadlock detected", code="40P01"))
        server.fail("commit", errors.SerializationFailure("conflict", code="40001"))

        async def work(tx: Any) -> str:
            await tx.execute(WRITE)
            return "done"

        assert await session.run(work) == "done"
        assert server.count("COMMIT") == 1
        assert [event.error for event in heard.of(RetryScheduled)] == ["Deadlock", "SerializationFailure"]
        server.fail("execute", LOST, breaks=True)
        assert await session.run(work) == "done"
        assert server.count("COMMIT") == 2


async def test_a_statement_in_a_transaction_is_never_repeated(server: Server) -> None:
    """Inside a transaction nothing is tried again on its own, not even a read that was not answered."""
    async with opened() as router, router.session("acme") as session:
        heard = Recorder(router)
        with pytest.raises(ConnectionLost):
            async with session.transaction() as tx:
                await tx.execute(WRITE)
                server.fail("fetch_all", LOST, breaks=True)
                await tx.fetch_all(READ)
        assert not heard.of(RetryScheduled)
        assert [event.error for event in heard.of(TransactionRolledBack)] == ["ConnectionLost"]
        assert server.count("COMMIT") == 0


async def test_a_begin_that_fails_is_tried_again(server: Server) -> None:
    """BEGIN changes nothing, so a connection that breaks there costs one attempt."""
    async with opened() as router, router.session("acme") as session:
        server.fail("begin", LOST, breaks=True)
        async with session.transaction() as tx:
            await tx.execute(WRITE)
        assert (server.count("UPDATE"), server.count("COMMIT")) == (1, 1)


@pytest.mark.parametrize("verb", ["begin", "execute", "commit"])
async def test_a_cancelled_transaction_gives_everything_back(server: Server, verb: str) -> None:
    """Cancelled at any step of a transaction: the connection is closed, and the next request goes well."""
    async with opened(replicas=0, connections={"max": 1}) as router:
        gate = server.block(verb)

        async def work() -> None:
            async with router.session("acme") as session, session.transaction() as tx:
                await tx.execute(WRITE)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await router.fetch_all(READ, tenant="acme", timeout=0.5)
        assert router.status().nodes[0].in_flight == 0
        assert len(server.connections) == 2 and server.connections[0].closed


async def test_a_failed_transaction_is_rolled_back_and_its_connection_kept(server: Server) -> None:
    """An error of the application rolls back; the connection is clean and is used again."""
    async with opened(replicas=0) as router, router.session("acme") as session:
        heard = Recorder(router)
        with pytest.raises(ZeroDivisionError):
            async with session.transaction() as tx:
                await tx.execute(WRITE)
                raise ZeroDivisionError
        assert (server.count("ROLLBACK"), server.count("COMMIT")) == (1, 0)
        assert [event.error for event in heard.of(TransactionRolledBack)] == ["ZeroDivisionError"]
        await session.fetch_all(READ)
        assert len(server.connections) == 1


async def test_a_rollback_that_fails_closes_the_connection(server: Server) -> None:
    """Closing undoes a transaction too; the application's own error is the one that is raised."""
    async with opened(replicas=0) as router, router.session("acme") as session:
        server.fail("rollback", errors.ServerError("out of memory", code="53200"))
        with pytest.raises(ZeroDivisionError):
            async with session.transaction() as tx:
                await tx.execute(WRITE)
                raise ZeroDivisionError
        await session.fetch_all(READ)
        assert server.connections[0].closed


async def test_errors_chain_no_exception_of_a_driver(server: Server) -> None:
    """Nothing is on __cause__ or __context__: a driver's frames and texts may hold secrets and values."""
    async with opened(replicas=0) as router:
        server.fail("execute", LOST, breaks=True)
        server.fail("fetch_all", LOST, breaks=True, times=3)
        for sql, verb in ((WRITE, router.execute), (READ, router.fetch_all)):
            with pytest.raises(RouterError) as caught:
                await verb(sql, tenant="acme")
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None or isinstance(caught.value.__context__, RouterError)
