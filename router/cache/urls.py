"""Where a server of the cache is: a URL taken apart, whose password shows nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from router.config.secret import Secret
from router.errors import ConfigurationError, Problem

_PORTS = {"redis": 6379, "rediss": 6379, "memcached": 11211}
_OPTIONS = {"rediss": {"ssl_ca_certs"}}
_REMEDY = "Write redis://[user:password@]host[:port][/database], rediss://... or memcached://host[:port]."


@dataclass(frozen=True, slots=True)
class CacheUrl:
    """Hold the parts of a cache server's URL; ``authority`` is the path of a file for ``rediss``."""

    kind: str  # redis, rediss or memcached
    host: str
    port: int
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    authority: str | None = None

    def __str__(self) -> str:
        place = f"{self.kind}://{self.host}:{self.port}"
        return place if self.kind == "memcached" else f"{place}/{self.database}"


def parse_url(url: str | Secret) -> CacheUrl:
    """Return the parts of ``url``.

    Raises ConfigurationError, which repeats nothing of it: whatever is written wrongly may be the password.
    """
    found = _parsed(url.reveal() if isinstance(url, Secret) else url)
    if isinstance(found, str):
        raise ConfigurationError([Problem("cache", 0, 0, found, _REMEDY)])
    return found


def _parsed(text: str) -> CacheUrl | str:
    """Return the parts, or what is wrong."""
    try:
        parts = urlsplit(text)
        port, path = parts.port, parts.path.strip("/")
    except ValueError:
        return "the URL of the cache server cannot be read"
    kind = parts.scheme
    if kind not in _PORTS or not parts.hostname:
        return "the URL of the cache server has no host, or another scheme than redis, rediss and memcached"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not options.keys() <= _OPTIONS.get(kind, set()) or parts.fragment:
        return "the URL of the cache server has options that do not exist"
    if kind == "memcached" and (path or parts.username or parts.password):
        return "memcached has neither databases nor users: leave them out of its URL"
    if path and not (path.isascii() and path.isdigit()):
        return "the database in the URL of the cache server is not a number"
    return CacheUrl(
        kind,
        parts.hostname,
        port or _PORTS[kind],
        int(path or 0),
        unquote(parts.username) if parts.username else None,
        Secret(unquote(parts.password)) if parts.password else None,
        options.get("ssl_ca_certs"),
    )
