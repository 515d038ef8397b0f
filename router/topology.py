"""The servers: engines, roles, nodes and clusters, as configured. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Engine(StrEnum):
    """Name a kind of database server; a driver is registered under each."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MARIADB = "mariadb"
    SQLITE = "sqlite"


class Role(StrEnum):
    """Say what a node is in its cluster, or for an answer that no node was asked."""

    PRIMARY = "primary"
    REPLICA = "replica"
    CACHE = "cache"  # no node has this role: the answer came from memory


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """Describe one server in one role: where it listens and what it is for.

    A promotion makes another node of the same server, see :meth:`in_role`: what belongs to the old role, such
    as its pools and their logins, is found no more.

    ``host`` and ``port`` for network engines (a host that starts with ``/`` is a Unix socket folder or
    file), ``path`` for SQLite (the folder of its files). ``weight`` is relative to other replicas.
    """

    name: str
    cluster: str
    role: Role
    host: str = ""
    port: int = 0
    path: str = ""
    weight: float = 1.0
    zone: str | None = None
    label: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", f"{self.cluster}/{self.name}")

    def in_role(self, role: Role) -> Node:
        """Return the same server in another role."""
        return Node(self.name, self.cluster, role, self.host, self.port, self.path, self.weight, self.zone)

    @property
    def address(self) -> str:
        """Return where the node is, without credentials."""
        if self.path:
            return self.path
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Node {self.label} {self.role} at {self.address}>"


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Describe one primary and its replicas.

    ``replicas_current`` is true where a replica shows every finished commit (SQLite readers over WAL), so
    that a session need not leave its replica after a write.
    """

    name: str
    engine: str  # see Engine; a registered driver may add names
    primary: Node
    replicas: tuple[Node, ...] = ()
    database: str = ""
    replicas_current: bool = False
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return all nodes, the primary first."""
        return (self.primary, *self.replicas)

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {self.engine}: 1 primary, {len(self.replicas)} replicas>"
