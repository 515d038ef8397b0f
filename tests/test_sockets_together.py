"""Two messages of different writers that go out in one packet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.drivers import sockets
from router.drivers.sockets import corkable, together

WRITES = 50


class Line:
    """Be the client of a server that notes in which pieces it was sent something, and answers each."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1_000):
            self.pieces.append(piece)
            writer.write(b"!")
        writer.close()


@pytest.fixture
async def line() -> AsyncIterator[tuple[Line, Any, asyncio.StreamReader]]:
    """Connect to such a server."""
    made = Line()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    yield made, writer.transport, reader
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_what_is_written_together_arrives_together(
    line: tuple[Line, Any, asyncio.StreamReader],
) -> None:
    """The server wakes up once; the answer is that of the second writer."""
    seen, transport, reader = line
    link = corkable(transport)
    assert link is not None

    async def second() -> bytes:
        transport.write(b"second")
        return await reader.readexactly(1)

    for _ in range(WRITES):
        assert await together(transport, link, b"first ", second()) == b"!"
    assert seen.pieces == [b"first second"] * WRITES
    transport.write(b"alone")  # is not held back
    assert await asyncio.wait_for(reader.readexactly(1), 1) == b"!"


async def test_without_a_cork_it_is_written_all_the_same(
    line: tuple[Line, Any, asyncio.StreamReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Unix socket, or on another system."""
    seen, transport, _ = line
    monkeypatch.setattr(sockets, "_CORK", None)
    assert corkable(transport) is None

    async def second() -> int:
        transport.write(b"second")
        return 7

    assert await together(transport, None, b"first ", second()) == 7
    while b"".join(seen.pieces) != b"first second":  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("early", [True, False])
async def test_what_becomes_of_the_second_writer_is_passed_on(
    line: tuple[Line, Any, asyncio.StreamReader], early: bool
) -> None:
    """Its failure, before it has waited or after; a cancellation reaches it; nothing stays held back."""
    _, transport, reader = line
    link, told = corkable(transport), []

    async def fails() -> None:
        if not early:
            await asyncio.sleep(0)
        raise LookupError

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            await asyncio.sleep(0)
            raise

    with pytest.raises(LookupError):
        await together(transport, link, b"first", fails())
    assert await asyncio.wait_for(reader.readexactly(1), 1) == b"!"

    async def run() -> None:
        await together(transport, link, b"again", waits())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["cancelled"]
    assert await asyncio.wait_for(reader.readexactly(1), 1) == b"!"
