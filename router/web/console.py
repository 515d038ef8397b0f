"""The console: one page for people, rendered here, kept up to date by its own small script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from router.errors import RouterError
from router.live import Live
from router.pacing import paced, politely
from router.picture import Picture
from router.web.answers import refusal
from router.web.feed import Feed, watch
from router.web.guard import COOKIE, SESSION, Guard, Verdict
from router.web.shown import FILTERS

KIND: Final = "html"
"""The form that pictures have in the console's stream: a JSON text of its main part, rendered."""

_LONGEST: Final = 4096  # bytes of a form
_STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


class Console:
    """Show pictures of ``live`` to who is welcome, and a form for the token to others."""

    def __init__(self, live: Live, guard: Guard) -> None:
        self._live, self._guard = live, guard
        self._templates = Environment(
            loader=PackageLoader("router.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters.update(FILTERS)
        folder = files("router.web") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    def render(self, picture: Picture) -> bytes:
        """Return a picture in the form of :data:`KIND`."""
        with politely():
            return json.dumps(self._render("live.html", p=picture)).encode()

    def _render(self, template: str, **given: Any) -> str:
        return "".join(paced(self._templates.get_template(template).generate(given)))

    def routes(self, feed: Feed) -> list[BaseRoute]:
        """Return what is served; pictures come from ``feed``."""

        async def stream(request: Request) -> Response:
            verdict = self._guard.judge(request)
            return watch(feed, KIND) if verdict is Verdict.WELCOME else self._guard.refuse(verdict, request)

        return [
            Route("/console", self.page),
            Route("/console/login", self.log_in, methods=["POST"]),
            Route("/console/logout", self.log_out, methods=["POST"]),
            Route("/console/stream", stream),
            Route("/console/static/{name}", self.static),
        ]

    async def page(self, request: Request) -> Response:
        """Answer with the page, or with the form for who is not known."""
        if self._guard.judge(request) is not Verdict.WELCOME:
            return self._form("console/")
        try:
            picture = await self._live.picture()
        except RouterError as error:
            return refusal(503, error.message)
        return _html(await asyncio.to_thread(self._render, "console.html", p=picture, root="console/"))

    def _form(self, root: str, error: str = "", status: int = 200) -> Response:
        return _html(self._render("login.html", root=root, error=error), status)

    async def log_in(self, request: Request) -> Response:
        """Begin a session for who knows the token."""
        verdict = self._guard.judge_token(request, await _token(request))
        if verdict is Verdict.PAUSED:
            answer = self._form("", "Too many wrong tokens. Wait a moment before you try again.", 429)
            answer.headers["Retry-After"] = str(self._guard.pause(request))
            return answer
        if verdict is not Verdict.WELCOME:
            return self._form("", "This is not the token.", 401)
        answer = RedirectResponse("../console", 303)
        self._cookie(request, answer.set_cookie, value=self._guard.session(), max_age=SESSION)
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session in this browser."""
        answer = RedirectResponse("../console", 303)
        self._cookie(request, answer.set_cookie, value="", max_age=0)
        return answer

    def _cookie(self, request: Request, set_cookie: Callable[..., None], **given: Any) -> None:
        # lax: a link in a chat leads to the page, not to the form; nothing can be changed there anyway
        set_cookie(
            COOKIE,
            **given,
            path=f"{request.scope.get('root_path', '')}/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )

    async def static(self, request: Request) -> Response:
        """Answer with the style sheet, the script or the icon, which are no secret."""
        name = request.path_params["name"]
        if name not in self._static:
            return refusal(404, "there is no such file")
        return Response(self._static[name], media_type=_STATIC[name])


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, {"Content-Security-Policy": _POLICY})


async def _token(request: Request) -> str:
    """Return what was typed into the form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST:
            return ""
    return parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
