"""Forget the frames of an exception: the locals in them may be a password or a bound value."""

from __future__ import annotations


def drop_frames(exc: BaseException | None) -> None:
    """Drop the tracebacks of an exception and of all that led to it."""
    seen: set[int] = set()
    left = [exc]
    while left:
        found = left.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = None
            left += [found.__cause__, found.__context__]
