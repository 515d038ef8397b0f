"""How the console writes numbers: short, with the unit that suits them, a dash for what is not known."""

import pytest

from router.developing import request_row
from router.picture import Second
from router.waits import Waits
from router.web import shown
from router.web.shown import clock, count, duration, iso, line, parts, rate, share, size, told
from tests.telling import finished


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, shown.UNKNOWN),
        (0.0, "0 ms"),
        (0.00000123, "0.00 ms"),
        (0.000456, "0.46 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.00 s"),
        (59.96, "60.0 s"),
        (119.7, "120 s"),
        (150.0, "2 min 30 s"),
        (3599.7, "1 h 00 min"),
        (90_000.0, "25 h 00 min"),
    ],
)
def test_console_writes_durations(seconds: float | None, text: str) -> None:
    """Three digits, from microseconds to days."""
    assert duration(seconds) == text


def test_console_writes_numbers() -> None:
    """Thousands are apart, unknown ones are a dash, rates and shares have no more digits than they need."""
    assert (count(1234567), count(-1), count(None)) == ("1,234,567", shown.UNKNOWN, shown.UNKNOWN)
    assert (rate(0.001), rate(0.25), rate(12.34), rate(1234.5)) == ("0", "0.25", "12.3", "1,234")
    assert (size(0), size(1023), size(1536), size(200 * 2**20), size(2**50)) == (
        *("0 B", "1023 B", "1.5 KiB", "200 MiB", "1024 TiB"),
    )
    assert (share(0.1234), share(None)) == ("12.3%", shown.UNKNOWN)
    assert (clock(3661.0), iso(3661.0)) == ("01:01:01", "1970-01-01T01:01:01Z")


def test_console_draws_the_steps_of_a_request() -> None:
    """The parts fill the bar; the pauses between attempts are one of them, what cannot be seen is none."""
    row = request_row(finished(lookup=0.000001, waits=Waits(queue=0.1), execute=0.2, total=0.4))
    found = parts(row)
    assert [(each.name, round(each.width)) for each in found] == [
        ("queue", 25),
        ("execute", 50),
        ("other", 25),
    ]
    assert found[-1].x + found[-1].width == pytest.approx(100, abs=0.1)
    assert told(found) == "queue 100 ms, execute 200 ms, other 100 ms"
    assert parts(request_row(finished())) == []


def test_console_draws_the_last_minute() -> None:
    """The newest second is at the right, the highest at the top; an empty minute is an empty line."""
    seconds = [Second(1.0, 10.0, 0.0), Second(2.0, 20.0, 5.0)]
    assert line(seconds, "requests") == "118.0,12.0 120.0,0.0"
    assert line(seconds, "errors") == "118.0,24.0 120.0,18.0"
    assert line([], "requests") == ""
