"""The stores that keep passwords: how they are reached, and whether what logins name can be had from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from router.config.fields import PositiveDuration, Text
from router.config.problems import Found, Loc
from router.config.references import SecretReference, Stored
from router.config.section import Section
from router.errors import ConfigurationError, Problem
from router.identifiers import shown

LOC: Loc = ("secrets",)
TOKEN: Loc = ("secrets", "vault", "token")
SECRET_ID: Loc = ("secrets", "vault", "secret_id")

_PACKAGES = {"vault": "hvac", "aws": "boto3"}  # each is the extra of its store's name
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class VaultConfig(Section):
    """Say where Vault or OpenBao is, and how the router proves who it is."""

    address: Text | None = None
    """Such as https://vault:8200; the environment variable VAULT_ADDR if left out."""
    namespace: Text | None = None
    """Namespace of all paths; VAULT_NAMESPACE if left out."""
    auth: Literal["token", "kubernetes", "approle"] = "token"
    """token: one that somebody keeps alive, such as an agent; kubernetes, approle: the router logs in."""
    token: SecretReference | None = None
    """With auth: token; read anew each time, best as ${file:PATH}. VAULT_TOKEN if left out."""
    role: Text | None = None
    """With auth: kubernetes, the role to log in as."""
    service_token: Text = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
    """With auth: kubernetes, the file of the service account's token."""
    role_id: Text | None = None
    """With auth: approle."""
    secret_id: SecretReference | None = None
    """With auth: approle, best as ${env:NAME} or ${file:PATH}."""
    mount: Text | None = None
    """Where the login method is mounted; under its own name if left out."""
    ca: Text | None = None
    """File of the authorities to trust, relative to the folder; VAULT_CACERT or the system's if left out."""


class AwsConfig(Section):
    """Say how AWS Secrets Manager is reached; boto3 finds by itself what is left out."""

    region: Text | None = None
    """Such as eu-central-1."""
    endpoint: Text | None = None
    """Instead of the region's own, such as that of a VPC."""
    profile: Text | None = None
    """Of the files in ~/.aws."""


class SecretsConfig(Section):
    """Say where the stores are, and how long a secret is used before it is read anew."""

    refresh: PositiveDuration = Field(default="5m", validate_default=True)
    """What was read is used for so long, and no longer than two thirds of its lease."""
    timeout: Annotated[PositiveDuration, Field(le=60)] = Field(default="2s", validate_default=True)
    """How long a store may take to answer."""
    vault: VaultConfig = VaultConfig()
    """Vault or OpenBao."""
    aws: AwsConfig = AwsConfig()
    """AWS Secrets Manager."""


Used = tuple[Loc, Stored]


def check(
    config: SecretsConfig, used: Collection[Used], folder: Path, functions: Collection[str] | None
) -> Iterator[Found]:
    """Yield what is wrong: with the stores that logins use, and with what these name.

    ``functions`` are the names that the application gives; ``None`` where that is not known.
    """
    for loc, stored in used:
        package = _PACKAGES.get(stored.store)
        if package is not None and find_spec(package) is None:
            fact = f"is kept by a store ({stored.store}) that needs {package}, which is not installed"
            yield Found(loc, fact, f"Install it with: pip install 'tenant-router[{stored.store}]'")
        if stored.store == "call" and functions is not None and stored.path not in functions:
            yield _unknown(loc, stored.path, functions)
    if any(stored.store == "vault" for _, stored in used):
        yield from _check_vault(config.vault, folder)


def check_functions(needed: Iterable[Stored], functions: Collection[str]) -> None:
    """Raise ConfigurationError if logins need functions that the application does not give."""
    missing = [each for each in needed if each.store == "call" and each.path not in functions]
    if missing:
        found = [_unknown((), each.path, functions) for each in missing]
        raise ConfigurationError(
            [
                Problem(str(each), 0, 0, f"it {said.message}", said.remedy)
                for each, said in zip(missing, found, strict=True)
            ]
        )


def _unknown(loc: Loc, name: str, functions: Iterable[str]) -> Found:
    known = ", ".join(sorted(map(shown, functions))) or "none"
    fact = f"needs the function {shown(name)}, which the application does not give (known: {known})"
    return Found(loc, fact, f"Give it: Router.open(..., secrets={{{shown(name)}: function}})")


def _check_vault(vault: VaultConfig, folder: Path) -> Iterator[Found]:
    here: Loc = (*LOC, "vault")
    address = vault.address or os.environ.get("VAULT_ADDR")
    if not address:
        yield Found(here, "has no 'address'", "Add address: https://..., or set VAULT_ADDR", absent=True)
    elif not _is_address(address):
        # not repeated: it may hold a password
        fact = "is not the address of a server (or VAULT_ADDR, where it is left out)"
        yield Found((*here, "address"), fact, "Write https://host:port, without a user")
    yield from _AUTH[vault.auth](vault, here)
    files = {"ca": vault.ca, "service_token": vault.service_token if vault.auth == "kubernetes" else None}
    for key, file in files.items():
        if file is not None and not os.access(folder / file, os.R_OK):
            yield Found((*here, key), f"names {shown(file)}, which cannot be read", "Put the file there")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # its text repeats the address
        return False


def _check_token(vault: VaultConfig, here: Loc) -> Iterator[Found]:
    if vault.token is None:
        if not os.environ.get("VAULT_TOKEN"):
            remedy = "Add token: ${file:PATH}, set VAULT_TOKEN, or choose another auth"
            yield Found(here, "has no 'token'", remedy, absent=True)
    elif (flaw := vault.token.flaw()) is not None:
        yield Found(TOKEN, flaw.fact, flaw.remedy)


def _check_kubernetes(vault: VaultConfig, here: Loc) -> Iterator[Found]:
    if vault.role is None:
        yield Found(here, "has no 'role'", "Add role: the role that Vault knows the router by", absent=True)


def _check_approle(vault: VaultConfig, here: Loc) -> Iterator[Found]:
    if vault.role_id is None:
        yield Found(here, "has no 'role_id'", "Add role_id: ...", absent=True)
    if vault.secret_id is None:
        yield Found(here, "has no 'secret_id'", "Add secret_id: ${file:PATH}", absent=True)
    elif (flaw := vault.secret_id.flaw()) is not None:
        yield Found(SECRET_ID, flaw.fact, flaw.remedy)


_AUTH: dict[str, Callable[[VaultConfig, Loc], Iterator[Found]]] = {
    "token": _check_token,
    "kubernetes": _check_kubernetes,
    "approle": _check_approle,
}


def remarks(config: SecretsConfig, used: Collection[Used]) -> Iterator[Found]:
    """Yield what is allowed but risky: a token that crosses a network in plain text, or that all may read."""
    if not any(stored.store == "vault" for _, stored in used):
        return
    vault = config.vault
    parts = urlsplit(vault.address or os.environ.get("VAULT_ADDR", ""))
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        fact = "is reached without TLS: whoever listens has the token and every password"
        yield Found((*LOC, "vault"), fact, "Write https:// in its address")
    for loc, reference in ((TOKEN, vault.token), (SECRET_ID, vault.secret_id)):
        for path in reference.exposed() if reference is not None else ():
            fact = f"is in {path}, which every user of this machine may read"
            yield Found(loc, fact, "Take the permission away: chmod o-r")
