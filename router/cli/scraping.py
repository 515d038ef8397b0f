"""Ask running processes how their caches fare: each has a memory of its own, and says so in its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from router.cache.tally import Tally

_MOST: Final = 32 * 1024 * 1024  # bytes of an answer
_PREFIX: Final = "router_cache_"
_COUNTS: Final = {"hit": "hits", "joined": "joined", "remote": "remote", "miss": "misses"}
_REASONS: Final = {"bypasses_total": "bypasses", "refusals_total": "refused", "unstored_total": "unstored"}


@dataclass(frozen=True, slots=True)
class Process:
    """Hold what one process said, or why it said nothing."""

    url: str
    error: str | None = None
    totals: dict[str, int] = field(default_factory=dict)  # entries, bytes, evictions_total, flushes_total
    tenants: dict[str, Tally] = field(default_factory=dict)


def flaw(url: str) -> str | None:
    """Return why a URL cannot be asked; it is not repeated, for it may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "does not begin with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "holds a user or a password, which others could see. Let the endpoint be asked without"
    return None


def ask(urls: Iterable[str], timeout: float) -> list[Process]:
    """Ask all endpoints at once, each for ``timeout`` seconds at most."""
    with ThreadPoolExecutor(32) as threads:
        return list(threads.map(partial(_ask, timeout=timeout), urls))


def _ask(url: str, timeout: float) -> Process:
    try:
        with urlopen(url, timeout=timeout) as answer:  # noqa: S310  # only http and https, see flaw()
            text = answer.read(_MOST).decode("utf-8")
        return parse(url, text)
    except URLError as exc:
        return Process(url, str(exc.reason))
    except OSError as exc:
        return Process(url, str(exc) or type(exc).__name__)
    except ValueError:
        return Process(url, "the answer is not in the format of Prometheus")


def parse(url: str, text: str) -> Process:
    """Return what the metrics of a process say of its cache; raises ValueError for what are no metrics."""
    found = Process(url, None, {}, {})
    seen = False
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(_PREFIX):
                seen = True
                _take(found, sample.name.removeprefix(_PREFIX), sample)
    return found if seen else Process(url, "there is no router behind it, or it is not open")


def _take(found: Process, name: str, sample: Sample) -> None:
    tenant = sample.labels.get("tenant")
    if tenant is None:
        if not sample.labels or name == "flushes_total":  # these are counted by why
            found.totals[name] = found.totals.get(name, 0) + int(sample.value)
        return
    tally = found.tenants.setdefault(tenant, Tally())
    reason = sample.labels.get("reason", "")
    if name == "requests_total":
        attribute = _COUNTS.get(sample.labels.get("result", ""))
        if attribute is not None:  # bypasses are counted by reason
            setattr(tally, attribute, int(sample.value))
    elif name in _REASONS:
        getattr(tally, _REASONS[name])[reason] = int(sample.value)
    elif name == "saved_seconds_total":
        tally.saved = sample.value
