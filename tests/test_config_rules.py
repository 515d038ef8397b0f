"""Rules of the sections: what a cluster, a node, a URL and a tenant may say, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.config import ClusterConfig, Config, parse, parse_duration, parse_size
from router.config.problems import Flaw
from router.config.urls import parse_url
from router.consistency import Consistency
from router.errors import ConfigurationError

CREDENTIALS = {"writer": {"username": "app", "password": "x"}}
SQLITE = {"engine": "sqlite", "primary": {"path": "data"}}


def cluster(**changes: Any) -> dict[str, Any]:
    """Return a good PostgreSQL cluster as data; a key changed to None is left out."""
    whole = {"engine": "postgresql", "primary": {"host": "db"}, "database": "app", "credentials": CREDENTIALS}
    whole |= changes
    return {key: value for key, value in whole.items() if value is not None}


def tenant(**changes: Any) -> dict[str, Any]:
    """Return a good tenant as data; a key changed to None is left out."""
    whole = {"cluster": "main", "isolation": "schema", "schema": "acme", **changes}
    return {key: value for key, value in whole.items() if value is not None}


def built(main: dict[str, Any], **more: Any) -> Config:
    return parse({"version": 1, "clusters": {"main": main}, **more})


def loaded(main: dict[str, Any]) -> ClusterConfig:
    return built(main).clusters["main"]


def refusals(main: dict[str, Any], **more: Any) -> list[str]:
    """Build what must be refused; return each place, within the cluster if it is there, with the message."""
    with pytest.raises(ConfigurationError) as caught:
        built(main, **more)
    return [
        f"{p.file.removeprefix('clusters.main').removeprefix('.')}: {p.message}"
        for p in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"engine": "oracle"}, "engine", "'oracle'"),
        ({"primary": {}}, "primary", "neither 'host' nor 'url'"),
        ({"primary": {"host": "db", "url": "postgresql://db"}}, "primary.host", "beside url"),
        ({"primary": {"port": 1, "url": "postgresql://db"}}, "primary.port", "beside url"),
        ({"primary": {"url": "mysql://db"}}, "primary.url", "another scheme"),
        ({"primary": {"url": "postgresql://u:p@db"}}, "primary.url", "cluster has credentials"),
        ({"primary": {"url": "postgresql://db/other"}}, "primary.url", "another database"),
        ({"primary": {"url": "postgresql://db?sslmode=require", "tls": "disable"}}, "primary.tls", "twice"),
        ({"primary": {"url": "postgresql://u@db", "username": "v"}}, "primary.username", "twice"),
        ({"primary": {"url": "postgresql://:p@db"}}, "primary.url", "password but no user"),
        ({"primary": {"host": "db", "password": "x"}}, "primary", "password but no username"),
        ({"primary": {"host": "u:p@db"}}, "primary.host", "is not a host"),
        ({"primary": {"host": "db 1"}}, "primary.host", "is not a host"),
        ({"primary": {"host": ""}}, "primary.host", "is not a host"),
        ({"primary": {"host": "db", "port": 0}}, "primary.port", "at least 1"),
        ({"primary": {"host": "db", "port": 65536}}, "primary.port", "at most 65535"),
        ({"primary": {"host": "db", "port": True}}, "primary.port", "whole number"),
        ({"primary": {"host": "db", "weight": -1}}, "primary.weight", "at least 0"),
        ({"primary": {"host": "db", "weight": float("nan")}}, "primary.weight", "must be at"),
        ({"primary": {"host": "db", "path": "x"}}, "primary.path", "sqlite only"),
        ({"replicas": [{"host": "a", "name": "r"}, {"host": "b", "name": "r"}]}, "replicas[1].name", "twice"),
        ({"replicas": [{"host": "a", "name": "primary"}]}, "replicas[0].name", "twice"),
        ({"replicas": [{"host": "a", "name": "R 1"}]}, "replicas[0].name", "not a valid name"),
        ({"replicas": {"host": "a"}}, "replicas", "list"),
        ({"readers": 2}, "readers", "sqlite only"),
        ({"database": "public"}, "database", "reserved"),
        ({"credentials": None}, "", "no 'credentials'"),
        ({"credentials": {"reader": CREDENTIALS["writer"]}}, "credentials", "no 'writer'"),
        ({"credentials": {"writer": {"username": ""}}}, "credentials.writer.username", "empty"),
        ({"tls": {"mode": "verify_full"}}, "tls.mode", "'verify-full'"),
        ({"tls": {"ca": "none.pem"}}, "tls.ca", "cannot be read"),
        ({"tls": {"key": "none.pem"}}, "tls", "a key but no certificate"),
        ({"connections": {"min": 11}}, "connections.min", "more than max"),
        ({"connections": {"max": 0}}, "connections.max", "at least 1"),
        ({"connections": {"idle": "0s"}}, "connections.idle", "greater than 0"),
        ({"connections": {"idle": 5}}, "connections.idle", "duration"),
        ({"balancing": "random"}, "balancing", "'power_of_two'"),
        ({"extensions": ["pg_catalog"]}, "extensions[0]", "reserved"),
        ({"engine": "mysql", "extensions": ["postgis"]}, "extensions", "postgresql only"),
        ({"options": {"ssl_password": "x"}}, "options.ssl_password", "secret"),
        ({"options": {"a": [1]}}, "options.a", "text, a number"),
        ({"lags": {}}, "lags", "unknown key"),
        ({"limits": {}}, "limits", "unknown key"),
    ],
)  # fmt: skip
def test_what_a_cluster_may_not_say(changes, place, words):
    """Each rule of a cluster refuses its breach, at its place and in its words."""
    told = refusals(cluster(**changes))
    assert any(line.startswith(f"{place}: it ") and words in line for line in told), told


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"primary": {}}, "primary", "no 'path'"),
        ({"replicas": [{"path": "b"}]}, "replicas", "not for sqlite"),
        ({"primary": {"path": "a", "host": "b"}}, "primary.host", "not for sqlite"),
        ({"primary": {"path": "a", "tls": "require"}}, "primary.tls", "not for sqlite"),
        ({"credentials": CREDENTIALS}, "credentials", "not for sqlite"),
        ({"readers": 65}, "readers", "at most 64"),
    ],
)
def test_what_a_sqlite_cluster_may_not_say(changes, place, words):
    """SQLite has a folder and readers, and nothing of a server."""
    told = refusals({**SQLITE, **changes})
    assert any(line.startswith(f"{place}: it ") and words in line for line in told), told


def test_a_mistake_does_not_hide_another_one():
    """Within one cluster, type mistakes and rules about several keys are told together, once each."""
    told = refusals(
        cluster(
            primary={"host": 7}, replicas=[{}, {"host": "r", "port": "x"}], connections={"min": 9, "max": 2}
        )
    )
    assert sorted(line.split(":")[0] for line in told) == [
        "connections.min", "primary.host", "replicas[0]", "replicas[1].port",
    ]  # fmt: skip


def test_a_wrong_item_does_not_hide_what_else_is_wrong():
    """A replica that is no mapping is told, and so are the rules broken elsewhere in the cluster."""
    told = refusals(cluster(replicas=[7, {"host": "a"}], connections={"min": 11}))
    assert sorted(line.split(":")[0] for line in told) == ["connections.min", "replicas[0]"]


def test_nodes_get_names_and_ports():
    """Names and the engine's port are filled in; given ones stay."""
    main = loaded(
        cluster(
            replicas=[{"host": "a"}, {"host": "b", "name": "near", "port": 6432, "weight": 2, "zone": "z"}]
        )
    )
    assert [(n.name, n.host, n.port) for n in main.nodes] == [
        ("primary", "db", 5432), ("replica-1", "a", 5432), ("near", "b", 6432),
    ]  # fmt: skip
    assert (main.replicas[1].weight, main.replicas[1].zone) == (2.0, "z")
    assert (
        loaded(cluster(engine="mariadb")).primary.port == loaded(cluster(engine="mysql")).primary.port == 3306
    )


