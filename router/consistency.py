"""Consistency levels: what a read promises about earlier writes."""

from __future__ import annotations

from enum import StrEnum


class Consistency(StrEnum):
    """Say how fresh a read must be."""

    EVENTUAL = "eventual"  # any replica within the lag limits; a later one only while nothing else is up
    SESSION = "session"  # a session sees its own writes (default)
    STRONG = "strong"  # the primary, always
