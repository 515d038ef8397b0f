"""An application as a user would write it, for servers that import it: ``tests.served:app``."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from router import Router, parse, web

router = Router.open(
    parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": os.environ["SERVED_FOLDER"]}}},
            "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
            "observability": {"console": {"enabled": True, "token": "${env:SERVED_TOKEN}"}},
        }
    )
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the router while the server runs."""
    async with router:
        yield


app = Starlette(routes=[Mount("/router", web.app(router))], lifespan=lifespan)
