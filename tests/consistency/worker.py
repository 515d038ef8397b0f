"""One process of an application: a router, and clients that serve users who come and go by tokens."""

import asyncio
import logging
import os
import threading
import traceback
from collections import deque
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import uvloop

from router import Router
from router.config import parse
from tests.consistency.journeys import Place, Visit
from tests.consistency.mutants import without
from tests.consistency.plan import Journey, Plan

_BATCH = 200  # values that are sent home at once
_ORPHANED = 2.0  # seconds between two looks whether the one who started us is still there


class Stop:
    """Tell a process to end its history."""


class End:
    """Tell a process to end."""


class Explain:
    """Ask a process what its tasks wait for."""


def main(process: int, inboxes: list["Queue[Any]"], home: "Queue[Any]") -> None:
    """Serve one plan after the other until told to end."""
    logging.getLogger("router").addHandler(logging.NullHandler())  # failures are part of the game here
    runner = uvloop.run if process == 0 else asyncio.run  # both loops take part
    try:
        runner(Worker(process, inboxes, home).serve())
    except Exception:
        home.put((process, "failed", traceback.format_exc()))


class Worker:
    """Serve plans: ``home`` gets (process, word, value)."""

    def __init__(self, process: int, inboxes: list["Queue[Any]"], home: "Queue[Any]") -> None:
        self._process, self._inboxes, self._home = process, inboxes, home
        self._arrived: deque[Journey] = deque()
        self._notes: list[Any] = []
        self._stopped = asyncio.Event()
        self._plans: asyncio.Queue[Plan | None] = asyncio.Queue()

    async def serve(self) -> None:
        """Take part in one history after the other."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._stray)
        threading.Thread(target=self._listen, args=(loop,), daemon=True).start()
        self._home.put((self._process, "ready", None))
        while (plan := await self._plans.get()) is not None:
            await self._take_part(plan)
            self._send()
            self._home.put((self._process, "done", None))
        for inbox in self._inboxes:
            inbox.cancel_join_thread()  # nobody will read who is still on the way

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        parent, inbox = os.getppid(), self._inboxes[self._process]
        while True:
            try:
                message = inbox.get(timeout=_ORPHANED)
            except Empty:
                if os.getppid() != parent:
                    os._exit(1)  # nobody is left who would stop us
                continue
            loop.call_soon_threadsafe(self._received, message)
            if isinstance(message, End):
                return

    def _received(self, message: Any) -> None:
        if isinstance(message, Journey):
            self._arrived.append(message)
        elif isinstance(message, Plan):
            self._stopped.clear()
            self._plans.put_nowait(message)
        elif isinstance(message, Explain):
            self._home.put((self._process, "waits", "\n".join(map(_waits, asyncio.all_tasks()))))
        else:
            self._stopped.set()
            if isinstance(message, End):
                self._plans.put_nowait(None)

    async def _take_part(self, plan: Plan) -> None:
        configured = parse(plan.configured(self._process), Path(plan.folder))
        with without(plan.guarantees.without):
            async with Router.open(configured) as router:
                await self._serve(plan, router)

    async def _serve(self, plan: Plan, router: Router) -> None:
        place = Place(plan, self._process, router, self._note)
        async with asyncio.TaskGroup() as group:
            for client in range(plan.clients):
                group.create_task(self._client(place, client))

    async def _client(self, place: Place, number: int) -> None:
        while not self._stopped.is_set():
            visit = Visit(place, self._next(place), number)
            for target, onward in await visit.run():
                if target == self._process:
                    self._arrived.append(onward)
                else:
                    self._inboxes[target].put(onward)

    def _next(self, place: Place) -> Journey:
        """Return a user who has come from elsewhere, else a new one; those of another history are late."""
        while self._arrived:
            journey = self._arrived.popleft()
            if journey.table == place.plan.table:
                return journey
        return place.journey()

    def _stray(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of an error that nobody has caught, such as of a task that was left alone."""
        self._note(f"process {self._process}: {context.get('message')}: {context.get('exception')!r}")

    def _note(self, value: Any) -> None:
        self._notes.append(value)
        if len(self._notes) >= _BATCH:
            self._send()

    def _send(self) -> None:
        self._home.put((self._process, "notes", self._notes))
        self._notes = []


def _waits(task: asyncio.Task[Any]) -> str:
    """Return where a task stands, the outermost of its coroutines first."""
    found = [f"task {task.get_name()}"]
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            found.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "\n".join(found)
