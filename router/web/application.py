"""The ASGI application: what is served at which path, and to whom."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import router as package
from router.config import Secret
from router.config.observability import ConsoleConfig
from router.errors import RouterError, UsageError
from router.live import Live
from router.picture import encode
from router.router import Router
from router.slowlog import SlowLog
from router.web.answers import Plainly, json, refusal
from router.web.console import KIND, Console
from router.web.feed import Feed, Render, watch
from router.web.guard import Guard, Verdict
from router.web.health import Health, Readiness

_DIGITS = 7  # of a limit that is taken for one
Endpoint = Callable[[Request], Awaitable[Response]]


class Pages:
    """Answer for one router."""

    def __init__(self, router: Router, guard: Guard | None, readiness: Readiness) -> None:
        self._router, self._guard = router, guard
        self._health = Health(router, readiness, time.monotonic)

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics in the format that is asked for."""
        accept, metrics = request.headers.get("accept", ""), self._router.metrics
        return Response(await metrics.scrape(accept), headers={"Content-Type": metrics.content_type(accept)})

    async def live(self, request: Request) -> Response:
        """Answer that the process answers."""
        return json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answer whether requests can be served, and why not; who knows the token is told about each node."""
        reasons = await self._health.reasons()
        answer: dict[str, object] = {
            "ready": not reasons,
            "reasons": [each._asdict() for each in reasons],
        }
        if self._guard is not None and self._guard.judge(request) is Verdict.WELCOME:
            answer["nodes"] = self._health.nodes()
        return json(answer, 503 if reasons else 200)


class Watching:
    """Show the pictures of one router to who knows the token."""

    def __init__(self, live: Live, feed: Feed, slowlog: SlowLog) -> None:
        self._live, self._feed, self._slowlog = live, feed, slowlog

    async def status(self, request: Request) -> Response:
        """Answer with one picture as JSON."""
        try:
            picture = await self._live.picture()
        except RouterError as error:
            return refusal(503, error.message)
        return Response(await asyncio.to_thread(encode, picture), media_type="application/json")

    async def slow(self, request: Request) -> Response:
        """Answer with what each statement has cost: ``limit`` of them, a hundred if not said."""
        asked = request.query_params.get("limit", "100")
        if not (asked.isascii() and asked.isdigit() and len(asked) < _DIGITS):
            return refusal(400, "limit is not a number")
        body = await asyncio.to_thread(self._statements, int(asked))
        return Response(body, media_type="application/json")

    def _statements(self, limit: int) -> bytes:
        digests = [each.json() for each in self._slowlog.digests(limit)]
        return encode({"version": package.__version__, "pid": os.getpid(), "digests": digests})

    async def stream(self, request: Request) -> Response:
        """Answer with a picture a second."""
        return watch(self._feed, "json")


def app(
    router: Router,
    *,
    console: bool | None = None,
    token: str | Secret | None = None,
    readiness: Readiness | None = None,
    protect_metrics: bool = False,
    viewers: int = 16,
) -> App:
    """Return an ASGI application that shows ``router``, whose event loop it must run on.

    ``console`` and ``token`` are those of the configuration, ``observability.console``, if left out. Without
    a token there are /metrics and /health only, and no console; ``protect_metrics`` asks for it at /metrics
    too. ``viewers`` may watch at the same time.

    Raises UsageError for a console without a token, and for a token of fewer than 16 characters.
    """
    settings = router.config.observability.console
    secret = _secret(token, settings)
    wanted = settings.enabled if console is None else console
    if secret is None and (wanted or protect_metrics):
        what = "the console" if wanted else "protect_metrics"
        raise UsageError(f"{what} needs a token. Pass token=..., or configure observability.console.token")
    return App(router, secret, readiness or Readiness(), wanted, protect_metrics, viewers)


def _secret(token: str | Secret | None, settings: ConsoleConfig) -> Secret | None:
    if token is None:
        return None if settings.token is None else settings.token.resolve()
    return token if isinstance(token, Secret) else Secret(token)


class App(Starlette):
    """Serve a router; ``close`` ends what would go on for ever."""

    def __init__(
        self,
        router: Router,
        token: Secret | None,
        readiness: Readiness,
        console: bool,
        protect_metrics: bool,
        viewers: int,
    ) -> None:
        guard = None if token is None else Guard(token, time.monotonic)
        pages = Pages(router, guard, readiness)
        protected = _protected(guard)
        routes: list[BaseRoute] = [
            Route("/metrics", protected(pages.metrics) if protect_metrics else pages.metrics),
            Route("/health/live", pages.live),
            Route("/health/ready", pages.ready),
        ]
        self._live: Live | None = None
        self._feed: Feed | None = None
        if guard is not None:
            kinds: dict[str, Render] = {"json": encode}
            self._live = Live(router)
            shown = Console(self._live, guard) if console else None
            if shown is not None:
                kinds[KIND] = shown.render
            self._feed = Feed(self._live, kinds, most=viewers)
            watching = Watching(self._live, self._feed, router.slowlog)
            routes += [
                Route("/status", protected(watching.status)),
                Route("/slow", protected(watching.slow)),
                Route("/status/stream", protected(watching.stream)),
                *([] if shown is None else shown.routes(self._feed)),
            ]
        super().__init__(routes=routes, middleware=[Middleware(Plainly)])

    def close(self) -> None:
        """Send all viewers away and listen to the router no more."""
        if self._feed is not None and self._live is not None:
            self._feed.close()
            self._live.close()


def _protected(guard: Guard | None) -> Callable[[Endpoint], Endpoint]:
    """Return what lets only those reach an endpoint whom ``guard`` welcomes."""

    def protect(endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            verdict = Verdict.STRANGER if guard is None else guard.judge(request)
            if guard is not None and verdict is not Verdict.WELCOME:
                return guard.refuse(verdict, request)
            return await endpoint(request)

        return guarded

    return protect
