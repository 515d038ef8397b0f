"""The router and its process: forks, a second event loop, SIGTERM, and routers that nobody closed.

Each program runs in a process of its own, with every warning an error and with asyncio's debug mode, and must
leave nothing on stderr but what the test expects.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from router import Router
from router.errors import WrongEventLoop
from tests.engines import Engine

ROOT = Path(__file__).parents[1]

_START = """
import asyncio, gc, json, os, signal, sys, time
from pathlib import Path
from router import Router, errors
from router.config import parse

CONFIG = parse(json.loads(os.environ["ROUTER_TEST_CONFIG"]), Path(os.environ["ROUTER_TEST_FOLDER"]))
IDENTITY = os.environ["ROUTER_TEST_IDENTITY"]

async def opened():
    router = Router.open(CONFIG)
    await router.connect()
    return router

async def use(router):
    return await asyncio.gather(*(
        router.fetch_value(IDENTITY, tenant="acme", primary=primary) for primary in (True, False, False)
    ))
"""

_IDENTITY = {
    "sqlite": "SELECT 1",
    "postgresql": "SELECT pg_backend_pid()",
    "mariadb": "SELECT CONNECTION_ID()",
}


def section(engine: Engine) -> dict[str, Any]:
    """Return the configuration of acme on the engine, as plain data."""
    return {
        "version": 1,
        "clusters": {"main": {**engine.cluster(), "connections": {"max": 4}}},
        "tenants": {"acme": {"tenant": "acme", "cluster": "main", **engine.tenant("acme")}},
    }


def program(engine: Engine, text: str, loop: str = "asyncio") -> list[str]:
    """Return the command that runs a program."""
    start = _START
    if loop == "uvloop":
        start += "\nimport uvloop\nasyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
    return [sys.executable, "-X", "dev", "-W", "error", "-c", start + textwrap.dedent(text)]


def environment(engine: Engine) -> dict[str, str]:
    """Return what a program needs to know."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ROUTER_TEST_CONFIG": json.dumps(section(engine)),
        "ROUTER_TEST_FOLDER": str(engine.folder),
        "ROUTER_TEST_IDENTITY": _IDENTITY[engine.id],
    }


async def run(engine: Engine, text: str, loop: str = "asyncio") -> tuple[str, str]:
    """Run a program to its end; return what it said on stdout and on stderr."""

    def call() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            program(engine, text, loop), env=environment(engine), capture_output=True, text=True, timeout=60
        )

    done = await asyncio.to_thread(call)
    assert done.returncode == 0, done.stderr
    return done.stdout, without_slow(done.stderr)


def without_slow(err: str) -> str:
    """Drop what asyncio's debug mode says on a busy machine."""
    return re.sub(r"^Executing .* took .* seconds\n", "", err, flags=re.MULTILINE)


# --- forks -----------------------------------------------------------------------------------------------

_CHILD = """
async def child(router, session):
    for work in (
        lambda: use(router), lambda: session.execute("SELECT 1"), router.connect, router.ping,
        session.begin, lambda: session.orm().__aenter__(), lambda: router.reload(CONFIG),
        lambda: lease.run("fetch_all", IDENTITY, (), None),
    ):
        try:
            await work()
        except errors.WrongProcess as error:
            assert str(os.getppid()) in str(error) and "after the fork" in str(error), error
        else:
            raise AssertionError(work)
    assert await router.close() == 0
    async with Router.open(CONFIG) as own:
        await use(own)
    gc.collect()
"""


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
async def test_a_forked_child_leaves_its_parents_connections_alone(engine: Engine) -> None:
    """It is told so, opens a router of its own, and ends in silence; the parent goes on (fault case 41)."""
    out, err = await run(
        engine,
        _CHILD
        + """
async def before():
    global lease
    router = await opened()
    session = router.session("acme")
    found = await use(router)
    holding = session.connection()
    lease = await holding.__aenter__()
    return router, session, found, holding

async def after(router, found, holding):
    assert not lease.connection.closed
    await lease.run("fetch_all", IDENTITY, (), None, limit=5)
    await holding.__aexit__(None, None, None)
    again = await use(router)
    assert set(again) & set(found), (found, again)
    print("parent", await router.close())

loop = asyncio.new_event_loop()
router, session, found, holding = loop.run_until_complete(before())
if not (pid := os.fork()):
    asyncio.run(child(router, session))
    del router, session, holding, lease
    gc.collect()
    print("child", flush=True)
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
loop.run_until_complete(after(router, found, holding))
loop.close()
""",
    )
    assert (out.split(), err) == (["child", "parent", "0"], "")


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
async def test_a_fork_inside_of_the_running_loop_disturbs_nobody(engine: Engine) -> None:
    """The same from a coroutine, with requests of the parent on their way meanwhile (fault case 41)."""
    out, err = await run(
        engine,
        _CHILD
        + """
async def main():
    global lease
    async with Router.open(CONFIG) as router:
        session = router.session("acme")
        busy = [asyncio.create_task(keep_busy(router)) for _ in range(3)]
        async with session.connection() as lease:
            await asyncio.sleep(0.05)
            if not (pid := os.fork()):
                status = 1
                try:
                    asyncio.run(child(router, router.session("acme")))
                    status = 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            while not (gone := os.waitpid(pid, os.WNOHANG))[0]:
                await asyncio.sleep(0.01)
            assert gone[1] == 0
            await lease.run("fetch_all", IDENTITY, (), None, limit=5)
        ended.set()
        print(await asyncio.gather(*busy))

async def keep_busy(router):
    after = 0
    while after < 10:
        assert len(await use(router)) == 3
        after += ended.is_set()
    return after

ended = asyncio.Event()
asyncio.run(main())
""",
    )
    assert (out, err) == ("[10, 10, 10]\n", "")