def test_an_engine_of_an_extension_is_taken_when_it_is_known():
    """Engines are what the caller knows; one without a usual port needs a port."""
    main = cluster(engine="cockroach", primary={"host": "db", "port": 26257})
    with pytest.raises(ConfigurationError, match="engine"):
        built(main)
    known = frozenset({"cockroach"})
    assert (
        parse({"version": 1, "clusters": {"main": main}}, known_engines=known).clusters["main"].primary.port
        == 26257
    )
    with pytest.raises(ConfigurationError, match="no 'port'"):
        parse({"version": 1, "clusters": {"main": cluster(engine="cockroach")}}, known_engines=known)


def test_a_url_gives_the_same_as_parts(monkeypatch):
    """Host, port, user, password, database and tls mode may come in a URL, decoded, and as references."""
    monkeypatch.setenv("ROUTER_T_PW", "p%40/@:#?")
    url = "postgres://us%40er:${env:ROUTER_T_PW}@db.example:6432/shop?sslmode=verify-ca"
    main = loaded(cluster(primary={"url": url}, credentials=None, database=None))
    login = main.login(main.primary, writer=True)
    assert login is not None and login.password is not None
    assert (login.username, login.password.resolve().reveal()) == ("us@er", "p%40/@:#?")
    assert (main.primary.host, main.primary.port, main.database) == ("db.example", 6432, "shop")
    assert main.tls_mode(main.primary) == "verify-ca" and main.primary.url is None
    monkeypatch.setenv("ROUTER_T_PW", "rotated")
    assert login.password.resolve().reveal() == "rotated"


