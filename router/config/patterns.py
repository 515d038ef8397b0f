"""Tenants that follow a rule: which ids it accepts, and what it makes of one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.config.catalog import MARK, PatternConfig
from router.config.files import read_text
from router.config.problems import Flaw, Found
from router.identifiers import InvalidName, check_tenant_id

_WHO = ("match", "tenants", "file")
_MAX_FILE = 1 << 26


@dataclass(frozen=True, slots=True, repr=False)
class Pattern:
    """Accept ids by an allow-list, and make of each the data of a tenant's file.

    ``{tenant}`` is replaced by the id as it is: two ids never give the same name.
    """

    name: str  # patterns[0]
    ids: Collection[str] | re.Pattern[str]
    data: Mapping[str, Any]  # of a tenant's file, with the mark in its names
    file: str | None = None  # that lists the ids

    def accepts(self, tenant: str) -> bool:
        """Say whether the pattern is for this id."""
        if isinstance(self.ids, re.Pattern):
            return self.ids.fullmatch(tenant) is not None
        return tenant in self.ids

    def data_for(self, tenant: str) -> dict[str, Any]:
        """Return what the file of this tenant would say."""
        return {"tenant": tenant, **_replaced(self.data, tenant)}

    def ids_of(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the ids that the pattern accepts and would give one of these names to."""
        for template in _templates(self.data):
            before, _, after = template.partition(MARK)
            for name in names:
                if name.startswith(before) and name.endswith(after) and len(name) > len(before + after):
                    tenant = name[len(before) : len(name) - len(after)]
                    if self.accepts(tenant):
                        yield tenant

    def __repr__(self) -> str:
        return f"<Pattern {self.name}>"


def _replaced(data: Any, tenant: str) -> Any:
    if isinstance(data, str):
        return data.replace(MARK, tenant)
    return {key: _replaced(value, tenant) for key, value in data.items()}


def _templates(data: Any) -> Iterator[str]:
    """Yield the names that the id is in; of rows the key, which is the id where none is given."""
    if isinstance(data, str):
        if MARK in data:
            yield data
        return
    for value in data.values():
        yield from _templates(value)
    if data.get("isolation") == "row" and "key" not in data:
        yield MARK


def pattern_of(index: int, section: PatternConfig, folder: Path, told: list[Found]) -> Pattern | None:
    """Return the pattern that a section describes; tell in ``told`` what is wrong with who it is for."""
    given = [name for name in _WHO if getattr(section, name) is not None]
    if len(given) != 1:
        fact = "has no 'match', 'tenants' or 'file'" if not given else f"has {' and '.join(given)}"
        remedy = "Say by one of match, tenants and file which ids it is for"
        told.append(Found((), fact, remedy, absent=not given))
        return None
    data = section.model_dump(by_alias=True, exclude_unset=True, exclude=set(_WHO))
    ids: Collection[str] | re.Pattern[str] = frozenset(section.tenants or ())
    if section.match is not None:
        ids = re.compile(section.match)
    elif section.file is not None:
        ids = _listed(folder / section.file, told)
    file = None if section.file is None else str(folder / section.file)
    return Pattern(f"patterns[{index}]", ids, data, file)


def _listed(path: Path, told: list[Found]) -> frozenset[str]:
    try:
        lines = read_text(path, _MAX_FILE).splitlines()
    except Flaw as flaw:
        told.append(Found(("file",), flaw.fact, flaw.remedy))
        return frozenset()
    ids = frozenset(filter(None, map(str.strip, lines)))
    for number, line in enumerate(lines, 1):
        try:
            line.strip() and check_tenant_id(line.strip())
        except InvalidName as error:
            told.append(Found(("file",), f"has in line {number} {error.fact}", error.remedy))
            break
    return ids
