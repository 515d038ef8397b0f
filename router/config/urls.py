"""A server written as one URL: ``postgresql://user:password@host:5432/database?sslmode=require``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from router.config.problems import Flaw
from router.config.references import Literal, Part, SecretReference, parse_template, resolve_template
from router.config.secret import MASK, Secret

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ENGINES = {"postgres": "postgresql"}
_SLOT = "router-reference-{}-"  # stands in the URL for a reference while it is taken apart


@dataclass(frozen=True, slots=True, repr=False)
class ServerUrl:
    """Hold the parts of a server's URL; ``None`` for what it does not say. The password stays a reference."""

    engine: str
    host: str
    port: int | None
    username: str | None
    password: SecretReference | None
    database: str | None
    tls: str | None

    def __repr__(self) -> str:
        return f"ServerUrl('{self}')"

    def __str__(self) -> str:
        secret = f":{MASK}" if self.password else ""
        user = f"{self.username or ''}{secret}@" if self.username or secret else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.engine}://{user}{host}{port}/{self.database or ''}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a pydantic field of this type take text; it is written out masked."""
        return core_schema.with_info_plain_validator_function(
            cls._validated,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validated(cls, value: object, info: ValidationInfo) -> ServerUrl:
        if isinstance(value, ServerUrl):
            return value
        if isinstance(value, Secret):
            value = value.reveal()
        if not isinstance(value, str):
            raise Flaw("must be text", "Write scheme://user:password@host:port/database")
        flaw: Flaw
        try:
            return parse_url(value, info.context or Path())
        except Flaw as error:
            flaw = error.with_traceback(None)
        del value  # a traceback that shows locals must not show it
        raise flaw


def parse_url(text: str, folder: Path) -> ServerUrl:
    """Return the parts of a URL; raise :class:`Flaw`, which never holds any of its text.

    References may stand anywhere in it. What they give is taken as it is, so only the password as written
    needs percent-encoding. A URL that is one reference as a whole is resolved first.
    """
    parts = parse_template(text, folder)
    if len(parts) == 1 and not isinstance(parts[0], Literal):
        parts = (Literal(Secret(resolve_template(parts))),)
    slots: dict[str, Part] = {
        _SLOT.format(index): part for index, part in enumerate(parts) if not isinstance(part, Literal)
    }
    plain = "".join(
        part.text.reveal() if isinstance(part, Literal) else _SLOT.format(index)
        for index, part in enumerate(parts)
    )
    return _assemble(plain, slots)


def _assemble(plain: str, slots: dict[str, Part]) -> ServerUrl:
    url = _split(plain)
    if url is None or not url.scheme or not url.netloc:
        del plain, url  # a traceback that shows locals must not show them
        raise Flaw("is not a URL of a server", "Write scheme://user:password@host:port/database")
    userinfo, _, address = url.netloc.rpartition("@")
    username, colon, password = userinfo.partition(":")
    host, port_text = _split_address(address)
    return ServerUrl(
        engine=_ENGINES.get(url.scheme, url.scheme),
        host=_filled(host, slots),
        port=_port(_filled(port_text, slots)),
        username=_filled(username, slots) or None,
        password=SecretReference(_secret_parts(password, slots)) if colon else None,
        database=_filled(url.path.removeprefix("/"), slots) or None,
        tls=_tls(url.query, slots),
    )


def _split(plain: str) -> SplitResult | None:
    try:
        return urlsplit(plain)
    except ValueError:  # its text repeats the URL
        return None


def _split_address(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = address.partition(":")
    return host, port


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        # not repeated: a password with an unencoded @ or / ends up here
        raise Flaw(
            "has no valid port", "Write a port of 1 to 65535; encode special characters as %40 (@), %2F (/)"
        )
    return int(text)


def _tls(query: str, slots: dict[str, Part]) -> str | None:
    mode = None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "sslmode":
            raise Flaw(
                "has a query parameter other than sslmode",
                "Write tls: and options: under the cluster instead",
            )
        mode = _filled(value, slots)
    if mode is not None and mode not in TLS_MODES:
        raise Flaw("has an unknown sslmode", f"Choose one of {', '.join(TLS_MODES)}")
    return mode


def _pieces(text: str, slots: dict[str, Part]) -> tuple[Part, ...]:
    pieces: list[Part] = []
    while text:
        slot = min((name for name in slots if name in text), key=text.index, default=None)
        before, text = (text, "") if slot is None else text.split(slot, 1)
        if before:
            pieces.append(Literal(Secret(unquote(before))))
        if slot is not None:
            pieces.append(slots[slot])
    return tuple(pieces)


def _secret_parts(text: str, slots: dict[str, Part]) -> tuple[Part, ...]:
    return _pieces(text, slots) or (Literal(Secret("")),)


def _filled(text: str, slots: dict[str, Part]) -> str:
    return resolve_template(_pieces(text, slots))
