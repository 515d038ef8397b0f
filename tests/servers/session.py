"""Ask a PostgreSQL server what its owner may ask, without starting ``psql``: text in, the server's texts out.

The simple query protocol, as far as the owner needs it on the Unix socket: no password, no TLS, one statement
at a time (PostgreSQL manual, chapter "Frontend/Backend Protocol"). asyncpg would give Python values where the
tests compare the server's own texts, and needs an event loop, in which many callers are already.
"""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_PROTOCOL = struct.pack("!I", 3 << 16)
_SILENT = b"TCINSK"  # columns, command tags, notices, settings, the key to cancel: psql is asked to hide them


class Refused(RuntimeError):
    """Say why a server has not answered."""


class Session:
    """One session of the owner. After an exception it is good for nothing but to be closed."""

    def __init__(self, address: Path, database: str, timeout: float) -> None:
        self._received = bytearray()
        self._end = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._connect(str(address), {"user": "postgres", "database": database, "client_encoding": "UTF8"})
        except BaseException:
            self.close()
            raise

    def ask(self, sql: str, timeout: float) -> str:
        """Run one statement by itself and return bare rows, columns apart by ``|``; forget what it has set.

        Raises Refused, and TimeoutError after ``timeout`` seconds.
        """
        self._end = time.monotonic() + timeout
        self._send(_message(b"Q", _text(sql)) + _message(b"Q", _text("DISCARD ALL")))
        answer = "\n".join(self._answer())
        list(self._answer())
        return answer

    @property
    def idle(self) -> bool:
        """Tell whether the server still waits for a statement: to say goodbye, it would have written."""
        waiting = select.poll()  # not select(), which knows no descriptor above 1023
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """End the session; of a forked process only its share of the socket."""
        self._socket.close()

    def _connect(self, address: str, settings: dict[str, str]) -> None:
        self._socket.settimeout(self._left())
        try:
            self._socket.connect(address)
        except (ConnectionError, FileNotFoundError) as exc:
            raise Refused(f"nothing listens on {address}: {exc}") from None
        body = _PROTOCOL + b"".join(_text(part) for pair in settings.items() for part in pair) + b"\0"
        self._send(_message(b"", body))
        list(self._answer())

    def _answer(self) -> Iterator[str]:
        """Give the rows that come before the server is ready again."""
        refusal: Refused | None = None
        while True:
            kind, body = self._receive(refusal)
            if kind == b"D":
                yield "|".join(_columns(body))
            elif kind == b"E":
                refusal = Refused(_complaint(body))
            elif kind == b"Z":
                break
            elif kind not in _SILENT and (kind, body) != (b"R", b"\0\0\0\0"):
                raise Refused(f"the server sends {kind!r}: for COPY and passwords there is psql")
        if refusal is not None:
            raise refusal

    def _receive(self, refusal: Refused | None) -> tuple[bytes, bytes]:
        try:
            kind, size = struct.unpack("!cI", self._take(5))
            return kind, self._take(size - 4)
        except ConnectionError as exc:
            raise refusal or Refused(f"the server has ended the session: {exc}") from None

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._socket.settimeout(self._left())
            if not (more := self._socket.recv(1 << 16)):
                raise ConnectionResetError("end of file")
            self._received += more
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        try:
            self._socket.sendall(data)
        except ConnectionError as exc:
            raise Refused(f"the server has ended the session: {exc}") from None

    def _left(self) -> float:
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError("the server has not answered in time")
        return left


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _columns(body: bytes) -> Iterator[str]:
    place = 2  # behind the number of columns
    while place < len(body):
        (size,) = struct.unpack_from("!i", body, place)
        place += 4
        yield body[place : place + max(size, 0)].decode()  # NULL, which psql shows as nothing, is -1
        place += max(size, 0)


def _complaint(body: bytes) -> str:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return f"{fields.get(b'S')} {fields.get(b'C')}: {fields.get(b'M')}"


class Sessions:
    """Keep one idle session for each of a few databases, and open others for a single statement.

    A session that stayed in a test's own database would be in the way of dropping or limiting it.
    """

    def __init__(self, address: Path, kept: Collection[str], timeout: float) -> None:
        self._address = address
        self._kept = kept
        self._timeout = timeout
        self._idle: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def ask(self, sql: str, database: str) -> str:
        """Run one statement in a database, see :meth:`Session.ask`."""
        session = self._take(database) or Session(self._address, database, self._timeout)
        try:
            answer = session.ask(sql, self._timeout)
        except BaseException:
            session.close()
            raise
        self._give(database, session)
        return answer

    def close(self) -> None:
        """End the idle sessions."""
        with self._lock:
            while self._idle:
                self._idle.popitem()[1].close()

    def _take(self, database: str) -> Session | None:
        if self._process != os.getpid():  # what was open before a fork is the parent's
            self.close()
            self._process = os.getpid()
        with self._lock:
            session = self._idle.pop(database, None)
        if session is None or session.idle:
            return session
        session.close()  # the server was restarted, say, or somebody has ended all sessions
        return None

    def _give(self, database: str, session: Session) -> None:
        with self._lock:
            if database in self._kept and database not in self._idle:
                self._idle[database] = session
                return
        session.close()
