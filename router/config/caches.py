"""Check how the cache is set up: whether its parts fit together, and whether its secrets can be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from router.config.keys import MAKE, SHORTEST, written_out
from router.config.models import CacheConfig, ClusterConfig, RemoteCacheConfig
from router.config.problems import Found, Loc

KEY: Loc = ("cache", "remote", "key")
_URL: Loc = ("cache", "remote", "url")
_BROADCAST: Loc = ("cache", "broadcast")
_SCHEMES = ("redis", "rediss", "memcached")


def check(cache: CacheConfig, clusters: Collection[ClusterConfig]) -> Iterator[Found]:
    """Yield what is wrong with the section, beside these clusters."""
    remote = cache.remote
    if remote is not None:
        yield from _check_remote(remote)
    if cache.broadcast == "redis" and (remote is None or _scheme(remote) not in ("redis", "rediss")):
        remedy = "Give it as cache.remote.url, or choose postgresql or none"
        yield Found(_BROADCAST, "is redis, but there is no Redis to broadcast through", remedy)
    served = [each for each in clusters if each.engine == "postgresql"]
    if cache.broadcast == "postgresql" and (not served or any(each.pooler for each in served)):
        fact = "is postgresql, but NOTIFY needs a session of its own, which a pooler does not lend"
        if not served:
            fact = "is postgresql, but there is no cluster of that engine"
        yield Found(_BROADCAST, fact, "Choose redis, none, or alone if this process is the only writer")
    if cache.largest > cache.size > 0:
        yield Found(("cache", "largest"), "is more than cache.size", "Lower it, or raise cache.size")


def _check_remote(remote: RemoteCacheConfig) -> Iterator[Found]:
    for loc, secret in ((_URL, remote.url), (KEY, remote.key)):
        if (flaw := secret.flaw()) is not None:
            yield Found(loc, flaw.fact, flaw.remedy)
            return
    if _scheme(remote) not in _SCHEMES:
        # not repeated: it may hold a password
        yield Found(
            _URL, "is not the URL of a cache", f"Begin it with {', '.join(f'{s}://' for s in _SCHEMES)}"
        )
    if len(remote.key.resolve().reveal()) < SHORTEST:
        yield Found(KEY, f"has fewer than {SHORTEST} characters", MAKE)


def remarks(cache: CacheConfig, *, in_file: bool) -> Iterator[Found]:
    """Yield what is allowed but risky: secrets that more people may read than have to."""
    remote = cache.remote
    if remote is None:
        return
    for path in (*remote.key.exposed(), *remote.url.exposed()):
        fact = f"is in {path}, which every user of this machine may read"
        yield Found(("cache", "remote"), fact, "Take the permission away: chmod o-r")
    if in_file and written_out(remote.key):
        fact = "is written out: whoever reads this file can sign values"
        yield Found(KEY, fact, "Write ${env:NAME} or ${file:PATH} in its place")


def _scheme(remote: RemoteCacheConfig) -> str:
    if remote.url.flaw() is not None:
        return ""
    try:
        parts = urlsplit(remote.url.resolve().reveal())
        return parts.scheme if parts.hostname else ""
    except ValueError:
        return ""
