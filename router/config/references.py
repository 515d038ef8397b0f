"""References in configured text: ``${env:NAME}``, ``${env:NAME:-default}`` and ``${file:PATH}``.

``$${`` stands for a literal ``${``. In a password the reference is kept and read anew for each connection,
so that a rotated secret is used without a restart; elsewhere it is resolved when the configuration is loaded.
Logins may also name what a store keeps, as ``${vault:PATH#FIELD}``; only the running router asks for that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from router.config.files import read_text, readable_by_all
from router.config.problems import Flaw, Found, Loc
from router.config.secret import MASK, Secret
from router.errors import ConfigurationError, Problem

_MAX_FILE = 1 << 16
_MAX_DEPTH = 20
_REFERENCE = re.compile(r"(\$\$\{)|\$\{([^{}]*)\}|(\$\{)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


class Literal(NamedTuple):
    """Hold text that stands for itself; it may be a password, so it is held as one."""

    text: Secret

    def read(self) -> str | Flaw:
        """Return the text."""
        return self.text.reveal()

    def __str__(self) -> str:
        return MASK


class Environment(NamedTuple):
    """Name an environment variable, and what stands for it where it is unset or empty."""

    name: str
    default: Secret | None

    def read(self) -> str | Flaw:
        """Return the variable's value, or the flaw that it has none."""
        if value := os.environ.get(self.name):
            return value
        if self.default is not None:
            return self.default.reveal()
        state = "empty" if self.name in os.environ else "not set"
        return Flaw(
            f"needs the environment variable {self.name}, which is {state}",
            f"Set it, or give a default: ${{env:{self.name}:-...}}",
        )

    def __str__(self) -> str:
        return f"${{env:{self.name}}}" if self.default is None else f"${{env:{self.name}:-{MASK}}}"


class File(NamedTuple):
    """Name a file whose text, less one newline at its end, is the value."""

    path: str

    def read(self) -> str | Flaw:
        """Return the file's text, or the flaw that it cannot be read."""
        try:
            text = read_text(self.path, _MAX_FILE)
        except Flaw as flaw:
            return Flaw(f"needs the file {self.path}, which {flaw.fact}", flaw.remedy)
        text = text.removesuffix("\n").removesuffix("\r")
        return text or Flaw(f"needs the file {self.path}, which is empty", "Write the value into it")

    def __str__(self) -> str:
        return f"${{file:{self.path}}}"


class Stored(NamedTuple):
    """Name a secret in a store that has to be asked for it, and a field of it; ``None`` for all of it."""

    store: str
    path: str
    field: str | None

    @property
    def source(self) -> str:
        """Return the secret's name with its store, without the field: what is read at once."""
        return f"${{{self.store}:{self.path}}}"

    def read(self) -> str | Flaw:
        """Return the flaw that it cannot be read here: only a router that runs asks a store."""
        return Flaw(
            f"is kept by a store ({self.store}), which is asked for logins to databases only",
            "Write ${env:NAME} or ${file:PATH} here",
        )

    def __str__(self) -> str:
        return self.source if self.field is None else f"{self.source[:-1]}#{self.field}}}"


Part = Literal | Environment | File | Stored

NONE: Mapping[Stored, Secret] = MappingProxyType({})
STORES = ("vault", "aws", "call")
_STORED = {
    # without "..", so that a path is what a policy of the store says of it
    "vault": re.compile(r"(?!.*\.\.)[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_. -]+)+"),
    "aws": re.compile(r"[A-Za-z0-9/_+=.@:-]{1,2048}"),
    "call": re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}"),
}
_FIELD = re.compile(r"[^\x00-\x1f\x7f#]{1,255}")


def parse_template(text: str, folder: Path) -> tuple[Part, ...]:
    """Return the parts of ``text``, with paths relative to ``folder``; raise :class:`Flaw` if it is odd."""
    parts: list[Part] = []
    end, plain = 0, ""
    for match in _REFERENCE.finditer(text):
        plain += text[end : match.start()]
        end = match.end()
        if match[1]:
            plain += "${"
            continue
        if plain:
            parts.append(Literal(Secret(plain)))
        plain = ""
        parts.append(_reference(match[2], folder))
    plain += text[end:]
    if plain or not parts:
        parts.append(Literal(Secret(plain)))
    return tuple(parts)


def _reference(body: str | None, folder: Path) -> Part:
    kind, _, rest = (body or "").partition(":")
    name, has_default, default = rest.partition(":-")
    if kind == "env" and _NAME.fullmatch(name):
        return Environment(name, Secret(default) if has_default else None)
    if kind == "file" and rest:
        return File(os.path.abspath(folder / rest))
    if kind in STORES:
        return _stored(kind, rest)
    raise Flaw(
        "has a reference that is not understood",
        "Write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, for a login also ${vault:PATH#FIELD}, "
        "${aws:NAME#FIELD} or ${call:NAME}, and $${ for a literal ${",
    )


