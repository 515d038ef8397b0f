"""A broadcast over a connection to a server, made again whenever it ends; whoever listens is told."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from time import monotonic

from router.cache.broadcast import BroadcastCounts, OnLost, OnMessage
from router.cache.notices import NOTHING, Notice, Unsaid, decode
from router.frames import drop_frames
from router.logs import log_of

_FIRST, _LONGEST = 0.05, 5.0  # seconds before the connection is made again, doubled each time
_FAREWELL = 0.5  # seconds to tell what is left when closing
_log = log_of("cache")


class Linked:
    """Keep one session with a server alive; a subclass says what a session is.

    See :class:`router.cache.broadcast.Broadcast` for what it promises. ``beat`` is how often it asks whether
    all was heard, ``patience`` how long it waits for one answer of the server before it gives up the
    connection; both are seconds.
    """

    kind = ""
    speaks = True
    slack = 1.0

    def __init__(
        self,
        *,
        on_message: OnMessage,
        on_lost: OnLost,
        clock: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
        beat: float = 0.25,
        patience: float = 1.0,
    ) -> None:
        self.counts = BroadcastCounts()
        self.clock = clock
        self.beat = beat
        self.patience = patience
        self.rng = rng or random.Random()  # noqa: S311  # jitter only
        self.sender = secrets.token_hex(8)
        self.unsaid = Unsaid()
        self.something = asyncio.Event()  # is to be told
        self._on_message = on_message
        self._on_lost = on_lost
        self._heard = -math.inf
        self._joined = asyncio.Event()
        self._quiet = asyncio.Event()  # all has been told
        self._quiet.set()
        self._why = "not started"
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'hears others' if self.healthy() else f'deaf: {self._why}'}>"

    async def start(self, patience: float = 1.0) -> None:
        """Begin to hear; return when it does, at the latest after ``patience`` seconds."""
        if self._task is None and not self._closed:
            self._why = "connecting"
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"cache broadcast {self.kind}", context=Context()
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._joined.wait()

    def publish(self, place: str | None, tables: Iterable[str] | None = None) -> None:
        """Tell others soon that tables were written; never wait and never raise."""
        if self._closed:
            return
        self.counts.published += 1
        self.unsaid.add((Notice(place, None if tables is None else frozenset(tables)),))
        self._quiet.clear()
        self.something.set()

    async def all_told(self, patience: float) -> bool:
        """Wait until all that was published has gone out; tell whether it has after ``patience`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._quiet.wait()
        return self._quiet.is_set()

    def heard(self) -> float:
        """Return the moment up to which all notices have certainly come."""
        return self._heard

    def age(self, now: float) -> float:
        """Return the seconds since the moment that ``heard`` returns, without asking for a younger one."""
        return now - self._heard

    def healthy(self) -> bool:
        """Tell whether others are heard at present."""
        return self._joined.is_set()

    def renew(self) -> None:
        """Do nothing: it does not depend on who leads a cluster."""

    def cancel(self) -> None:
        """End, without waiting for it; nothing more is told."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Tell what is left to be told if that is quick, and end."""
        self._closed = True
        if self._task is None:
            return
        if self.healthy():
            await self.all_told(_FAREWELL)
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=2 * self.patience)
        self._part("closed")

    # --- for a session -----------------------------------------------------------------------------------

    async def session(self) -> None:
        """Connect, call ``join`` once others are heard, and go on until something fails, which is raised."""
        raise NotImplementedError

    def join(self, asked: float) -> None:
        """Take note that from now on all is heard that was published after the moment ``asked``."""
        self.counts.joined += 1
        self._call(self._on_lost)  # of what was published before nothing is known
        self.reached(asked)
        self._joined.set()

    def reached(self, moment: float | None) -> None:
        """Take note that all that was published before ``moment`` has come."""
        if moment is not None and moment > self._heard:
            self._heard = moment

    def deliver(self, text: str) -> bool:
        """Pass on the notice in a message of somebody else; return True for one of our own."""
        found = decode(text)
        if found is None:
            self.counts.malformed += 1
            self._call(self._on_lost)  # it may have been meant to say anything
            return False
        sender, notice = found
        if sender != self.sender and notice != NOTHING:
            self.counts.heard += 1
            self._call(self._on_message, notice, self.clock())
        return sender == self.sender

    def take(self) -> list[Notice]:
        """Return what is to be told now; ``told`` says that it was, ``failed`` that it may not have been."""
        self.something.clear()
        return self.unsaid.take()

    def told(self, notices: list[Notice]) -> None:
        """Take note that these went out."""
        self.counts.said += len(notices)
        if not self.unsaid:
            self._quiet.set()

    def failed(self, notices: list[Notice]) -> None:
        """Tell these again; who has heard them already hears them twice."""
        self.unsaid.add(notices)
        self.something.set()

    # --- the connection's life ---------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            joined = self.counts.joined
            try:
                await self.session()
            except Exception as exc:
                drop_frames(exc)  # the password may be in one of them
                failures = 1 if self.counts.joined > joined else failures + 1
                self._part(_word(exc))
            pause = min(_LONGEST, _FIRST * 2.0 ** min(failures, 20))
            await asyncio.sleep(pause * self.rng.uniform(0.5, 1.0))

    def _part(self, why: str) -> None:
        self._why = why
        if self._joined.is_set():
            self._joined.clear()
            self.counts.parted += 1
            self._call(self._on_lost)

    def _call(self, listener: Callable[..., None], *arguments: object) -> None:
        try:
            listener(*arguments)
        except Exception:  # whoever listens must not make all others deaf
            _log.exception("a listener of the cache failed")


def _word(exc: BaseException) -> str:
    """Return the name of an error, of the first in a group; its text may hold more than is to be shown."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return type(exc).__name__