def test_a_whole_url_may_be_a_reference(monkeypatch):
    """A platform that gives one variable with everything in it is served."""
    monkeypatch.setenv("ROUTER_T_URL", "mysql://app:s%2Fx@[::1]:3307/shop")
    main = loaded({"engine": "mysql", "primary": {"url": "${env:ROUTER_T_URL}"}})
    login = main.login(main.primary, writer=False)
    assert (main.primary.host, main.primary.port) == ("::1", 3307)
    assert login is not None and login.password is not None and login.password.resolve().reveal() == "s/x"


@pytest.mark.parametrize(
    "url",
    ["", "db", "db:5432", "postgresql:///app", "//db", "postgresql://db:x", "postgresql://db:0", "postgresql://db:99999",
     "postgresql://u:p/w@db", "postgresql://db/app?password=x", "postgresql://db?sslmode=maybe", "postgresql://[::1",
     "postgresql://db:٣"],
)  # fmt: skip
def test_urls_that_are_none(url):
    """What is not the URL of a server is refused, and not repeated."""
    with pytest.raises(Flaw) as caught:
        parse_url(url, Path())
    assert not url or url not in f"{caught.value}{caught.value.remedy}"


def test_who_connects_where():
    """Writer or reader as asked for, the writer where there is no reader; a node's own user wins."""
    reader = {"username": "ro", "password": "y"}
    main = loaded(
        cluster(
            credentials={**CREDENTIALS, "reader": reader},
            replicas=[{"host": "a"}, {"host": "b", "username": "own"}],
        )
    )
    names = [
        (main.login(node, writer=writer) or pytest.fail("no login")).username
        for node in main.nodes
        for writer in (True, False)
    ]
    assert names == ["app", "ro", "app", "ro", "own", "own"]
    main = loaded(cluster())
    assert main.login(main.primary, writer=False) == main.login(main.primary, writer=True)
    assert loaded(SQLITE).login(loaded(SQLITE).primary, writer=True) is None


@pytest.mark.parametrize(
    ("host", "mode"),
    [("db.example", "verify-full"), ("10.0.0.1", "verify-full"), ("127.0.0.1.evil.example", "verify-full"),
     ("localhost.example", "verify-full"), ("localhost", "disable"), ("127.9.9.9", "disable"),
     ("::1", "disable"), ("/run/postgresql", "disable"), ("0.0.0.0", "verify-full")],
)  # fmt: skip
def test_tls_is_verified_unless_the_way_is_local(host, mode):
    """Without a word about TLS: verify-full, but none on loopback and Unix sockets; a given mode wins."""
    main = loaded(cluster(primary={"host": host}))
    assert main.tls_mode(main.primary) == mode
    for changes in ({"tls": {"mode": "require"}}, {"primary": {"host": host, "tls": "require"}}):
        main = loaded(cluster(**{"primary": {"host": host}, **changes}))
        assert main.tls_mode(main.primary) == "require"


