"""Two tenants on SQLite: writes go to the writer, reads to a reader, and each tenant has its own file."""

import asyncio
import tempfile

from router import Config, Router, is_unique_violation, parse
from router.errors import RouterError


def configuration(folder: str) -> Config:
    """Return a configuration in code; in a service it is a folder of YAML files."""
    tenants = {
        name: {"cluster": "main", "isolation": "database", "database": name} for name in ("acme", "globex")
    }
    clusters = {"main": {"engine": "sqlite", "primary": {"path": folder}, "readers": 2}}
    return parse({"version": 1, "clusters": clusters, "tenants": tenants})


async def main() -> None:
    """Create a table for each tenant, write, read, and meet an error."""
    with tempfile.TemporaryDirectory() as folder:
        async with Router.open(configuration(folder)) as router:
            for tenant in ("acme", "globex"):
                await router.execute(
                    "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT UNIQUE, seats INTEGER)",
                    tenant=tenant,
                )
            async with router.session("acme") as session:
                made = await session.execute(
                    "INSERT INTO plans (name, seats) VALUES (:name, :seats)", {"name": "team", "seats": 5}
                )
                print("key", made.lastrowid)
                plan = await session.fetch_one("SELECT * FROM plans WHERE name = :name", {"name": "team"})
                assert plan is not None
                print(f"{plan.name} has {plan['seats']} seats")
                try:
                    await session.execute("INSERT INTO plans (name) VALUES ('team')")
                except RouterError as error:
                    print("exists already:", is_unique_violation(error))
            print(
                "globex has", await router.fetch_value("SELECT count(*) FROM plans", tenant="globex"), "plans"
            )

            for sql in ("SELECT * FROM plans", "DELETE FROM plans"):
                route = router.explain(sql, tenant="acme")
                print(f"{sql}: {route.role}, because {route.reason}")


asyncio.run(main())
