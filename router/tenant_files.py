"""Tenants kept as files: each change is one file, loaded with all the others before it counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from router.config import Config, TenantConfig, load
from router.config.files import read_text
from router.config.folder import Draft, held, take_away
from router.config.loader import rehearse
from router.config.problems import Flaw
from router.config.reader import MAX_BYTES, read, read_string
from router.config.references import expand
from router.config.writing import marked, written
from router.drivers.registry import engines
from router.errors import ConfigurationError, Problem, UsageError
from router.tenant_store import Candidate, Kept, unknown


class TenantFiles:
    """Keep tenants in the folder of a configuration, or in ``apart``, which ``catalog.folder`` names."""

    def __init__(self, path: Path, apart: Path | None = None) -> None:
        self._path, self._apart = path, apart
        self._folder = apart or path / "tenants"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep others from changing the folder meanwhile."""
        lock = held(self._folder)
        await asyncio.to_thread(lock.__enter__)  # to wait for it blocks a thread
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    async def rehearse(self, name: str, content: Mapping[str, Any]) -> Candidate:
        """Return a tenant as it would be, if the whole configuration loads with it."""
        return await asyncio.to_thread(self._rehearse, name, content)

    def _rehearse(self, name: str, content: Mapping[str, Any]) -> Candidate:
        file = self._file(name)
        if file.exists():
            raise UsageError(f"{file} is there already. `router tenants show {name}` shows the tenant")
        text = written(content)
        config = self._accepted(name, text)
        if self._apart is not None:
            self._check_rivals(config, name, text)
        return Candidate(config.tenants[name], config, str(file), text)

    def _accepted(self, name: str, text: str | None) -> Config:
        """Return the configuration with this text of a tenant's file; raises ConfigurationError."""
        if self._apart is None:
            return rehearse(self._path, {name: text}, known_engines=engines())
        config = load(self._path, known_engines=engines())
        if text is None:
            return config
        if name in config.tenants or config.admission.accepts(name):
            raise UsageError(
                f"the tenant {name} has a file in tenants, or a pattern makes it: that comes first"
            )
        found = self._checked(config, name, text)
        return replace(config, tenants=MappingProxyType({**config.tenants, name: found}))

    def _checked(self, config: Config, name: str, text: str) -> TenantConfig:
        file = str(self._file(name))
        document = read_string(text, file)
        if document.problems:
            raise ConfigurationError(sorted(document.problems))
        return config.admission.check(name, document.data, file)

    def _check_rivals(self, config: Config, name: str, text: str) -> None:
        """Refuse a tenant whose place one of the other files has, of which nothing is in memory."""
        tenant = config.tenants[name]
        words = [each for each in (tenant.database, tenant.schema, *tenant.schemas.values()) if each]
        words += [tenant.row[1]] if tenant.row is not None else []
        shared = tenant.database in {each.database for each in config.clusters.values()}
        for other in self._names():
            with suppress(ConfigurationError, Flaw):  # what is wrong with another is its own
                theirs = read_text(self._file(other), MAX_BYTES)
                if shared or other in words or any(word in theirs for word in words):
                    config.admission.take(other, read_string(theirs, "").data, str(self._file(other)))
        self._checked(config, name, text)  # again: now it is known who else is there

    def every(self, config: Config) -> Iterator[TenantConfig | ConfigurationError]:
        """Yield all tenants of the folder by their ids, an error for one that would be refused."""
        for name in self._names():
            try:
                yield self._checked(config, name, read_text(self._file(name), MAX_BYTES))
            except ConfigurationError as error:
                yield error
            except Flaw as flaw:
                problem = Problem(str(self._file(name)), 0, 0, str(flaw), flaw.remedy)
                yield ConfigurationError([problem])

    def _names(self) -> list[str]:
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        return sorted(each[:-5] for each in names if each.endswith(".yaml") and not each.startswith("."))

    def has(self, name: str) -> bool:
        """Tell whether there is a file for a tenant."""
        return self._file(name).exists()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"

    async def draft(self, candidate: Candidate) -> FileDraft:
        """Write a file beside the one that is to be: what hinders that shows now, not half way."""
        return FileDraft(await asyncio.to_thread(Draft, Path(candidate.where), candidate.text, new=True))

    async def find(self, name: str) -> Kept:
        """Return a tenant with what its file says."""
        return await asyncio.to_thread(self._find, name)

    def _find(self, name: str) -> Kept:
        file = str(self._file(name))
        if not self.has(name):
            raise unknown(name, str(self._folder))
        config = load(self._path, known_engines=engines())
        document = read(file, file)
        if self._apart is not None:
            config = self._accepted(name, read_text(file, MAX_BYTES))
        data = expand(document.data, config.source, lambda loc: False, [])
        return Kept(config.tenants[name], config, file, data)

    async def mark(self, name: str, *, suspended: bool) -> bool:
        """Change one line of a tenant's file."""
        return await asyncio.to_thread(self._mark, name, suspended)

    def _mark(self, name: str, suspended: bool) -> bool:
        file = self._own_file(name)
        try:
            before = read_text(file, MAX_BYTES)
            data = read_string(before, "").data
            if isinstance(data, dict) and data.get("suspended", False) is suspended:
                return False
            text = marked(before, suspended)
        except Flaw as flaw:
            raise UsageError(f"{file} {flaw}. {flaw.remedy}") from None
        self._accepted(name, text)
        draft = Draft(file, text, new=False)
        try:
            draft.take_effect()
        finally:
            draft.discard()
        return True

    async def remove(self, name: str) -> str:
        """Remove a tenant's file, if the configuration loads without it."""
        return await asyncio.to_thread(self._remove, name)

    def _remove(self, name: str) -> str:
        file = self._own_file(name)
        self._accepted(name, None)
        take_away(file)
        return str(file)

    def _own_file(self, name: str) -> Path:
        """Return the file of a tenant that may be changed here."""
        file = self._file(name)
        if not file.exists():
            raise unknown(name, str(self._folder))
        if file.is_symlink():
            raise UsageError(
                f"{file} is a link: it comes from elsewhere, such as a Kubernetes ConfigMap. Change it there"
            )
        return file


class FileDraft:
    """Hold a file that nobody reads yet."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    async def take_effect(self) -> None:
        """Give the file its name."""
        await asyncio.to_thread(self._draft.take_effect)

    async def discard(self) -> None:
        """Remove the file, if it has not got its name."""
        await asyncio.to_thread(self._draft.discard)