def test_unproven_peers_are_a_warning():
    """A mode that does not prove who answers is allowed and told, except on this machine."""
    weak = {"tls": {"mode": "require"}}
    warnings = built(cluster(**weak)).warnings
    assert any("does not prove who answers" in warning.message for warning in warnings)
    local = built(cluster(primary={"host": "127.0.0.1"}, **weak), tenants={"acme": tenant()})
    assert not any("tls" in warning.message for warning in local.warnings)


def test_paths_are_relative_to_the_folder(tmp_path):
    """Database folders and certificates are found from the configuration, wherever the program runs."""
    (tmp_path / "ca.pem").write_text("x")
    clusters = {"main": cluster(tls={"ca": "ca.pem"}), "lite": SQLITE}
    config = parse({"version": 1, "clusters": clusters}, tmp_path)
    assert config.clusters["main"].tls.ca == str(tmp_path / "ca.pem")
    assert config.clusters["lite"].primary.path == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("main", "changes", "words"),
    [
        (cluster(engine="mysql"), {"isolation": "row", "database": None}, "mysql has no row security"),
        (cluster(database=None), {"isolation": "row"}, "no 'database' and neither has its cluster"),
        (cluster(), {"isolation": "cluster"}, "'database', 'schema' or 'row'"),
        (cluster(), {"key": "4711"}, "is for isolation: row"),
        (cluster(), {"role": "none"}, "is the word for no role"),
        (cluster(), {"schema": None}, "no 'schema'"),
        (cluster(), {"schema": "Acme"}, "not a valid database or schema name"),
        (cluster(), {"schema": "public"}, "reserved"),
        (cluster(), {"schemas": {"analytics": "pg_x"}}, "reserved"),
        (cluster(), {"schemas": {"a b": "x"}}, "not a valid name"),
        (cluster(database=None), {}, "no 'database' and neither has its cluster"),
        (cluster(), {"isolation": "database", "schema": None}, "no 'database'"),
        (cluster(), {"isolation": "database", "database": "acme"}, "is for isolation: schema"),
        (cluster(), {"cluster": "mian"}, "Did you mean 'main'?"),
        (cluster(), {"tier": "gold"}, "'gold' is not in router.yaml"),
        (cluster(), {"retries": {"min_wait": "2s"}}, "min_wait above its max_wait"),
        (cluster(), {"retries": {"attempts": 0}}, "at least 1"),
        (cluster(), {"caches": {}}, "unknown key"),
        (cluster(engine="mysql"), {"database": "x"}, "beside schema"),
        (SQLITE, {}, "SQLite has no schemas"),
    ],
)
def test_what_a_tenant_may_not_say(main, changes, words):
    """Each rule of a tenant refuses its breach, and says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        built(main, tenants={"acme": tenant(**changes)})
    assert words in str(caught.value) and len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["Acme", "a b", "../x", "", "a" * 64, "é"])
def test_tenant_ids_are_checked(name):
    """A tenant's id obeys the allow-list, whatever its place is called."""
    with pytest.raises(ConfigurationError, match="not a valid tenant id"):
        built(cluster(), tenants={name: tenant()})


DATABASE = {"isolation": "database", "schema": None}


@pytest.mark.parametrize(
    ("main", "first", "second"),
    [
        (cluster(), {}, {}),
        (cluster(), {"schemas": {"x": "shared"}}, {"schema": "b", "schemas": {"y": "shared"}}),
        (cluster(), {}, {"schema": "b", "schemas": {"y": "acme"}}),
        (cluster(), {"database": "app"}, {}),
        (cluster(), {**DATABASE, "database": "a"}, {**DATABASE, "database": "a"}),
        (cluster(), {**DATABASE, "database": "app"}, {}),
        (cluster(), {}, {**DATABASE, "database": "app"}),
        (cluster(engine="mysql"), {}, {**DATABASE, "database": "acme"}),
        (cluster(engine="mysql"), {"schemas": {"x": "b"}}, {"schema": "b"}),
        (SQLITE, {**DATABASE, "database": "a"}, {**DATABASE, "database": "a"}),
    ],
)
def test_two_tenants_in_one_place_are_refused(main, first, second):
    """Whatever way two tenants come to share rows, it is told with the name of both."""
    for one, two in ((first, second), (second, first)):
        with pytest.raises(ConfigurationError) as caught:
            built(main, tenants={"one": tenant(**one), "two": tenant(**two)})
        (problem,) = caught.value.problems
        assert problem.file.startswith("tenants.two.") and "tenants.one" in problem.message


