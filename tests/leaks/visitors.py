"""Visitors that know the tables of ``tests.leaks.models``: types, labels, and a table that changes."""

from router.drivers.driver import Binding
from router.errors import DatabaseError, StaleStatement
from router.visiting import Visit
from tests.leaks.models import shape


async def reads_moods(visit: Visit) -> None:
    """Read labels of an enum that every place has a type of its own for, under one text."""
    rows = await visit.session.fetch_all("SELECT mood FROM told")
    visit.see([row.mood for row in rows], least=2)
    given = {"mood": visit.tenant}
    rows = await visit.session.fetch_all("SELECT tenant FROM told WHERE mood = :mood", given)
    visit.see([row.tenant for row in rows], least=2)


async def reads_shapes(visit: Visit) -> None:
    """Read a column that is a number for some tenants and text for others, under one text."""
    rows = await visit.session.fetch_all("SELECT shape FROM told", primary=visit.rng.random() < 0.3)
    visit.see([row.shape for row in rows], owner=shape(visit.tenant), least=2)
    given = {"shape": shape(visit.tenant)}
    rows = await visit.session.fetch_all("SELECT tenant FROM told WHERE shape = :shape", given)
    visit.see([row.tenant for row in rows], least=2)


async def reads_what_changes(visit: Visit) -> None:
    """Read with a star what another visitor gives a further column, alone and in a transaction."""
    rows = await visit.session.fetch_all("SELECT * FROM told")
    visit.see([row.tenant for row in rows], least=2)
    try:
        async with visit.session.transaction(readonly=True) as tx:
            rows = await tx.fetch_all("SELECT * FROM told")
    except StaleStatement as error:  # nothing can be repeated inside of a transaction
        visit.refuse(error)
        return
    visit.see([row.mood for row in rows], least=2)


async def changes_a_table(visit: Visit) -> None:
    """Give the tenant's table a further column now and then, or take it away."""
    if shared(visit) or visit.rng.random() < 0.7:
        return
    change = visit.rng.choice(("ADD COLUMN extra INT", "DROP COLUMN extra"))
    try:
        await visit.session.execute(f"ALTER TABLE told {change}")
    except DatabaseError as error:  # it has it already, or has it no more
        visit.refuse(error)
    await reads_what_changes(visit)


async def trespasses(visit: Visit) -> None:
    """Write and read another tenant's rows by name, where the server must refuse it."""
    other = visit.other.binding or Binding()
    if other == visit.place.binding or not (other.role or other.setting):
        return
    try:
        if other.setting:
            row = {**visit.row(0), "tenant": other.value}
            await visit.session.execute(visit.place.insert, row)
            visit.see([other.value])
        else:
            text = f"SELECT tenant FROM {other.schema}.{visit.place.table}"
            visit.see([row.tenant for row in await visit.session.fetch_all(text)])
    except DatabaseError as error:
        visit.refuse(error)
    await visit.read(primary=True)


def shared(visit: Visit) -> bool:
    """Tell whether the tenant's tables are those of others too."""
    return visit.place.binding is not None and visit.place.binding.setting is not None


VISITORS = (reads_moods, reads_shapes, reads_what_changes, changes_a_table, trespasses)
