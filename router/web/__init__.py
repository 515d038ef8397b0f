"""The router over HTTP: metrics, health, status and a console, to mount in any ASGI application or by itself.

``web.app(router)`` returns an ASGI application; ``async with web.serve(router) as served`` serves it from the
router's event loop.
"""

from router.errors import MissingExtra

try:
    from router.web.application import app
    from router.web.health import Readiness
    from router.web.serving import Served, serve
except ModuleNotFoundError as exc:
    package = (exc.name or "").partition(".")[0]
    if package not in ("starlette", "jinja2", "uvicorn"):
        raise
    raise MissingExtra(package, "web") from None

__all__ = ["app", "serve", "Served", "Readiness"]
