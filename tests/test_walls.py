"""Limits on the server itself: behind the client's deadline, for what the client could not cancel."""

import asyncio
import time
from random import Random
from typing import Any

import pytest

from router import Router, errors
from router.building import Clocks, backends, keeper
from router.config import parse
from router.credentials import Passwords
from router.drivers import postgresql_opening
from router.pools.registry import Pools
from tests.engines import POSTGRESQL, Engine, only

ONE_OF_EACH = only("postgresql", "mariadb")

LIMITS = {"postgresql": "SHOW statement_timeout", "mysql": "SELECT @@SESSION.max_statement_time"}


async def limits(router: Router, engine: Engine) -> set[str]:
    """Return the limit of a session on the primary, and of one on a replica."""
    show, where = LIMITS[engine.dialect], ({"primary": True}, {"readonly": True})
    return {str(await router.fetch_value(show, tenant="acme", **on)) for on in where}


@ONE_OF_EACH
async def test_the_wall_is_a_little_behind_the_largest_deadline(engine: Engine) -> None:
    """The tenant that may take longest decides, and a tenth is added, or a second if that is more."""
    for longest, expected in (("20s", {"22s", "22.0"}), ("4s", {"5s", "5.0"})):
        async with engine.open(defaults={"timeouts": {"statement": longest}}) as router:
            assert await limits(router, engine) <= expected


def test_only_tenants_of_the_cluster_count(tmp_path: Any) -> None:
    """Another cluster's patient tenant moves no wall here; a cluster without tenants has none."""

    def cluster() -> dict[str, Any]:
        return {
            "engine": "postgresql",
            "primary": {"host": "127.0.0.1"},
            "credentials": {"writer": {"username": "app"}},
        }

    def tenant(name: str, cluster: str, limit: str) -> dict[str, Any]:
        place = {"isolation": "database", "database": name}
        return {"tenant": name, "cluster": cluster, "timeouts": {"statement": limit}, **place}

    given = (("a", "one", "5s"), ("b", "one", "50s"), ("c", "two", "1s"))
    config = parse(
        {
            "version": 1,
            "clusters": {name: cluster() for name in ("one", "two", "three")},
            "tenants": {name: tenant(name, *where) for name, *where in given},
        },
        tmp_path,
    )
    pools = Pools(emit=lambda event: None, clock=time.monotonic, wall=time.time, rng=Random(1))
    clocks = Clocks(time.monotonic, time.time)
    secrets = keeper(config, {}, lambda event: None, clocks, Random(1))
    passwords = Passwords(lambda event: None, clocks.wall, secrets)
    made = backends(config, pools, passwords, lambda event: None, clocks, Random(1), further=False)
    walls = {name: each._access[each.cluster.primary.name].setup.wall for name, each in made.items()}
    assert walls == {"one": 55.0, "two": 2.0, "three": None}


@ONE_OF_EACH
async def test_the_wall_ends_what_the_client_did_not(engine: Engine) -> None:
    """A statement sent past the router's deadlines is ended by the server (fault case 7)."""
    async with (
        engine.open(defaults={"timeouts": {"statement": "100ms"}}) as router,
        router.session("acme").connection() as lent,
    ):
        began = time.monotonic()
        with pytest.raises(errors.RouterError) as caught:
            await lent.run("fetch_all", engine.sleep(60), (), None, limit=50)
        assert caught.value.code in ("57014", "1969")
        assert time.monotonic() - began > 1.0


@POSTGRESQL
async def test_a_setting_of_the_users_own_wins(engine: Engine) -> None:
    """server_settings replace the router's, and survive a reset of the session."""
    mine = {"statement_timeout": "7s", "work_mem": "5MB"}
    async with engine.open(cluster={"server_settings": mine}, connections=1) as router:
        for _ in range(2):
            assert await limits(router, engine) == {"7s"}
            assert await router.fetch_value("SHOW work_mem", tenant="acme", primary=True) == "5MB"
            await router.execute("SET statement_timeout = 1", tenant="acme")


@only("mariadb")
async def test_an_init_command_of_the_users_own_wins(engine: Engine) -> None:
    """A limit set there is left alone, also after a reset of the session."""
    mine = {"options": {"init_command": "SET SESSION max_statement_time = 7"}}
    async with engine.open(cluster=mine, connections=1) as router:
        for _ in range(2):
            assert await limits(router, engine) == {"7.0"}
            await router.execute("SET @a = 1", tenant="acme")


@only("mariadb")
async def test_a_nearer_limit_of_the_servers_stays(engine: Engine) -> None:
    """Whoever runs the server may want less time than the router would give; never is it given more."""
    show = LIMITS["mysql"]
    for theirs, expected in ((3, "3.0"), (300, "33.0")):
        engine.server.run(f"SET GLOBAL max_statement_time = {theirs}")
        try:
            async with engine.open() as router:
                assert str(await router.fetch_value(show, tenant="acme", primary=True)) == expected
        finally:
            engine.server.run("SET GLOBAL max_statement_time = 0")


@only("mariadb")
async def test_a_session_has_its_wall_again_after_a_reset(engine: Engine) -> None:
    """The reset of a session goes back to the server's own limit; the wall is put up again."""
    async with engine.open(connections=1) as router:
        await router.execute("SET SESSION max_statement_time = 1", tenant="acme")
        assert str(await router.fetch_value(LIMITS["mysql"], tenant="acme", primary=True)) == "33.0"


@ONE_OF_EACH
async def test_a_stream_may_take_longer_than_any_statement(engine: Engine) -> None:
    """The wall bounds a statement, not how long a stream is read; afterwards it stands again."""
    async with engine.open(defaults={"timeouts": {"statement": "300ms"}}, connections=1) as router:
        sql = {
            "postgresql": "SELECT repeat('x', 1000) AS a FROM generate_series(1, 20000)",
            "mysql": "SELECT REPEAT('x', 1000) AS a FROM seq_1_to_20000",
        }[engine.dialect]
        async with router.session("acme").transaction() as tx:
            count = 0
            async for _ in tx.stream(sql, batch=1000):
                count += 1
                if count == 1000:
                    await asyncio.sleep(1.5)  # the wall is at 1.3 s
            assert count == 20_000
            assert str(await tx.fetch_value(LIMITS[engine.dialect])) in ("1300ms", "1.3")


@only("postgresql")
async def test_the_server_looks_after_its_client_while_it_works(engine: Engine) -> None:
    """A client that is gone does not leave its statement running until the wall."""
    async with engine.open() as router:
        show = "SHOW client_connection_check_interval"
        assert await router.fetch_value(show, tenant="acme", primary=True) == "5s"


@only("postgresql")
async def test_a_server_that_does_not_know_the_setting_is_connected_to(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL before 14, or a relative of it, refuses the setting; then it is left out."""
    monkeypatch.setattr(postgresql_opening, "_CHECK", {"client_connection_check_internal": "5s"})
    async with engine.open() as router:
        assert await router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
        assert await limits(router, engine) == {"33s"}
    async with engine.open(cluster={"server_settings": {"no_such_setting": 1}}) as router:
        with pytest.raises(errors.RouterError, match="no_such_setting"):
            await router.fetch_value("SELECT 1", tenant="acme", primary=True)
