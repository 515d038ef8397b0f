"""Break a coroutine off at each of its suspensions in turn, on a real event loop.

A suspension counts wherever it happens: in the task itself, or in one that it has started, such as the one
that connects. What is broken off is always the task itself, in one of the ways of :data:`WAYS`.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import anyio

from router import Router

#: early: cancelled before the awaited thing has happened; late: after it has, but before the task runs again;
#: timeout: by asyncio.timeout; scope: by a cancel scope of anyio, which cancels every further await as well
WAYS = ("early", "late", "timeout", "scope")


@dataclass(slots=True)
class Breaker:
    """Count suspensions, and break off at number ``at``."""

    at: int
    act: Callable[[Any], None] = lambda awaited: None
    count: int = 0
    hit: bool = False
    ended: bool = False

    def suspended(self, awaited: Any) -> None:
        """Take note of a suspension, which waits for ``awaited``."""
        if self.ended:
            return
        self.count += 1
        if self.count == self.at:
            self.hit = True
            self.act(awaited)


@dataclass(slots=True)
class Run:
    """Say what became of one run: whether it was broken off, and how it ended."""

    hit: bool
    count: int  # suspensions
    value: Any = None
    error: BaseException | None = None


_breaker: ContextVar[Breaker | None] = ContextVar("breaker", default=None)
#: what lives as long as its router: the sweeper of the pools, the watchers of servers and of their names
_LASTING = frozenset({"_sweep", "_watch"})
_lasting: ContextVar[bool] = ContextVar("lasting", default=False)
_apart: "WeakSet[asyncio.Task[Any]]" = WeakSet()  # those tasks, and the ones that they have started


class _Stepped(Coroutine[Any, Any, Any]):
    """Be the coroutine that it wraps, but tell each of its suspensions."""

    def __init__(self, coro: Any, breaker: Breaker) -> None:
        self._coro, self._breaker = coro, breaker

    def send(self, value: Any) -> Any:
        return self._told(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._coro.throw(*error))

    def _told(self, awaited: Any) -> Any:
        self._breaker.suspended(awaited)
        return awaited

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("only tasks drive it")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # its name, and the state that anyio looks at


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **given: Any) -> "asyncio.Task[Any]":
    """Make a task that tells its suspensions if the one that starts it does."""
    if _lasting.get() or getattr(coro, "__name__", "") in _LASTING:
        context = copy_context()
        context.run(_lasting.set, True)
        task = asyncio.Task(coro, loop=loop, **{**given, "context": context})
        _apart.add(task)
        return task
    breaker = _breaker.get()
    return asyncio.Task(coro if breaker is None else _Stepped(coro, breaker), loop=loop, **given)


@contextmanager
def stepping() -> Iterator[None]:
    """Let the running loop make tasks that can be stepped; routers must be opened inside."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def break_off(work: Callable[[], Coroutine[Any, Any, Any]], at: int, way: str) -> Run:
    """Run ``work`` in a task of its own and break it off at its suspension number ``at``, counted from 1."""
    breaker = Breaker(at)
    token = _breaker.set(breaker)
    try:
        main = asyncio.ensure_future(_guarded(work, breaker, way))
    finally:
        _breaker.reset(token)
    if way in ("early", "late"):
        breaker.act = lambda awaited: _cancel(main, awaited, late=way == "late")
    try:
        value = await main
    except BaseException as exc:
        return Run(breaker.hit, breaker.count, error=exc)
    finally:
        breaker.ended = True
    return Run(breaker.hit, breaker.count, value)


async def _guarded(work: Callable[[], Coroutine[Any, Any, Any]], breaker: Breaker, way: str) -> Any:
    loop = asyncio.get_running_loop()
    try:
        if way == "timeout":
            async with asyncio.timeout(None) as limit:
                breaker.act = lambda awaited: limit.reschedule(loop.time())
                return await work()
        if way == "scope":
            with anyio.CancelScope() as scope:
                breaker.act = lambda awaited: scope.cancel()
                return await work()
            raise asyncio.CancelledError("the scope was left")  # so that all ways end alike
        return await work()
    finally:
        breaker.ended = True


def _cancel(task: "asyncio.Task[Any]", awaited: Any, *, late: bool) -> None:
    if late and isinstance(awaited, asyncio.Future) and not awaited.done():
        # before the task's own callback: it is cancelled while what it waited for is already there
        awaited.add_done_callback(lambda _: task.cancel())
    else:
        task.cancel()


# --- what must hold afterwards ---------------------------------------------------------------------------


@dataclass
class Traces:
    """Collect what a broken-off task may leave behind."""

    told: list[str] = field(default_factory=list)  # what the loop's exception handler was told
    before: set["asyncio.Task[Any]"] = field(default_factory=set)

    def tasks(self) -> set["asyncio.Task[Any]"]:
        """Return the tasks that were not there before, but for those that live as long as their router."""
        return asyncio.all_tasks() - self.before - {asyncio.current_task()} - set(_apart)


@contextmanager
def traces() -> Iterator[Traces]:
    """Collect what the loop is told from now on; at the end nothing may have been told, no task be left.

    Where servers are probed, to be used inside of :func:`stepping`.
    """
    loop = asyncio.get_running_loop()
    found = Traces(before=asyncio.all_tasks())
    loop.set_exception_handler(lambda _, context: found.told.append(f"{context}"))
    try:
        yield found
    finally:
        gc.collect()  # an exception that nobody asked for is told when its task goes
        loop.set_exception_handler(None)
    assert not found.told, found.told
    assert not found.tasks(), found.tasks()


async def cleaned(router: Router, timeout: float = 10.0) -> None:
    """Return when all clean-up has ended; then nothing may be lent, awaited or missing in any pool."""
    pools = router._pools
    assert pools is not None
    async with asyncio.timeout(timeout):
        while tasks := set(pools.reaper._tasks):
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # for what they have handed over
    for pool in router.status().pools:
        assert (pool.in_use, pool.waiting, pool.size) == (0, 0, pool.idle), pool
        assert pool.size <= pool.max, pool
    assert not pools._deadlines._running
    assert not pools._deadlines._late
    for backend in router._backends.values():
        for node, load in backend.health.load.items():
            assert load.in_flight == 0, node
