"""A process that writes in every way until it is killed, and says of each write that it was answered.

Run by the tests: ``python -m tests.audit_load TABLE``, with the configuration as JSON on stdin. It prints a
line for each answer, right after it: the actor that the write's record must name.
"""

import asyncio
import json
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import text

from router import Router, acting, parse
from router.transaction import Transaction

WRITERS = 6


async def _write(router: Router, way: int, table: str, name: str) -> None:
    insert, session = f"INSERT INTO {table} (name) VALUES (:name)", router.session("acme")
    if way == 0:
        await session.execute(insert, {"name": name})
    elif way == 1:
        async with session.transaction() as tx:
            await tx.execute(insert, {"name": name})
    elif way == 2:

        async def both(tx: Transaction) -> None:
            await tx.execute(insert, {"name": name})

        await session.run(both)
    else:
        async with session.orm() as orm:
            await orm.execute(text(insert), {"name": name})


async def _load(router: Router, number: int, table: str) -> None:
    for turn in count():
        name = f"{number}-{turn}"
        with acting(actor=name):
            await _write(router, turn % 4, table, name)
        os.write(1, f"{name}\n".encode())


async def main() -> None:
    """Write until the process is killed."""
    given: dict[str, Any] = json.load(sys.stdin)
    async with Router.open(parse(given["document"], Path(given["folder"]))) as router:
        await asyncio.gather(*(_load(router, number, sys.argv[1]) for number in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main())
