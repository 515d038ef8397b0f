"""Load a configuration from a folder or from data; refuse it as a whole with every mistake found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.config.assembly import Assembly
from router.config.clusters import KNOWN_ENGINES
from router.config.problems import Found, Report
from router.config.reader import Document, read
from router.config.values import Config
from router.errors import ConfigurationError, Problem


def load(path: str | Path, *, known_engines: frozenset[str] = KNOWN_ENGINES) -> Config:
    """Return the configuration in the folder ``path``: ``router.yaml`` and ``tenants/<tenant>.yaml``.

    Raises :class:`ConfigurationError` with all mistakes, each with file (as reached from ``path``), line and
    column. Ten thousand tenants take a few seconds: call it in a thread where that matters.
    """
    return _checked(*_load(os.fspath(path), known_engines))


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


def _load(path: str, known_engines: frozenset[str]) -> tuple[Config | None, list[Problem]]:
    problems: list[Problem] = []
    if not os.path.isdir(path):
        return None, [Problem(path, 0, 0, "this is not a folder", "Name the folder that holds router.yaml")]
    assembly = Assembly(Path(path).absolute(), known_engines)
    file = os.path.join(path, "router.yaml")
    document = read(file, file)
    report = Report(file, document.places, document.problems)
    if _readable(document):
        assembly.router(document.data, report)
    problems += report.problems
    for name in _tenant_files(path, assembly, problems):
        file = os.path.join(path, "tenants", name)
        document = read(file, file)
        report = Report(file, document.places, document.problems)
        if _readable(document):
            assembly.tenant(document.data, name.removesuffix(".yaml"), report)
        problems += report.problems
    return (None if problems else assembly.config()), problems


def _readable(document: Document) -> bool:
    """Say whether there is data to look at, if only to find more mistakes."""
    return document.data is not None or not document.problems


def _tenant_files(path: str, assembly: Assembly, problems: list[Problem]) -> list[str]:
    """Return the names of the tenants' files in order, telling of files that look like one but are not."""
    folder = os.path.join(path, "tenants")
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        names = []
    except OSError as error:
        problems.append(
            Problem(folder, 0, 0, f"cannot be read: {error.strerror}", "Make it a readable folder")
        )
        return []
    files = [name for name in names if name.endswith(".yaml")]
    problems += [
        Problem(os.path.join(folder, name), 0, 0, "its name does not end in .yaml", "Rename the file")
        for name in names
        if name.lower().endswith((".yml", ".yaml")) and name not in files
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
