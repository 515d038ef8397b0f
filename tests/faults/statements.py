"""Count the statements that a client sends, by the frames of its protocol; the texts are not looked at.

Frames may arrive in any pieces. A connection that turns to TLS is not counted from there on.
"""

import struct

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104  # PostgreSQL manual, "Message Formats"
_QUERY, _EXECUTE = ord("Q"), ord("E")
_COM_QUERY, _COM_STMT_EXECUTE = 0x03, 0x17  # MySQL internals manual, "Command Phase"
_CLIENT_SSL = 0x800
_MOST_KEPT = 16  # bytes of a frame that are needed to tell what it is


class Statements:
    """Count nothing: for a protocol that is not known."""

    def __init__(self) -> None:
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes that the client sent."""


class _Framed(Statements):
    header = 0  # bytes that hold the length of a frame

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()
        self._skip = 0  # bytes left of a frame that has been looked at
        self._opaque = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes that the client sent."""
        while data and not self._opaque:
            if self._skip:
                passed = min(self._skip, len(data))
                self._skip -= passed
                data = data[passed:]
                continue
            self._kept += data[:_MOST_KEPT]
            data = data[_MOST_KEPT:]
            data = self._frames() + data

    def _frames(self) -> bytes:
        """Look at the frame that begins what is kept; return the bytes that follow it."""
        if len(self._kept) < self.header:
            return b""
        length = self.length()
        needed = min(length, _MOST_KEPT)
        if len(self._kept) < needed:
            return b""
        self.look(bytes(self._kept[:needed]), length)
        rest = bytes(self._kept[needed:])
        self._kept.clear()
        self._skip = length - needed
        return rest

    def length(self) -> int:
        """Return the length of the frame that begins what is kept, its header included."""
        raise NotImplementedError

    def look(self, start: bytes, length: int) -> None:
        """Count the frame if it is a statement."""
        raise NotImplementedError


class PostgresqlStatements(_Framed):
    """Count simple queries and executions of prepared statements."""

    header = 8

    def __init__(self) -> None:
        super().__init__()
        self._started = False

    def length(self) -> int:
        if not self._started:  # the messages before the session have no type
            return int(struct.unpack_from("!i", self._kept)[0])
        return 1 + int(struct.unpack_from("!i", self._kept, 1)[0])

    def look(self, start: bytes, length: int) -> None:
        if self._started:
            self.count += start[0] in (_QUERY, _EXECUTE)
            return
        code = struct.unpack_from("!i", start, 4)[0]
        self._opaque = code in (_SSL_REQUEST, _GSS_REQUEST)
        self._started = True
        self.header = 5


class MysqlStatements(_Framed):
    """Count COM_QUERY and COM_STMT_EXECUTE."""

    header = 4

    def length(self) -> int:
        return 4 + int.from_bytes(self._kept[:3], "little")

    def look(self, start: bytes, length: int) -> None:
        if start[3] == 0 and length > 4:
            self.count += start[4] in (_COM_QUERY, _COM_STMT_EXECUTE)
        elif start[3] == 1 and length == 36:  # a request for TLS: a login without a name
            self._opaque = bool(int.from_bytes(start[4:8], "little") & _CLIENT_SSL)
