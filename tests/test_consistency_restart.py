"""A replica that crashes shows an older state when it is back, and a promoted one may lack what was told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.events import TokenIgnored, WriteLost
from tests.chaos.cases import off_loop, until
from tests.engines import Postgresql, Recorder
from tests.holding import ask

KEY = "canary-key-of-the-present"
READ, WRITE = "SELECT count(*) FROM t", "INSERT INTO t VALUES (:n)"


async def count(session: Any) -> int:
    return int(await session.fetch_value(READ))


async def test_a_crash_shows_nobody_an_older_state_and_a_promotion_hides_no_loss(
    postgresql_factory: Callable[..., Any], tmp_path: Path
) -> None:
    """A standby is killed, and begins again at its last restart point, where it is held back.

    Who has read on it sees no older state: over its new connections it is asked first. Later it is promoted
    without the primary's last write: session and token are told.
    """
    engine = Postgresql(tmp_path, postgresql_factory(replicas=1))
    engine.create("acme")
    primary, replica = engine.server.primary, engine.server.replicas[0]
    checks = {"checks": {"interval": "1h", "timeout": "1s"}}
    async with (
        engine.open(("acme",), cluster=checks, keys=(KEY,)) as router,
        engine.open(("acme",), cluster=checks, keys=(KEY,)) as other,
    ):
        await router.execute("CREATE TABLE t (n int)", tenant="acme")
        await engine.settle()
        await off_loop(primary.run, "CHECKPOINT")
        await off_loop(replica.run, "CHECKPOINT")
        for number in range(5):
            await router.execute(WRITE, {"n": number}, tenant="acme")
        await engine.settle()
        await ask(router)
        session, heard = router.session("acme"), Recorder(router)
        assert await count(session) == 5
        assert heard.route[0] == "replica"
        token = await session.token()

        await off_loop(replica.kill)
        with (replica.data / "postgresql.auto.conf").open("a") as settings:
            settings.write("recovery_min_apply_delay = '1h'\n")
        await off_loop(replica.start)
        await until(lambda: replica.run("SELECT count(*) FROM pg_stat_activity") != "")
        shown = await off_loop(replica.run, READ, engine.database("acme"))
        assert int(shown) < 5, "the standby has not gone back, so that this test proves nothing"
        assert await count(session) == 5
        assert await count(other.session("acme", after=token)) == 5
        for _ in range(3):
            assert await count(session) == 5
            await ask(router)

        await off_loop(replica.stop)
        late = router.session("acme")
        await late.execute(WRITE, {"n": 5})
        token = await late.token()
        await off_loop(primary.kill)
        with (replica.data / "postgresql.auto.conf").open("a") as settings:
            settings.write("recovery_min_apply_delay = 0\n")
        await off_loop(replica.start)
        await off_loop(replica.promote)
        async with asyncio.timeout(15):
            while router._backends["main"].health.primary_name != "r1":
                await ask(router)
                await asyncio.sleep(0.02)
        heard.clear()
        assert await count(late) == 5
        assert len(heard.of(WriteLost)) == 1
        assert await count(router.session("acme", after=token)) == 5
        assert [event.refusal for event in heard.of(TokenIgnored)] == ["old_reign"]
        assert len(heard.of(WriteLost)) == 2
