"""A cluster behind proxies: the same servers, reached through one proxy each."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.engines import Engine
from tests.faults.proxy import Proxy, Traffic
from tests.faults.statements import MysqlStatements, PostgresqlStatements

_STATEMENTS = {"postgresql": PostgresqlStatements, "mysql": MysqlStatements}


class Proxied:
    """Hold an engine whose nodes are the proxies, and the proxies."""

    def __init__(self, engine: Any, nodes: list[Proxy]) -> None:
        self.engine: Any = copy.copy(engine)
        self.engine.addresses = nodes
        self.nodes = tuple(nodes)

    @property
    def primary(self) -> Proxy:
        """Return the proxy before the first server; a promotion does not change it."""
        return self.nodes[0]

    @property
    def replicas(self) -> tuple[Proxy, ...]:
        """Return the proxies before the other servers."""
        return self.nodes[1:]

    @property
    def traffic(self) -> Traffic:
        """Return what all proxies together have seen."""
        seen = [node.traffic for node in self.nodes]
        return Traffic(
            sum(each.ever for each in seen),
            sum(each.now for each in seen),
            sum(each.to_server for each in seen),
            sum(each.to_client for each in seen),
            sum(each.statements for each in seen),
        )

    def heal(self) -> None:
        """Heal all proxies."""
        for node in self.nodes:
            node.heal()


@contextmanager
def behind_proxies(engine: Engine) -> Iterator[Proxied]:
    """Put a proxy before each server of an engine; what is opened by ``engine`` itself goes straight."""
    with ExitStack() as stack:
        statements = _STATEMENTS[engine.dialect]
        servers = engine.server.servers
        yield Proxied(engine, [stack.enter_context(Proxy(each, statements=statements)) for each in servers])


@pytest.fixture
def proxied(engine: Engine) -> Iterator[Proxied]:
    """Give the servers of an engine behind proxies that do no harm yet."""
    with behind_proxies(engine) as made:
        yield made
