"""The arms: one class for each way to reach the servers, in the order of the tables."""

from importlib import import_module

from tests.bench.arms.arm import Arm

__all__ = ["Arm", "NAMES", "arm"]

_CLASSES = {
    "bare_asyncpg": ("bare", "BareAsyncpg"),
    "bare_asyncpg_nocache": ("bare", "BareAsyncpgNoCache"),
    "asyncpg_pool": ("pools", "AsyncpgPool"),
    "psycopg_pool": ("pools", "PsycopgPool"),
    "sqlalchemy_text": ("alchemy", "SqlalchemyText"),
    "sqlalchemy_session": ("alchemy", "SqlalchemySession"),
    "hasql": ("pools", "Hasql"),
    "advanced_alchemy": ("alchemy", "AdvancedAlchemy"),
    "pgbouncer": ("bare", "Pgbouncer"),
    "pgpool": ("bare", "Pgpool"),
    "router": ("ours", "OursText"),
    "router_orm": ("ours", "OursOrm"),
    "bare_aiomysql": ("others", "BareAiomysql"),
    "router_mysql": ("ours", "OursMysql"),
    "bare_aiosqlite": ("others", "BareAiosqlite"),
    "router_sqlite": ("ours", "OursSqlite"),
}

NAMES = tuple(_CLASSES)
"""All arms."""


def arm(name: str) -> type[Arm]:
    """Return the class of an arm; raises ImportError if its driver is not installed."""
    module, attribute = _CLASSES[name]
    found: type[Arm] = getattr(import_module(f"tests.bench.arms.{module}"), attribute)
    return found
