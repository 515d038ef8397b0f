"""Move money between accounts, many times at once, without losing or making any.

The check and the change are one statement, so no other transfer can come between them: the row is changed
only while the balance is enough, and ``rowcount`` says whether it was. ``session.run`` repeats the whole
function after a deadlock, a serialization failure or a lock that did not come free.
"""

import asyncio
import tempfile

from router import Failure, Router, Success, Transaction, capture, parse
from router.errors import RouterError

ACCOUNTS = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0))"
TRANSFERS = "CREATE TABLE transfers (source INTEGER, target INTEGER, cents INTEGER)"


class NotPossible(Exception):
    """Say why a transfer was refused."""


async def transfer(tx: Transaction, source: int, target: int, cents: int) -> None:
    """Move ``cents``; everything or nothing, because it runs in one transaction."""
    taken = await tx.execute(
        "UPDATE accounts SET cents = cents - :cents WHERE id = :id AND cents >= :cents",
        {"id": source, "cents": cents},
    )
    if taken.rowcount != 1:
        raise NotPossible(f"account {source} does not have {cents} cents")
    given = await tx.execute(
        "UPDATE accounts SET cents = cents + :cents WHERE id = :id", {"id": target, "cents": cents}
    )
    if given.rowcount != 1:
        raise NotPossible(f"there is no account {target}")
    await tx.execute(
        "INSERT INTO transfers (source, target, cents) VALUES (:source, :target, :cents)",
        {"source": source, "target": target, "cents": cents},
    )


async def attempt(router: Router, source: int, target: int, cents: int) -> str:
    """Make one transfer in a session of its own and say what became of it."""
    try:
        async with router.session("acme") as session:
            match await capture(session.run(transfer, source, target, cents)):
                case Success():
                    return "done"
                case Failure(RouterError() as error):
                    return type(error).__name__
    except NotPossible:
        return "refused"


async def main() -> None:
    """Make fifty transfers at once and check the books."""
    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            {
                "version": 1,
                "clusters": {"main": {"engine": "sqlite", "primary": {"path": folder}}},
                "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
            }
        )
        async with Router.open(config) as router:
            await router.execute(ACCOUNTS, tenant="acme")
            await router.execute(TRANSFERS, tenant="acme")
            await router.execute_many(
                "INSERT INTO accounts (id, cents) VALUES (:id, :cents)",
                [{"id": number, "cents": 1000} for number in range(1, 6)],
                tenant="acme",
            )
            outcomes = await asyncio.gather(
                *(attempt(router, n % 5 + 1, n % 3 + 3, 300) for n in range(49)), attempt(router, 1, 99, 1)
            )
            done, refused = outcomes.count("done"), outcomes.count("refused")
            total = await router.fetch_value("SELECT sum(cents) FROM accounts", tenant="acme")
            noted = await router.fetch_value("SELECT count(*) FROM transfers", tenant="acme")
            print(f"{done + refused} of {len(outcomes)} transfers were made or refused")
            print(f"total {total} cents, books agree: {noted == done}")


asyncio.run(main())
