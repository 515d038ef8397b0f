"""How the listeners of events fare, read when metrics are rendered: counting it costs an emit nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from router.listeners import ListenerStats
from router.metrics.families import Family, Numbers

_FAMILIES = (
    ("listener_errors", "Calls of listeners that failed", "counter", "failed"),
    ("events_dropped", "Events that listeners did not get", "counter", "dropped"),
    ("listener_queue", "Events that wait for an async listener", "gauge", "queued"),
    ("listener_muted", "Listeners that are not called any more because they failed", "gauge", "muted"),
)


def families(listeners: Iterable[ListenerStats], prefix: str) -> Iterator[Family]:
    """Yield the counts of all listeners, added up by name: two may share their code and so their name."""
    found = list(listeners)
    for name, text, kind, attribute in _FAMILIES:
        sums: dict[str, int] = {}
        for each in found:
            sums[each.name] = sums.get(each.name, 0) + int(getattr(each, attribute))
        rows = [((listener,), count) for listener, count in sums.items()]
        yield Numbers(f"{prefix}{name}", text, kind, ("listener",), rows)
