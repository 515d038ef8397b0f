"""Where a router lives: the event loop that its connections belong to, and the process.

A forked child has copies of its parent's sockets, and shares the parent's table of watched files (epoll). A
word on such a socket reaches the parent's server session; to unregister one there deafens the parent. So the
child must leave them alone, also when objects are collected and when it ends.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from asyncio import get_running_loop
from typing import Protocol

from router.errors import UsageError, WrongEventLoop, WrongProcess


class Home:
    """Know the running event loop and the process as those in which a router may be used."""

    __slots__ = ("__weakref__", "_loop", "_process", "left")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = get_running_loop()
        self._process = os.getpid()
        self.left = False  # by a fork; this is the child

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the event loop, ``None`` in a forked child."""
        return self._loop

    def check(self) -> None:
        """Refuse use from anywhere else; raises WrongEventLoop or WrongProcess."""
        try:
            if get_running_loop() is self._loop:
                return
        except RuntimeError:  # no loop runs here
            pass
        raise self.refusal()

    def leave(self) -> None:
        """Take note that this is a forked child. No request pays for asking which process it is in."""
        self._loop = None
        self.left = True

    def refusal(self) -> UsageError:
        """Return the error of who uses the router here, where it does not live."""
        if self.left:
            return WrongProcess(
                f"this router was opened in process {self._process}, of which this one, {os.getpid()}, was "
                "forked: the connections belong to the parent. Open a router in each process, after the fork"
            )
        try:
            here = _named(get_running_loop())
        except RuntimeError:
            here = "where no event loop runs"
        return WrongEventLoop(
            f"this router was opened on {_named(self._loop)}, and is used on {here}. "
            "Open one router per loop, in that loop"
        )


def _named(loop: asyncio.AbstractEventLoop | None) -> str:
    state = "" if loop is None or not loop.is_closed() else ", closed"
    return f"the event loop {type(loop).__name__} at {id(loop):#x}{state}"


class Forked(Protocol):
    """Be told in a child process that it was forked."""

    def forked(self) -> None:
        """Let go of what belongs to the parent, without touching it."""


_alive: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_when_forked(router: Forked) -> None:
    """Call ``router.forked()`` in every child process from now on, as long as the router exists."""
    _alive.add(router)


def _forked() -> None:
    for router in list(_alive):
        _keep_for_ever(router)
        router.forked()
    _alive.clear()


def _keep_for_ever(thing: object) -> None:
    """Keep an object, and all that it refers to, from being finalized, even at the end of the process.

    Tasks, transports and coroutines of the parent's loop would complain when collected, or, which is worse,
    run their clean-up. A reference that nobody holds is the only one that also outlives the modules.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forked)
