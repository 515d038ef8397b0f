"""How numbers, times and shares are written on the console."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from router.picture import RequestRow, Second

STEPS: Final = ("lookup", "queue", "connect", "bind", "catch_up", "execute", "fetch")
UNKNOWN: Final = "\u2013"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_NARROW = 0.005  # share of a bar below which a part is not drawn


class Part(NamedTuple):
    """Place one step in a bar that is 100 wide."""

    name: str
    seconds: float
    x: float
    width: float


def duration(seconds: float | None) -> str:
    """Return seconds with three digits and the unit that suits them."""
    if seconds is None:
        return UNKNOWN
    if not seconds:
        return "0 ms"
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    if seconds < 120:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def _three(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def rate(number: float) -> str:
    """Return a number a second."""
    return "0" if number < 0.005 else f"{number:,.0f}" if number >= 99.95 else _three(number)


def count(number: int | None) -> str:
    """Return a number with its thousands apart; unknown ones are negative or ``None``."""
    return UNKNOWN if number is None or number < 0 else f"{number:,}"


def size(number: float | None) -> str:
    """Return bytes in the unit that suits them."""
    if number is None:
        return UNKNOWN
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if number >= 100 or not unit else f"{number:.1f} {_UNITS[unit]}"


def share(number: float | None) -> str:
    """Return a share in percent."""
    return UNKNOWN if number is None else f"{number:.1%}"


def clock(at: float) -> str:
    """Return the time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def iso(at: float) -> str:
    """Return date and time in UTC, for machines."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ")


def parts(request: RequestRow) -> list[Part]:
    """Return the steps of a request, and the pauses between its attempts, as parts of a bar."""
    spent = [(name, getattr(request.steps, name)) for name in STEPS]
    known = sum(seconds for _, seconds in spent)
    spent.append(("other", max(request.total - known, 0.0)))
    whole = max(request.total, known)
    found, x = [], 0.0
    for name, seconds in spent:
        width = 100 * seconds / whole if whole else 0.0
        if width >= 100 * _NARROW:
            found.append(Part(name, seconds, round(x, 2), round(width, 2)))
        x += width
    return found


def told(found: Sequence[Part]) -> str:
    """Return the parts of a bar as words, for who does not see it."""
    return ", ".join(f"{words(each.name)} {duration(each.seconds)}" for each in found)


def line(seconds: Sequence[Second], which: str, width: float = 120.0, height: float = 24.0) -> str:
    """Return the points of a line over the last minute; its highest point is that of all requests."""
    top = max((each.requests for each in seconds), default=0.0) or 1.0
    first = width - width * (len(seconds) - 1) / 59
    return " ".join(
        f"{first + width * place / 59:.1f},{height - height * getattr(each, which) / top:.1f}"
        for place, each in enumerate(seconds)
    )


FILTERS: Final = {
    each.__name__: each for each in (duration, rate, count, size, share, clock, iso, words, parts, told, line)
}
