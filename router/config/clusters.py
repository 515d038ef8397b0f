"""Complete and check one cluster: what depends on its engine, and on several keys at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from router.config.models import ClusterConfig, CredentialsConfig, LoginConfig, NodeConfig
from router.config.problems import Found, Loc
from router.config.references import SecretReference, Stored
from router.identifiers import InvalidName, check_physical_name, shown

KNOWN_ENGINES = frozenset({"postgresql", "mysql", "mariadb", "sqlite"})
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_KIN = {"mariadb": "mysql"}  # either scheme may stand in a URL of the other
_SECRET_OPTION = re.compile("pass|secret|token", re.IGNORECASE)
_POSTGRESQL_ONLY = ("extensions", "server_settings", "resolve_commits", "pooler")
# What PgBouncer sets on each session that it lends (its manual, "track_extra_parameters" and before).
_TRACKED = frozenset(
    {"application_name", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
)
_SQLITE_NEVER = ("host", "port", "url", "username", "password", "tls")


def complete(cluster: ClusterConfig, folder: Path) -> ClusterConfig:
    """Return ``cluster`` with each node's name, host, port and path filled in and its URL taken apart."""
    nodes = [
        _node(node, cluster.engine, folder, "primary" if not index else f"replica-{index}")
        for index, node in enumerate(cluster.nodes)
    ]
    update: dict[str, object] = {}
    primary = nodes[0]
    if cluster.credentials is None and primary.username is not None:
        writer = LoginConfig(username=primary.username, password=primary.password)
        update["credentials"] = CredentialsConfig(writer=writer)
        primary = primary.model_copy(update={"username": None, "password": None})
    if cluster.database is None and cluster.primary.url is not None:
        update["database"] = cluster.primary.url.database
    paths = {name: value for name in ("ca", "certificate", "key") if (value := getattr(cluster.tls, name))}
    if paths:
        absolute = {name: os.path.abspath(folder / value) for name, value in paths.items()}
        update["tls"] = cluster.tls.model_copy(update=absolute)
    return cluster.model_copy(update={**update, "primary": primary, "replicas": tuple(nodes[1:])})


def _node(node: NodeConfig, engine: str, folder: Path, name: str) -> NodeConfig:
    update: dict[str, object] = {"name": node.name or name, "url": None}
    if node.path is not None:
        update["path"] = os.path.abspath(folder / node.path)
    if (url := node.url) is not None:
        update |= {
            "host": url.host,
            "username": url.username or node.username,
            "password": url.password or node.password,
            "tls": url.tls or node.tls,
        }
    port = node.port or (node.url.port if node.url else None)
    return node.model_copy(update={**update, "port": port or _PORTS.get(engine)})


def node_locs(cluster: ClusterConfig) -> Iterator[tuple[Loc, NodeConfig]]:
    """Yield each node with the way to it."""
    yield ("primary",), cluster.primary
    for index, node in enumerate(cluster.replicas):
        yield ("replicas", index), node


def check(cluster: ClusterConfig, folder: Path, known_engines: frozenset[str]) -> Iterator[Found]:
    """Yield what is wrong with ``cluster`` as written, before :func:`complete`."""
    if cluster.engine not in known_engines:
        yield Found(
            ("engine",), f"is {shown(cluster.engine)}", f"Choose one of {', '.join(sorted(known_engines))}"
        )
        return
    sqlite = cluster.engine == "sqlite"
    yield from _check_sqlite(cluster) if sqlite else _check_network(cluster)
    for key in _POSTGRESQL_ONLY if cluster.engine != "postgresql" else ():
        if getattr(cluster, key):
            yield Found((key,), "is for postgresql only", "Remove it", at_key=True)
    yield from _check_pooler(cluster)
    if cluster.connections.min > cluster.connections.max:
        yield Found(("connections", "min"), "is more than max", "Lower min or raise max")
    for key in ("options", "server_settings"):
        for option in getattr(cluster, key):
            if _SECRET_OPTION.search(option):
                # options are shown as they are; a password among them would be too
                yield Found((key, option), "is a secret", "Put it under credentials", at_key=True)
    yield from _check_names(cluster)
    yield from _check_tls_files(cluster, folder)
    yield from _check_secrets(cluster)


def _check_sqlite(cluster: ClusterConfig) -> Iterator[Found]:
    if cluster.primary.path is None:
        remedy = "Add path: the folder of the database files"
        yield Found(("primary",), "has no 'path'", remedy, absent=True)
    if cluster.replicas:
        yield Found(("replicas",), "is not for sqlite", "Remove it and set readers instead", at_key=True)
    for key in _SQLITE_NEVER:
        if getattr(cluster.primary, key) is not None:
            yield Found(("primary", key), "is not for sqlite", "Remove it; path is enough", at_key=True)
    if cluster.credentials is not None:
        yield Found(("credentials",), "is not for sqlite", "Remove it", at_key=True)
    for key in ("lag", "checks", "failover"):
        if key in cluster.model_fields_set:
            yield Found((key,), "is not for sqlite", "Remove it: its readers are never late", at_key=True)