def test_two_clusters_on_one_server_do_not_hide_a_shared_place():
    """The server counts, not the name of the cluster."""
    clusters = {
        "main": cluster(),
        "again": cluster(primary={"host": "DB"}),
        "other": cluster(primary={"host": "db2"}),
    }
    data = {"version": 1, "clusters": clusters}
    tenants = {"one": tenant(), "two": tenant(cluster="other")}
    assert set(parse({**data, "tenants": tenants}).tenants) == {"one", "two"}
    with pytest.raises(ConfigurationError, match="rows"):
        parse({**data, "tenants": {"one": tenant(), "two": tenant(cluster="again")}})


def test_places_apart_are_fine():
    """Other schemas, other databases and a tenant's own further schemas are no conflict."""
    tenants = {
        "a": tenant(schema="a", schemas={"x": "a_x", "again": "a"}),
        "b": tenant(schema="b"),
        "c": tenant(database="elsewhere"),
        "d": tenant(**DATABASE, database="d", schemas={"x": "x"}),
        "e": tenant(**DATABASE, database="e", schemas={"x": "x"}),
    }
    assert set(built(cluster(), tenants=tenants).tenants) == set(tenants)


def test_settings_are_inherited_key_by_key():
    """The tenant's own value wins, then its tier's, then defaults, then the built-in; each key for itself."""
    config = built(
        cluster(),
        defaults={
            "timeouts": {"acquire": "1s", "statement": "2s"},
            "slow_query": "3s",
            "consistency": "strong",
        },
        tiers={"gold": {"timeouts": {"statement": "4s"}, "slow_query": "5s"}},
        tenants={
            "a": tenant(tier="gold", slow_query="6ms", retries={"attempts": 1}),
            "b": tenant(schema="b"),
        },
    )
    a, b = config.tenants["a"].settings, config.tenants["b"].settings
    assert (a.acquire_timeout, a.statement_timeout, a.slow_query, a.retry_attempts) == (1.0, 4.0, 0.006, 1)
    assert (b.acquire_timeout, b.statement_timeout, b.slow_query, b.retry_attempts) == (1.0, 2.0, 3.0, 3)
    assert (a.consistency, a.connect_timeout) == (Consistency.STRONG, 5.0)
    assert (b.retry_min_wait, b.retry_max_wait) == (0.02, 1.0)


def test_nothing_is_slow_below_the_least_threshold_of_all() -> None:
    """Whoever sees a request end compares with one number, and looks at rules only above it."""
    rules = [{"tables": ["reports"], "threshold": "10s"}, {"tables": ["plans"], "threshold": "20ms"}]
    for given, least in (({}, 0.5), ({"slow_query": "10ms"}, 0.01), ({"slow_statements": rules}, 0.02)):
        settings = built(cluster(), defaults=given, tenants={"a": tenant()}).tenants["a"].settings
        assert settings.slow_least == least
    assert settings.slow_after("0" * 16, {"reports", "plans"}) == 10.0
    assert settings.slow_after("0" * 16, {"plans"}) == 0.02
    assert settings.slow_after("0" * 16, {"features"}) == 0.5


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("1.5h", 5400), ("10m", 600), ("1d", 86400), ("0s", 0)]
)
def test_durations(text, seconds):
    """A duration is a number and a unit."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["5", "", "s", "-1s", "5 s", "1h30m", "1e3s", "5S", "٣s", 5, None, "5s\n", "9" * 20 + "s"]
)
def test_what_is_no_duration(text):
    """Without a unit, or with anything else, it is refused."""
    with pytest.raises(Flaw, match="duration"):
        parse_duration(text)


def test_sizes():
    """A size is a whole number and a binary unit; decimal units are refused rather than guessed."""
    assert [parse_size(text) for text in ("1B", "2KiB", "8MiB", "1GiB")] == [1, 2048, 8 << 20, 1 << 30]
    for text in ("8MB", "8", "8 MiB", "1.5MiB", "-1B", 8, None):
        with pytest.raises(Flaw, match="size"):
            parse_size(text)
