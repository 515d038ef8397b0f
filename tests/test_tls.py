"""TLS against real servers: a certificate that is not right closes the door, and nothing is said before."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router import Router, Success, capture, errors
from tests import engines
from tests.certificates import Authority, Issued, missing
from tests.conftest import start_or_skip
from tests.engines import Engine, only
from tests.faults import Break, Cut, Direction, Hang, Record
from tests.faults.cluster import Proxied, behind_proxies
from tests.servers import MariadbCluster, PostgresqlCluster
from tests.servers.passwords import CANARY
from tests.servers.process import wait_until

pytestmark = pytest.mark.skipif(missing(), reason="the openssl program is not on the PATH")

GOOD = "IP:127.0.0.1"
#: bytes of the request for TLS: PostgreSQL's SSLRequest, MySQL's SSL Connection Request Packet with header
REQUEST = {"postgresql": 8, "mysql": 36}


class Secured:
    """A private cluster of one server whose certificate can be changed while it runs."""

    def __init__(self, engine: Any, folder: Path) -> None:
        self.engine = engine
        self.authority = Authority(folder / "authority")
        self.other = Authority(folder / "other")
        self.cluster = engine.server
        self.home: Path = self.cluster.primary.home
        self.good = self.authority.issue(GOOD)
        self._write(self.good)
        self._begin()

    def _write(self, issued: Issued) -> None:
        for name, text in (("tls.pem", issued.certificate), ("tls.key", issued.key)):
            self.cluster.folder.write(self.home / name, text)

    def _begin(self) -> None:
        server = self.cluster.primary
        names = f"ssl_cert_file = '{self.home / 'tls.pem'}'", f"ssl_key_file = '{self.home / 'tls.key'}'"
        if self.engine.dialect == "postgresql":
            for setting in (*names, "ssl = on"):
                server.run(f"ALTER SYSTEM SET {setting}")
            self._reload()
            return
        files = f"ssl_cert={self.home}/tls.pem\nssl_key={self.home}/tls.key\n"
        server.stop()
        server._options.write_text(f"{server._options.read_text()}[mariadbd]\n{files}")
        server.start()

    def _reload(self) -> None:
        run = self.cluster.primary.run
        if self.engine.dialect == "mysql":
            run("FLUSH SSL")
            return
        before = run("SELECT pg_conf_load_time()")
        run("SELECT pg_reload_conf()")
        wait_until(lambda: run("SELECT pg_conf_load_time()") != before, 20, lambda: "it does not reload")

    def present(self, issued: Issued) -> None:
        """Let the server show this certificate from now on."""
        self._write(issued)
        self._reload()

    def tls(self, mode: str = "verify-full") -> dict[str, Any]:
        """Return what the configuration of the cluster adds, with the first authority trusted."""
        return {"tls": {"mode": mode, "ca": str(self.authority.certificate)}}


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Start a server of each kind that offers TLS; the replicas of the shared clusters play no part here."""
    folder = tmp_path_factory.mktemp("tls")
    if request.param == "postgresql":
        cluster: Any = start_or_skip(lambda: PostgresqlCluster(0))
        kind: type[Any] = engines.Postgresql
    else:
        cluster, kind = start_or_skip(lambda: MariadbCluster(0)), engines.Mariadb
    try:
        engine = kind(folder, cluster)
        engine.create("acme")
        yield Secured(engine, folder)
    finally:
        cluster.close()


@pytest.fixture
def behind(secured: Secured) -> Iterator[Proxied]:
    """Put a proxy before the server, which shows its good certificate again at the end."""
    with behind_proxies(secured.engine) as made:
        yield made
    secured.present(secured.good)


def open_router(behind: Proxied, cluster: dict[str, Any], **defaults: Any) -> Any:
    settings = {"retries": {"attempts": 1}, **defaults}
    return behind.engine.open(("acme",), cluster=cluster, defaults=settings)


async def encrypted(router: Router, dialect: str) -> bool:
    if dialect == "postgresql":
        sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return bool(await router.fetch_value(sql, tenant="acme", primary=True))
    sql = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
    return bool(await router.fetch_value(sql, tenant="acme", primary=True))


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_good_certificate(secured: Secured, behind: Proxied, mode: str) -> None:
    """The session is encrypted, and nothing of the login is readable on the way."""
    record = Record()
    behind.primary.add(record)
    async with open_router(behind, secured.tls(mode)) as router:
        assert await encrypted(router, secured.engine.dialect)
    assert b"router_app" not in record.data
    assert behind.primary.traffic.statements == 0  # none that could be read