def _stored(kind: str, rest: str) -> Stored:
    path, has_field, field = rest.partition("#")
    if _STORED[kind].fullmatch(path) and (_FIELD.fullmatch(field) if has_field else kind != "vault"):
        return Stored(kind, path, field or None)
    remedy = {
        "vault": "Write ${vault:PATH#FIELD}, such as ${vault:secret/data/app#password}",
        "aws": "Write ${aws:NAME} or, for a field of a JSON text, ${aws:NAME#FIELD}",
        "call": "Write ${call:NAME} or ${call:NAME#FIELD}",
    }
    raise Flaw(f"has a reference to {kind} that is not understood", remedy[kind])


def resolve_template(parts: tuple[Part, ...], given: Mapping[Stored, Secret] = NONE) -> str:
    """Return the text that ``parts`` make now, with what stores have ``given``.

    Raises :class:`Flaw` for what cannot be read.
    """
    texts = [
        given[part].reveal() if isinstance(part, Stored) and part in given else part.read() for part in parts
    ]
    flaw = next((text for text in texts if isinstance(text, Flaw)), None)
    if flaw is not None:
        del texts  # a traceback that shows locals must not show what was read
        raise flaw
    return "".join(str(text) for text in texts)


@dataclass(frozen=True, slots=True, repr=False)
class SecretReference:
    """Say where a secret comes from; :meth:`resolve` reads it anew each time.

    Shown as ``${env:NAME}`` or ``${file:PATH}`` with all literal text masked.
    """

    parts: tuple[Part, ...]

    @property
    def stored(self) -> tuple[Stored, ...]:
        """Return the parts that a store keeps."""
        return tuple(part for part in self.parts if isinstance(part, Stored))

    @classmethod
    def parse(cls, text: str | Secret, folder: Path = Path()) -> SecretReference:
        """Return the reference that ``text`` writes; a :class:`Secret` is taken literally.

        Raises :class:`Flaw` (a ``ValueError``) for a form that is not understood.
        """
        if isinstance(text, Secret):
            return cls((Literal(text),))
        return cls(parse_template(text, folder))

    def resolve(self, given: Mapping[Stored, Secret] = NONE) -> Secret:
        """Return the secret as it is now, with what stores have ``given`` for it.

        Raises :class:`ConfigurationError` if it cannot be read.
        """
        flaw = self.flaw(given)
        if flaw is None:
            return Secret(resolve_template(self.parts, given))
        raise ConfigurationError([Problem(str(self), 0, 0, flaw.fact, flaw.remedy)])

    def flaw(self, given: Container[Stored] = ()) -> Flaw | None:
        """Return why the secret cannot be read now, even if stores have ``given`` these parts of it."""
        for part in self.parts:
            if isinstance(part, Stored) and part in given:
                continue
            if isinstance(answer := part.read(), Flaw):
                return answer
        return None

    def exposed(self) -> tuple[str, ...]:
        """Return the paths of files in it that every user of the machine may read."""
        return tuple(
            part.path for part in self.parts if isinstance(part, File) and readable_by_all(part.path)
        )

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    def __repr__(self) -> str:
        return f"SecretReference('{self}')"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a pydantic field of this type take text or a Secret; it is written out masked."""
        return core_schema.with_info_plain_validator_function(
            cls._validated,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validated(cls, value: object, info: ValidationInfo) -> SecretReference:
        if isinstance(value, SecretReference):
            return value
        if not isinstance(value, str | Secret):
            raise Flaw("must be text", "Write it in quotes, better as ${env:NAME} or ${file:PATH}")
        return cls.parse(value, info.context or Path())


class Expanded(str):
    """Mark text that came from a reference, which is all that may stand for a number."""

    __slots__ = ()


def expand(data: Any, folder: Path, kept: Callable[[Loc], bool], found: list[Found], loc: Loc = ()) -> Any:
    """Return ``data`` with the references in its text resolved; those at the places that are ``kept`` stay.

    A username that a store keeps becomes a :class:`SecretReference`. What cannot be resolved is told in
    ``found``.
    """
    if isinstance(data, str):
        return _expanded(data, folder, found, loc) if "${" in data else data
    if len(loc) > _MAX_DEPTH:
        found.append(Found(loc[:1], f"is nested deeper than {_MAX_DEPTH} levels", "Use fewer levels"))
        return None
    if isinstance(data, Mapping):
        return {
            key: value if kept((*loc, key)) else expand(value, folder, kept, found, (*loc, key))
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [expand(value, folder, kept, found, (*loc, index)) for index, value in enumerate(data)]
    return data


def _expanded(text: str, folder: Path, found: list[Found], loc: Loc) -> str | SecretReference:
    try:
        reference = SecretReference(parse_template(text, folder))
        if reference.stored and loc[-1:] == ("username",):
            return reference
        return Expanded(resolve_template(reference.parts))
    except Flaw as flaw:
        found.append(Found(loc, flaw.fact, flaw.remedy))
    return text
