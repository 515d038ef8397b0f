"""Real database servers for the tests: free loopback ports, own data folders, nothing left behind."""

from tests.servers.binaries import ServerMissing
from tests.servers.mariadb import MariadbCluster, MariadbServer
from tests.servers.memcached import MemcachedServer
from tests.servers.passwords import CANARY
from tests.servers.postgresql import PostgresqlCluster, PostgresqlServer
from tests.servers.prometheus import PrometheusServer
from tests.servers.redis import RedisServer

__all__ = [
    "CANARY",
    "MariadbCluster",
    "MariadbServer",
    "MemcachedServer",
    "PostgresqlCluster",
    "PostgresqlServer",
    "PrometheusServer",
    "RedisServer",
    "ServerMissing",
]
