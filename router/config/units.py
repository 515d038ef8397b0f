"""Durations and sizes as people write them: ``500ms``, ``5s``, ``10m``, ``8MiB``; always with a unit."""

from __future__ import annotations

import re

from router.config.problems import Flaw

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]{1,9}(B|KiB|MiB|GiB)$"

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")


def parse_duration(text: object) -> float:
    """Return the seconds in ``text`` such as ``500ms`` or ``1.5h``; raise :class:`Flaw` if it is none."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Flaw("must be a duration", "Write a number and a unit: 500ms, 5s, 10m, 1h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: object) -> int:
    """Return the bytes that ``text`` such as ``8MiB`` means; raise :class:`Flaw` if it is none."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Flaw("must be a size", "Write a whole number and a unit: 512B, 64KiB, 8MiB or 1GiB")
    return int(match[1]) * _BYTES[match[2]]
