"""What a server's refusals mean for further attempts to connect: wait a while, or leave the account alone.

A server at its connection limit spends its strength on refusing; the connections that exist go on serving
meanwhile. A server that refuses a password may lock the account, for everybody, if it is asked too often.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from router.errors import AuthenticationFailed, RouterError, TooManyConnections

_FIRST, _MOST = 0.1, 5.0  # seconds: bound of the first wait after "too many connections", and of any
_LOGINS, _WITHIN, _BLOCKED = 10, 150.0, 120.0  # refused logins, in so many seconds, stop all for so many


class Refusals:
    """Say when the next connection may be opened; ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._in_row = 0
        self._until = 0.0
        self._last: RouterError | None = None
        self._logins: deque[float] = deque(maxlen=_LOGINS)
        self.blocked = False  # because of refused logins

    def pause(self) -> float:
        """Return the seconds until a connection may be opened, 0.0 if one may be now."""
        if self._last is None:
            return 0.0
        left = self._until - self._clock()
        if left > 0:
            return left
        if self.blocked:
            self.forget()
        return 0.0

    @property
    def probing(self) -> bool:
        """Tell whether the last attempt was refused, so that one at a time is enough."""
        return self._in_row > 0

    def refused(self, error: RouterError) -> None:
        """Take note of a failed attempt; only the two kinds of refusal matter."""
        now = self._clock()
        if isinstance(error, TooManyConnections):
            bound = min(_MOST, _FIRST * 2.0 ** min(self._in_row, 30))
            self._in_row += 1
            self._last, self._until = error, now + self._rng.uniform(0, bound)
        elif isinstance(error, AuthenticationFailed):
            self._logins.append(now)
            if len(self._logins) == _LOGINS and now - self._logins[0] <= _WITHIN:
                self._last, self._until, self.blocked = error, now + _BLOCKED, True

    def forget(self) -> None:
        """Start anew: a connection was established, or the password is another one."""
        self._in_row = 0
        self._last = None
        self.blocked = False
        self._logins.clear()

    def error(self) -> RouterError | None:
        """Return the server's last refusal as an error that says when it is asked again, if that is known."""
        last = self._last
        if last is None:
            return None
        left = max(self._until - self._clock(), 0.0)
        if self.blocked:
            more = (
                f"{_LOGINS} logins were refused within {_WITHIN:g} s; to keep the server from locking the "
                f"account none is tried for another {left:.3g} s, or until the password is another one. "
                "Correct the password or the user"
            )
        else:
            more = f"the server is asked again in {left:.2g} s. Lower connections.max, or raise its limit"
        again = type(last)(f"{last.message.rstrip('.')}; {more}", code=last.code)
        return again.at(cluster=last.cluster, node=last.node)
