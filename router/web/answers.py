"""How everything is answered: nothing is stored, nothing is guessed, and HEAD has no body."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.picture import encode

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # of pages that load anything; a console says more
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Plainly:
    """Add the headers that every answer has, refusals included, and leave the body out where HEAD asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, answer)


def json(value: object, status: int = 200, headers: MutableMapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; rows of a picture may be in it."""
    return Response(encode(value), status, headers, "application/json")


def refusal(status: int, error: str, **headers: Any) -> Response:
    """Return an answer that says why there is no other; underscores in the names of headers are dashes."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return json({"error": error}, status, named)
