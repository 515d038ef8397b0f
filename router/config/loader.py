"""Load a configuration from a folder or from data; refuse it as a whole with every mistake found."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from router.config.assembly import Assembly
from router.config.clusters import KNOWN_ENGINES
from router.config.files import stamp_of
from router.config.problems import Found, Report
from router.config.reader import Document, read, read_string, text_of
from router.config.values import Config
from router.errors import ConfigurationError, Problem
from router.pacing import paced

_TRIES = 5  # at a folder that is another one after it was read
_COARSE = 2_000_000_000  # nanoseconds that may pass between two times of a file system

_NOTHING: Mapping[str, str | None] = MappingProxyType({})


def load(
    path: str | Path,
    *,
    known_engines: frozenset[str] = KNOWN_ENGINES,
    functions: Collection[str] | None = None,
) -> Config:
    """Return the configuration in the folder ``path``: ``router.yaml`` and ``tenants/<tenant>.yaml``.

    ``functions`` are the names that ``${call:NAME}`` may have; ``None`` if that is not known here.

    Raises :class:`ConfigurationError` with all mistakes, each with file (as reached from ``path``), line and
    column. Ten thousand tenants take a few seconds: call it in a thread where that matters.
    """
    return Loader(path, known_engines=known_engines, functions=functions).load()


class Loader:
    """Load a folder again and again; what has not changed since is not read, or not parsed, anew.

    Between two files it gives way to other threads, where :func:`router.pacing.politely` asks for that. Two
    threads may load at once.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        known_engines: frozenset[str] = KNOWN_ENGINES,
        functions: Collection[str] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._known_engines = known_engines
        self._functions = functions
        self._last = _Loaded()

    @property
    def loaded(self) -> int:
        """Return the :meth:`fingerprint` of what was loaded last."""
        return self._last.fingerprint

    def fingerprint(self) -> int:
        """Return a number that is another one once a file was changed, added or removed."""
        return _fingerprint(_look(self.path, self._last.files))

    def load(self) -> Config:
        """Return the configuration as it is now; raises ConfigurationError as :func:`load`."""
        for _ in range(_TRIES):
            look = _look(self.path, self._last.files)
            loaded, problems = _load(self.path, self._known_engines, self._functions, self._last, look)
            if (
                _look(self.path, self._last.files).stamps == look.stamps
            ):  # else what was read may be in part old, in part new
                break
        else:
            fact, remedy = "changes all the time while it is read", "Put the files there by a rename"
            loaded, problems = _Loaded(), [Problem(self.path, 0, 0, fact, remedy)]
        config = _checked(loaded.config, problems)
        loaded.files = config.files
        if loaded.files != self._last.files:
            look = _look(self.path, loaded.files)
        loaded.fingerprint = _fingerprint(look)
        self._last = loaded
        return config


def outline(path: str | Path, *, known_engines: frozenset[str] = KNOWN_ENGINES) -> Config | None:
    """Return the configuration without its tenants' files; ``None`` if router.yaml has mistakes."""
    file = os.path.join(path, "router.yaml")
    document = read(file, file)
    report = Report(file, document.places, document.problems)
    assembly = Assembly(Path(path).absolute(), known_engines)
    if _readable(document):
        assembly.router(document.data, report)
    return None if report.problems else assembly.config()


def rehearse(
    path: str | Path, changed: Mapping[str, str | None], *, known_engines: frozenset[str] = KNOWN_ENGINES
) -> Config:
    """Return what :func:`load` would if the files of some tenants were others; nothing is written.

    ``changed`` has the new text of each by the tenant's id, ``None`` where its file would be gone.
    """
    texts = {f"{tenant}.yaml": text for tenant, text in changed.items()}
    found, problems = _load(os.fspath(path), known_engines, None, _Loaded(), _Look(), texts)
    return _checked(found.config, problems)


def parse(
    data: Mapping[str, Any], folder: str | Path = ".", *, known_engines: frozenset[str] = KNOWN_ENGINES
) -> Config:
    """Return the configuration in ``data``: the content of router.yaml and, under ``tenants``, that of each.

    The key of a tenant is its id; ``tenant`` inside may be left out. Values are as in YAML: durations are
    text with a unit. Relative paths are in ``folder``. Raises :class:`ConfigurationError` as :func:`load`,
    with the way to the value (``clusters.main.engine``) in place of a file.
    """
    found = _parse(data, Path(folder), known_engines)
    del data  # it may hold passwords, and this frame is in the traceback
    return _checked(*found)


def _checked(config: Config | None, problems: list[Problem]) -> Config:
    # Raised here, far from the data: frames of a traceback must not hold passwords.
    if config is None:
        raise ConfigurationError(sorted(problems))
    return config


@dataclass(slots=True)
class _Look:
    """Hold for each file a number that is another one once it was changed.

    The times of file systems are coarse: a further change of one that is ``young`` might leave no trace.
    Numbers in dictionaries, so that Python's collector need not look at each: there may be 100,000.
    """

    stamps: dict[str, int] = field(default_factory=dict)
    young: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Loaded:
    """Hold what was loaded, so that the next load need not do all of it again."""

    config: Config | None = None  # None: there were mistakes
    stamps: dict[str, int] = field(default_factory=dict)  # of files, by tenant; not of those that were young
    digests: dict[str, int] = field(default_factory=dict)  # of their texts; not of those with references
    files: tuple[str, ...] = ()  # that it depends on beside those of the folder
    fingerprint: int = 0


