"""Tenants that change places while all work: suspended, moved on the server, found there by a reload."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router import Router
from router.errors import TenantSuspended
from router.leaks import LeakCheck
from tests.leaks.models import MOST, Model, Schemas
from tests.leaks.world import Servers, configured

_BETWEEN = 0.5  # seconds that all go on in their new places


async def swap(
    router: Router, check: LeakCheck, folder: Path, servers: Servers, made: Sequence[Model], times: int
) -> None:
    """Let two tenants change places, an even number of ``times``, so that all are where they were."""
    model = next(each for each in made if each.name == Schemas.name)
    one, other = model.tenants[:2]
    before, check.expected = check.expected, (*check.expected, TenantSuspended)
    database, places = model.engine.database(""), {one: one, other: other}

    async def reload(most: int, own: Mapping[str, dict[str, Any]]) -> None:
        await router.reload(configured(folder, servers, made, most=most, own=own))

    for turn in range(times):
        # another maximum each time: connections are let go, and others opened, meanwhile
        await reload(MOST - turn % 2, {each: {"suspended": True} for each in places})
        # their sessions would go on with what they have; nothing tells of a visit's end
        while any(check.busy[each] for each in places):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        text = f"ALTER SCHEMA {one} RENAME TO moving; ALTER SCHEMA {other} RENAME TO {one}"
        text = f"BEGIN; {text}; ALTER SCHEMA moving RENAME TO {other}; COMMIT"
        await asyncio.to_thread(servers.postgresql.run, text, database)
        await asyncio.to_thread(servers.postgresql.wait_for_replicas)
        places = {one: places[other], other: places[one]}
        await reload(MOST - turn % 2, {tenant: {"schema": place} for tenant, place in places.items()})
        await asyncio.sleep(_BETWEEN)
    check.expected = before
