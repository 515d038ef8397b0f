"""Probing: one question at a time to each server, and nothing left of one that is given up."""

import asyncio
import gc
import time
from typing import Any

from router.drivers.sqlite import SqliteDriver
from router.pools.reaper import Reaper
from router.probing import _Probe


async def test_a_probe_that_fails_as_it_is_given_up_leaves_no_word_in_the_log() -> None:
    """The router closes just as a server goes: the error is nobody's any more."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    probe = _Probe(SqliteDriver(), lambda _: None, "r1", Reaper(), time.monotonic)  # type: ignore[arg-type]
    gone = asyncio.Event()

    async def ask() -> None:
        await gone.wait()
        raise ConnectionError("the server has gone")

    asking = loop.create_task(probe._in_time(ask(), time.monotonic() + 10))
    for _ in range(3):
        await asyncio.sleep(0)
    gone.set()
    await asyncio.sleep(0)  # the question has failed, and who asked has not heard of it yet
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()
    del asking
    gc.collect()
    assert told == []