def _load(
    path: str,
    known_engines: frozenset[str],
    functions: Collection[str] | None,
    last: _Loaded,
    look: _Look,
    changed: Mapping[str, str | None] = _NOTHING,
) -> tuple[_Loaded, list[Problem]]:
    problems: list[Problem] = []
    if not os.path.isdir(path):
        return _Loaded(), [
            Problem(path, 0, 0, "this is not a folder", "Name the folder that holds router.yaml")
        ]
    assembly = Assembly(Path(path).absolute(), known_engines, functions)
    file = os.path.join(path, "router.yaml")
    document = read(file, file)
    report = Report(file, document.places, document.problems)
    if _readable(document):
        assembly.router(document.data, report)
    problems += report.problems
    tenants = _Tenants(assembly, last, look)
    for name in paced(_tenant_files(path, assembly, problems, changed)):
        file = os.path.join(path, "tenants", name)
        problems += tenants.take(file, name.removesuffix(".yaml"), changed.get(name))
    if not problems:
        tenants.loaded.config = assembly.config()
    return tenants.loaded, problems


class _Tenants:
    """Give an assembly its tenants: from their files, or as they were where these are the same."""

    def __init__(self, assembly: Assembly, last: _Loaded, look: _Look) -> None:
        self.loaded = _Loaded()
        self._assembly = assembly
        self._look = look
        self._last = last
        self._kept = {} if last.config is None else assembly.unaffected(last.config)

    def take(self, file: str, tenant: str, text: str | Document | None) -> list[Problem]:
        """Take a tenant, with this text if it is given; return what is wrong with it."""
        stamp = None if file in self._look.young else self._look.stamps.get(file)
        if stamp is not None:
            self.loaded.stamps[tenant] = stamp
        kept, known = self._kept.get(tenant), self._last.digests.get(tenant)
        if text is None and (stamp is None or stamp != self._last.stamps.get(tenant)):
            text = text_of(file, file)
        same = known is not None and (text is None or hash(text) == known)
        if same and known is not None and kept is not None and self._assembly.keep(kept):
            self.loaded.digests[tenant] = known
            return []
        text = text_of(file, file) if text is None else text
        document = read_string(text, file) if isinstance(text, str) else text
        report = Report(file, document.places, document.problems)
        if _readable(document):
            self._assembly.tenant(document.data, tenant, report)
        if isinstance(text, str) and "${" not in text:  # what a reference leads to may change
            self.loaded.digests[tenant] = hash(text)
        return report.problems


def _look(path: str, further: Sequence[str]) -> _Look:
    """Look at the files in the folder, and at ``further`` ones, without reading them."""
    folder, look = os.path.join(path, "tenants"), _Look()
    old = time.time_ns() - _COARSE
    files = [os.path.join(path, "router.yaml"), *further]
    with suppress(OSError):
        files += [os.path.join(folder, name) for name in os.listdir(folder) if _is_tenant(name)]
    for file in paced(files):
        with suppress(OSError):
            look.stamps[file], changed = stamp_of(file)
            if changed > old:
                look.young.add(file)
    return look


def _fingerprint(look: _Look) -> int:
    return hash(frozenset(look.stamps.items()))


def _readable(document: Document) -> bool:
    """Say whether there is data to look at, if only to find more mistakes."""
    return document.data is not None or not document.problems


def _is_tenant(name: str) -> bool:
    return name.endswith(".yaml") and not name.startswith(".")


def _tenant_files(
    path: str, assembly: Assembly, problems: list[Problem], changed: Mapping[str, str | None]
) -> list[str]:
    """Return the names of the tenants' files in order, telling of files that look like one but are not."""
    folder = os.path.join(path, "tenants")
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        names = []
    except OSError as error:
        problems.append(
            Problem(folder, 0, 0, f"cannot be read: {error.strerror}", "Make it a readable folder")
        )
        return []
    if changed:
        kept = {name for name in names if name not in changed}
        names = [*kept, *(name for name, text in changed.items() if text is not None)]
    names.sort()
    files = [name for name in names if _is_tenant(name)]
    problems += [
        Problem(os.path.join(folder, name), 0, 0, "its name does not end in .yaml", "Rename the file")
        for name in names
        if name.lower().endswith((".yml", ".yaml")) and not _is_tenant(name)
    ]
    if not files:
        assembly.warnings.append(Problem(folder, 0, 0, "there are no tenants", "Add <tenant>.yaml files"))
    return files


def _parse(
    data: Mapping[str, Any], folder: Path, known_engines: frozenset[str]
) -> tuple[Config | None, list[Problem]]:
    problems: list[Problem] = []
    assembly = Assembly(folder.absolute(), known_engines)
    report = Report("", {}, problems)
    tenants = data.get("tenants", {})
    assembly.router({key: value for key, value in data.items() if key != "tenants"}, report)
    if not isinstance(tenants, Mapping):
        report.add(Found(("tenants",), "must be a mapping of tenant ids to tenants", "Correct it"))
        tenants = {}
    for name, tenant in tenants.items():
        if isinstance(tenant, Mapping):
            tenant = {"tenant": name, **tenant}
        assembly.tenant(tenant, str(name), Report(f"tenants.{name}", {}, problems))
    return (None if problems else assembly.config()), problems
