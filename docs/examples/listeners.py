"""Hear every request: a counter per reason, an audit of writes, slow requests, and a listener that fails."""

import asyncio
import tempfile
from collections import Counter

from router import Router, parse
from router.events import RequestEvent, RequestFinished, SlowRequest, TransactionCommitted

reasons: Counter[str] = Counter()
audit: list[str] = []


def count(event: RequestEvent) -> None:
    """Count why requests went where they went; called inline, so it must be quick."""
    reasons[event.reason] += 1


async def note_write(event: RequestFinished) -> None:
    """Note who wrote what; an async listener has a queue, and no request waits for it."""
    if event.kind in ("write", "ddl"):
        await asyncio.sleep(0)  # here the entry would be stored
        audit.append(
            f"{event.context_id}: {event.tenant} on {event.node}: {event.sql} with {event.parameters}"
        )


def broken(event: TransactionCommitted) -> None:
    """Fail; the commit is not harmed."""
    raise RuntimeError("this listener is broken")


async def main() -> None:
    """Subscribe, work, and show what was heard."""
    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            {
                "version": 1,
                "clusters": {"main": {"engine": "sqlite", "primary": {"path": folder}}},
                "defaults": {"slow_query": "0ms"},  # everything is slow, to show it
                "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
            }
        )
        async with Router.open(config) as router:
            router.dispatcher.subscribe(RequestEvent, count)
            router.dispatcher.subscribe(RequestFinished, note_write)
            router.dispatcher.subscribe(TransactionCommitted, broken)
            slow: list[SlowRequest] = []
            listening = router.dispatcher.subscribe(SlowRequest, slow.append)

            async with router.session("acme", context_id="request-17") as session:
                await session.execute("CREATE TABLE t (name TEXT)")
                async with session.transaction() as tx:
                    await tx.execute("INSERT INTO t VALUES (:name)", {"name": "not in any event"})
                await session.fetch_all("SELECT * FROM t")

            print(f"{len(slow)} slow requests")
            listening.cancel()
            stats = {each.name: each for each in router.dispatcher.stats()}
            print("failures of the broken listener:", stats["__main__.broken"].failed)
        # closing the router lets async listeners finish their queues
        print(dict(reasons))
        for line in audit:
            print(line.replace(folder, "..."))


asyncio.run(main())
