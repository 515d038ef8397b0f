"""Faults of the network on demand: a proxy that stands between the router and a server."""

from tests.faults.proxy import Proxy, Traffic
from tests.faults.statements import MysqlStatements, PostgresqlStatements
from tests.faults.toxics import (
    Bandwidth,
    Blackhole,
    Break,
    Cut,
    Direction,
    Hang,
    Latency,
    Record,
    Stall,
    Toxic,
)

__all__ = [
    "Bandwidth",
    "Blackhole",
    "Break",
    "Cut",
    "Direction",
    "Hang",
    "Latency",
    "MysqlStatements",
    "PostgresqlStatements",
    "Proxy",
    "Record",
    "Stall",
    "Toxic",
    "Traffic",
]