# --- another event loop ----------------------------------------------------------------------------------


async def test_use_from_a_second_event_loop_names_both(engine: Engine, router: Router) -> None:
    """Each way in refuses at once and says which loop is which (fault case 40)."""
    session = router.session("acme")
    here = asyncio.get_running_loop()

    def elsewhere() -> list[str]:
        texts: list[str] = []

        async def call() -> None:
            other = asyncio.get_running_loop()
            for work in (lambda: session.fetch_all("SELECT 1"), session.begin, router.ping, router.close):
                with pytest.raises(WrongEventLoop) as caught:
                    await work()
                texts.append(str(caught.value))
                assert f"{id(here):#x}" in texts[-1] and f"{id(other):#x}" in texts[-1]

        asyncio.run(call())
        return texts

    assert len(await asyncio.to_thread(elsewhere)) == 4
    assert await session.fetch_value("SELECT 1") == 1


# --- routers that nobody closed --------------------------------------------------------------------------

_UNCLOSED = {
    "while its loop runs": """
async def main():
    router = await opened()
    await use(router)
    del router
    gc.collect()
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
    "after its loop has ended, with connections in use": """
async def main():
    global router, session
    router = await opened()
    await use(router)
    session = router.session("acme")
    await session.begin()
    await session.execute(IDENTITY)
asyncio.run(main())
del router, session
gc.collect()
""",
    "at the end of the program": """
async def main():
    global router, session
    router = await opened()
    await use(router)
    session = router.session("acme")
    await session.begin()
asyncio.run(main())
""",
}


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("when", _UNCLOSED)
async def test_a_router_that_was_not_closed_says_so_and_lets_go(engine: Engine, when: str) -> None:
    """One ResourceWarning of ours; sockets are closed, no driver complains (fault case 45)."""
    check = """
print("sockets", [each for each in os.listdir("/proc/self/fd") if _is_socket(each)])
"""
    look = """
def _is_socket(number):
    try:
        return "socket:" in os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
before = {each for each in os.listdir("/proc/self/fd") if _is_socket(each)}
"""
    out, err = await run(engine, look + _UNCLOSED[when] + ("" if "program" in when else check))
    assert err.count("ResourceWarning") == 1, err
    assert "was not closed; its connections are cut now. Open it with: async with" in err
    assert not re.search(r"Event loop is closed|never retrieved|never awaited|destroyed", err), err
    assert "sockets []" in out or "program" in when


_IDLE = """
async def main():
    global router
    router = await opened()
    await use(router)
asyncio.run(main())
del router
gc.collect()
"""


@pytest.mark.engines("postgresql")
async def test_a_router_on_uvloop_that_was_not_closed_lets_go(engine: Engine) -> None:
    """uvloop complains of what is open when it ends; what is idle is closed before that (fault case 45)."""
    _, err = await run(engine, _IDLE, "uvloop")
    assert err.count("ResourceWarning") == 1, err
    assert "was not closed" in err


# --- SIGTERM ---------------------------------------------------------------------------------------------

_SERVICE = """
async def main():
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    router = await opened()
    closing = []

    def on_signal():
        closing.append(loop.create_task(router.close(20)))
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, on_signal)

    async def client(number):
        done = 0
        while True:
            try:
                await router.execute(
                    "INSERT INTO served (client, number) VALUES (:client, :number)",
                    {"client": number, "number": done}, tenant="acme",
                )
            except errors.RouterClosed:
                return done
            done += 1
            if number == 0:
                served.set()

    served = asyncio.Event()
    clients = [asyncio.create_task(client(number)) for number in range(8)]
    await served.wait()
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    await stop.wait()
    done = await asyncio.gather(*clients)
    while len(closing) < 2:
        await asyncio.sleep(0.01)
    print(sum(done), await asyncio.gather(*closing))

asyncio.run(main())
"""


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
async def test_sigterm_twice_ends_a_service_in_order(engine: Engine) -> None:
    """Requests on their way are finished, the second signal changes nothing (fault case 43)."""
    async with engine.open() as router:
        table = engine.name()
        await router.execute(f"CREATE TABLE {table} (client INT, number INT)", tenant="acme")
        process = await asyncio.create_subprocess_exec(
            *program(engine, _SERVICE.replace("served", table)),
            env=environment(engine),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        process.terminate()
        await asyncio.sleep(0.02)
        process.terminate()
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, without_slow(err.decode())) == (0, "")
        number, _, closed = out.decode().partition(" ")
        assert closed == "[0, 0]\n"
        assert int(number) > 0
        count = f"SELECT count(*) FROM {table}"
        assert await router.fetch_value(count, tenant="acme", primary=True) == int(number)