BAD: dict[str, tuple[Callable[[Secured], Issued], str]] = {
    "expired": (lambda secured: secured.authority.issue(GOOD, days=-1), "certificate has expired"),
    "of another host": (lambda secured: secured.authority.issue("DNS:elsewhere.test"), "mismatch"),
    "of another address": (lambda secured: secured.authority.issue("IP:127.0.0.9"), "mismatch"),
    "of an unknown authority": (lambda secured: secured.other.issue(GOOD), "issuer|self-signed|signature"),
}


@pytest.mark.parametrize("flaw", BAD)
async def test_a_bad_certificate(secured: Secured, behind: Proxied, flaw: str) -> None:
    """The error names node and reason; neither login nor statement was sent in plain text (fault case 26)."""
    issue, reason = BAD[flaw]
    secured.present(issue(secured))
    record = Record(direction=Direction.TO_SERVER)
    behind.primary.add(record)
    async with open_router(behind, secured.tls()) as router:
        with pytest.raises(errors.ConnectError, match=reason) as caught:
            await router.fetch_value("SELECT 1", tenant="acme", primary=True)
    for part in ("main/primary", "its certificate is refused", "Renew it, or correct"):
        assert part in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.sent is errors.Sent.NO
    assert b"router_app" not in record.data
    assert b"SELECT" not in record.data
    assert behind.primary.traffic.statements == 0


async def test_a_certificate_that_expires_meanwhile(secured: Secured, behind: Proxied) -> None:
    """Open connections go on, new ones are refused; with a new certificate all is well (fault case 26)."""
    async with open_router(behind, secured.tls()) as router:
        assert await encrypted(router, secured.engine.dialect)
        secured.present(secured.authority.issue(GOOD, days=-1))
        async with router.session("acme") as session, session.transaction() as tx:
            assert await tx.fetch_value("SELECT 1") == 1
            with pytest.raises(errors.ConnectError, match="certificate has expired"):
                await router.fetch_value("SELECT 2", tenant="acme", primary=True)
            secured.present(secured.authority.issue(GOOD))
            assert await router.fetch_value("SELECT 3", tenant="acme", primary=True) == 3


async def test_a_handshake_that_hangs(secured: Secured, behind: Proxied) -> None:
    """A server that goes silent after the request for TLS is given up in connect's time (fault case 24)."""
    timeouts = {"connect": "300ms", "acquire": "20s"}
    after = REQUEST[secured.engine.dialect]
    behind.primary.add(Cut(after, Break.SILENCE, direction=Direction.TO_SERVER, from_start=True))
    async with open_router(behind, secured.tls(), timeouts=timeouts) as router:
        async with asyncio.timeout(10):  # acquire would take 20 s
            with pytest.raises(errors.ConnectError, match=r"no answer within 0.3 s"):
                await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        behind.heal()
        async with asyncio.timeout(20):
            while await capture(encrypted(router, secured.engine.dialect)) != Success(True):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_slow_handshake(secured: Secured, behind: Proxied) -> None:
    """Slow but within connect's time is no failure (fault case 24)."""
    behind.primary.add(Hang(0.3))
    async with open_router(behind, secured.tls()) as router:
        assert await encrypted(router, secured.engine.dialect)


@only("postgresql", "mariadb")
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_that_offers_no_tls(engine: Engine, proxied: Proxied, mode: str) -> None:
    """Nothing is said in plain text instead: somebody may have taken the offer away (fault case 26)."""
    record = Record(direction=Direction.TO_SERVER)
    proxied.primary.add(record)
    settings = {"retries": {"attempts": 1}}
    async with proxied.engine.open(cluster={"tls": {"mode": mode}}, defaults=settings) as router:
        with pytest.raises(errors.ConnectError, match=r"main/primary.*does not offer TLS") as caught:
            await router.fetch_value("SELECT 1", tenant="acme", primary=True)
    assert caught.value.sent is errors.Sent.NO
    assert len(record.data) <= REQUEST[engine.dialect]
    assert b"router_app" not in record.data