def _check_network(cluster: ClusterConfig) -> Iterator[Found]:
    if "readers" in cluster.model_fields_set:
        yield Found(("readers",), "is for sqlite only", "Remove it and list replicas instead", at_key=True)
    for loc, node in node_locs(cluster):
        if node.path is not None:
            yield Found((*loc, "path"), "is for sqlite only", "Remove it and give host", at_key=True)
        if node.password is not None and node.username is None:
            yield Found(loc, "has a password but no username", "Add username", absent=True)
        if node.port is None and node.url is None and cluster.engine not in _PORTS:
            remedy = f"Add port: {cluster.engine} has no usual one"
            yield Found(loc, "has no 'port'", remedy, absent=True)
        if node.url is not None:
            yield from _check_url(cluster, loc, node)
        elif node.host is None and node.path is None:
            yield Found(loc, "has neither 'host' nor 'url'", "Add host: ...", absent=True)
    url = cluster.primary.url
    if cluster.credentials is None and not (cluster.primary.username or (url and url.username)):
        remedy = "Add credentials: {writer: {username: ..., password: ...}}"
        yield Found((), "has no 'credentials'", remedy, absent=True)


def _check_url(cluster: ClusterConfig, loc: Loc, node: NodeConfig) -> Iterator[Found]:
    url, here = node.url, (*loc, "url")
    assert url is not None  # noqa: S101 - asked by the caller; for the type checker
    if _KIN.get(url.engine, url.engine) != _KIN.get(cluster.engine, cluster.engine):
        yield Found(here, f"has another scheme than the engine {cluster.engine}", "Correct one of the two")
    if not url.host:
        yield Found(here, "names no host", "Write scheme://user:password@host:port/database")
    if url.password is not None and url.username is None:
        yield Found(here, "has a password but no user", "Write user:password@host")
    for key in ("host", "port"):
        if getattr(node, key) is not None:
            yield Found((*loc, key), "is given beside url", "Give either url or host and port", at_key=True)
    for key, given in (("username", url.username), ("password", url.password), ("tls", url.tls)):
        if given is not None and getattr(node, key) is not None:
            yield Found((*loc, key), "is given twice: here and in url", "Remove one of the two", at_key=True)
    if url.username is not None and cluster.credentials is not None:
        yield Found(here, "has a user, and the cluster has credentials", "Remove one of the two")
    yield from _check_url_database(cluster, here, url.database)


def _check_url_database(cluster: ClusterConfig, here: Loc, database: str | None) -> Iterator[Found]:
    if database is None:
        return
    try:
        check_physical_name(database)
    except InvalidName as error:
        yield Found(here, f"has a database that is refused: {error.fact}", error.remedy)
    expected = cluster.database or (cluster.primary.url.database if cluster.primary.url else None)
    if database != expected:
        yield Found(here, "names another database than the cluster", "Remove it from the url, or correct it")


def _check_pooler(cluster: ClusterConfig) -> Iterator[Found]:
    if cluster.pooler is None:
        return
    for setting in cluster.server_settings:
        if setting.lower() not in _TRACKED:
            fact = "cannot be set behind a pooler that gives each transaction another session"
            remedy = "Set it on the server: ALTER ROLE ... SET, or in PgBouncer's connect_query"
            yield Found(("server_settings", setting), fact, remedy, at_key=True)


def _check_names(cluster: ClusterConfig) -> Iterator[Found]:
    seen: set[str] = set()
    for index, (loc, node) in enumerate(node_locs(cluster)):
        name = node.name or (f"replica-{index}" if index else "primary")
        if name in seen:
            yield Found((*loc, "name"), f"{shown(name)} is used twice in this cluster", "Choose another")
        seen.add(name)


def _check_tls_files(cluster: ClusterConfig, folder: Path) -> Iterator[Found]:
    tls = cluster.tls
    for key in ("ca", "certificate", "key"):
        path = getattr(tls, key)
        if path is not None and not os.access(folder / path, os.R_OK):
            yield Found(("tls", key), f"names {shown(path)}, which cannot be read", "Put the file there")
    if tls.key is not None and tls.certificate is None:
        yield Found(("tls",), "has a key but no certificate", "Add certificate", absent=True)


def _secrets(cluster: ClusterConfig) -> Iterator[tuple[Loc, SecretReference]]:
    for loc, node in node_locs(cluster):
        if isinstance(node.username, SecretReference):
            yield (*loc, "username"), node.username
        if node.password is not None:
            yield (*loc, "password"), node.password
        if node.url is not None and node.url.password is not None:
            yield (*loc, "url"), node.url.password
    for role in ("writer", "reader", "monitor"):
        login: LoginConfig | None = getattr(cluster.credentials, role, None)
        if login is not None and isinstance(login.username, SecretReference):
            yield ("credentials", role, "username"), login.username
        if login is not None and login.password is not None:
            yield ("credentials", role, "password"), login.password


def _check_secrets(cluster: ClusterConfig) -> Iterator[Found]:
    for loc, secret in _secrets(cluster):
        if (flaw := secret.flaw(given=secret.stored)) is not None:
            yield Found(loc, flaw.fact, flaw.remedy)


def stored(cluster: ClusterConfig) -> Iterator[tuple[Loc, Stored]]:
    """Yield what the logins of ``cluster`` need of stores, with the way to it."""
    for loc, secret in _secrets(cluster):
        yield from ((loc, part) for part in secret.stored)


def remarks(cluster: ClusterConfig) -> Iterator[Found]:
    """Yield what is allowed but risky: secret files that all may read, connections without a checked peer."""
    for loc, secret in _secrets(cluster):
        for path in secret.exposed():
            fact = f"is in {path}, which every user of this machine may read"
            yield Found(loc, fact, "Take the permission away: chmod o-r")
    for loc, node in node_locs(cluster):
        mode = node.tls or (node.url.tls if node.url else None) or cluster.tls.mode
        local = node.local or (node.url is not None and NodeConfig(host=node.url.host).local)
        if mode in ("disable", "allow", "prefer", "require") and not local:
            remedy = "Use verify-full, and tls.ca for an authority of your own"
            yield Found(loc, f"is reached with tls mode {mode}, which does not prove who answers", remedy)
