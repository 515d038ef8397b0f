"""The numbers of messages: whether all have come, and up to which moment. Pure."""

from __future__ import annotations

from collections import deque


class Gap(Exception):
    """Say that messages were lost, or that their numbers began anew."""


class Sequence:
    """Follow numbered messages in their order, beside answers to "what was the last number?"."""

    def __init__(self) -> None:
        self.last: int | None = None  # None: not begun
        self._asked: deque[tuple[int, float]] = deque()  # answers whose messages have not all come

    def begin(self, number: int) -> None:
        """Take this message as the first."""
        self.last = number

    def came(self, number: int) -> float | None:
        """Take the next message; return the moment up to which all have come, if that is known anew.

        Raises Gap where another number was due.
        """
        if self.last is None or number != self.last + 1:
            raise Gap
        self.last = number
        reached = None
        while self._asked and self._asked[0][0] <= number:
            reached = self._asked.popleft()[1]
        return reached

    def answered(self, number: int, asked: float, before: int) -> float | None:
        """Take the answer to a question of the moment ``asked``, when ``before`` was the last to have come.

        Return that moment if all messages of before have come. Raises Gap where numbers went back.
        """
        if self.last is None or number < before:
            raise Gap
        if number <= self.last:
            return asked
        self._asked.append((number, asked))
        return None

    def overdue(self, since: float) -> bool:
        """Tell whether a message that was sent before this moment has still not come."""
        return bool(self._asked) and self._asked[0][1] < since
