"""Which driver serves which engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from router.drivers.driver import Driver
from router.errors import ConfigurationError, MissingExtra, Problem

_BUILT_IN = {
    "postgresql": ("router.drivers.postgresql", "PostgresqlDriver", "asyncpg", "postgresql"),
    "mysql": ("router.drivers.mysql", "MysqlDriver", "aiomysql", "mysql"),
    "mariadb": ("router.drivers.mysql", "MysqlDriver", "aiomysql", "mysql"),
    "sqlite": ("router.drivers.sqlite", "SqliteDriver", "aiosqlite", "sqlite"),
}
_registered: dict[str, Callable[[], Driver]] = {}


def register(engine: str, factory: Callable[[], Driver]) -> None:
    """Make ``factory`` build the driver of ``engine``, a new one or a replacement of a built-in one."""
    _registered[engine] = factory


def engines() -> frozenset[str]:
    """Return the names of all engines that a configuration may use."""
    return frozenset(_BUILT_IN) | frozenset(_registered)


def driver_for(engine: str) -> Driver:
    """Return a driver of ``engine``; its package is imported only now.

    Raises:
        MissingExtra: the package of the driver is not installed.
        ConfigurationError: no driver is registered under that name.
    """
    if engine in _registered:
        return _registered[engine]()
    if engine not in _BUILT_IN:
        known = ", ".join(sorted(engines()))
        raise ConfigurationError(
            [Problem("engine", 0, 0, f"no driver is registered for {engine!r}", f"Use one of: {known}.")]
        )
    module, name, package, extra = _BUILT_IN[engine]
    try:
        made: Driver = getattr(import_module(module), name)()
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != package:
            raise
        raise MissingExtra(package, extra) from None
    return made
