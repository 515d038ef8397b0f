"""A relay between the router and PostgreSQL that loses one COMMIT, or the answer to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

_COMMIT = b"COMMIT\0"


class Loss(Enum):
    """Say what becomes of the next COMMIT."""

    NONE = "none"
    QUESTION = "question"  # it does not arrive, and the server sees the connection end
    ANSWER = "answer"  # the server commits, and its answer does not arrive
    LATE = "late"  # it does not arrive, and the server sees the connection end later: see Relay.let_go


class Relay:
    """Pass bytes on to ``target``, a port of the loopback, and lose what :attr:`loss` says, once."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.loss = Loss.NONE
        self.port = 0
        self.dark = False  # whether all other connections end with the loss, and new ones are refused
        self.lost = asyncio.Event()
        self.let_go = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator["Relay"]:
        """Take connections until the end of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        answers = asyncio.create_task(self._pass(far_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.loss is Loss.NONE or _COMMIT not in data:
                    far_writer.write(data)
                    continue
                answers.cancel()
                await asyncio.wait((answers,))  # it has let go of the reader
                await self._lose(data, far_reader, far_writer, writer)
                return
        finally:
            answers.cancel()
            far_writer.close()

    async def _lose(
        self,
        data: bytes,
        reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        loss, self.loss = self.loss, Loss.NONE
        if loss is Loss.ANSWER:
            far_writer.write(data)
            await reader.read(65536)  # the server has answered
        if self.dark:  # before anybody can ask
            self.target = 1
            for task in self._tasks - {asyncio.current_task()}:  # type: ignore[arg-type]
                task.cancel()
        self.lost.set()
        writer.close()
        if loss is Loss.LATE:
            await self.let_go.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()
