"""How often keys were asked for lately, in a few bytes each: a count-min sketch that forgets."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

# Cormode & Muthukrishnan 2005; that it forgets by halving is from TinyLFU (Einziger, Friedman & Manes 2017)
MOST: Final = 15  # a count stays here: what was asked for a million times is forgotten as fast as anything
COUNTERS: Final = 16  # bytes a key; with fewer, keys seen once look seen twice and a scan gets in
_PERIOD: Final = 2  # additions a key until all counts are halved: those of keys seen once are then gone
_LEAST: Final = 64  # keys
_HALVES: Final = bytes(count >> 1 for count in range(256))
_ODD: Final = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the hashes of integers are themselves, so mix them
_WORD: Final = 0xFFFFFFFFFFFFFFFF


class Frequency:
    """Count how often each of any number of keys was added lately; too high at times, never too low.

    ``keys`` is for how many keys at a time the counts are good.
    """

    __slots__ = ("_added", "_mask", "_table", "keys")

    def __init__(self, keys: int = _LEAST) -> None:
        self.keys = 1 << (max(keys, _LEAST) - 1).bit_length()
        self._table = bytearray(self.keys * COUNTERS)
        self._mask = len(self._table) - 1
        self._added = 0

    def add(self, key: Hashable) -> int:
        """Count ``key`` once more and return how often it was counted lately, at most ``MOST``."""
        table, mask = self._table, self._mask
        first = hash(key) * _ODD & _WORD
        first ^= first >> 32
        step = first >> 20 | 1
        a, b, c, d = first & mask, first + step & mask, first + 2 * step & mask, first + 3 * step & mask
        count = min(table[a], table[b], table[c], table[d])
        if count < MOST:
            # only the least are raised: the others are too high already, by keys that share them
            for place in (a, b, c, d):
                if table[place] == count:
                    table[place] = count + 1
            count += 1
        self._added += 1
        if self._added >= self.keys * _PERIOD:
            self._added = 0
            self._table = table.translate(_HALVES)
        return count

    def widen(self) -> None:
        """Be good for twice as many keys, and keep the counts."""
        self.keys *= 2
        # a key's places in the wider table are those it had, with or without the new highest bit
        self._table *= 2
        self._mask = len(self._table) - 1
