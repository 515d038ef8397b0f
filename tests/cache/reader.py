"""A process that reads through the cache: ``python -m tests.cache.reader FOLDER``.

It writes the port of its metrics as a line, then for each line on stdin the names that it reads.
"""

import asyncio
import json
import sys

from prometheus_client import start_http_server

from router import Router


async def main(folder: str) -> None:
    """Answer until stdin ends."""
    async with Router.open(folder) as router:
        server, _ = start_http_server(0, "127.0.0.1", router.metrics.registry)
        print(server.server_port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            rows = await router.fetch_all("SELECT name FROM plans", tenant="acme", cache=600)
            print(json.dumps([row.name for row in rows]), flush=True)
        server.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
