"""The kinds of values that the models are made of: how each is checked, and how the JSON Schema tells it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from router.config.problems import Flaw
from router.config.references import Expanded, SecretReference
from router.config.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size
from router.identifiers import check_logical_name, check_physical_name, check_tenant_id

REFERENCE_PATTERN = r"\$\{(env|file):[^{}]+\}"

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253})|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,1023}")
_DIGITS = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def _number(value: object) -> object:
    """Turn the text of a resolved reference into a number; text as such is no number."""
    if not isinstance(value, Expanded):
        return value
    if _DIGITS.fullmatch(value) is None:
        raise Flaw("must be a number, and its reference gave something else", "Correct the variable or file")
    return float(value) if "." in value else int(value)


def _host(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not (_HOST.fullmatch(value) or _PATH.fullmatch(value)):
        # not repeated: user:password@host is a common slip
        raise Flaw("is not a host", "Write a name, an IP address or the absolute path of a Unix socket")
    return value


def _text(value: object) -> object:
    if isinstance(value, str) and (not value or any(ord(character) < 32 for character in value)):
        raise Flaw("is empty or has control characters", "Write the text itself, or remove the key")
    return value


def _login_name(value: object) -> object:
    if isinstance(value, SecretReference):
        return value
    if not isinstance(value, str):
        raise Flaw("must be text", "Write it in quotes")
    return _text(value)


def _key(value: object) -> object:
    """Return a key as text: most are numbers, which YAML reads as such."""
    return str(value) if type(value) is int else value


def _scalar(value: object) -> object:
    if isinstance(value, str | int | float | bool):
        return value
    raise Flaw("must be text, a number, true or false", "Write a single value")


def _setting(value: object) -> object:
    """Return a setting as the text that a server reads."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(_scalar(value))


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(one >= two for one, two in pairwise(values)):
        raise Flaw("is not in rising order", "Begin with the lowest, and write each once")
    return values


def _public_name(value: str) -> str:
    return check_physical_name(value, public=True)


def _numeric(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "string", "pattern": f"^{REFERENCE_PATTERN}$"}]})


def _named(schema: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({schema}|.*{REFERENCE_PATTERN}.*)$"})


Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
PositiveDuration = Annotated[Duration, Field(gt=0)]
RisingDurations = Annotated[
    tuple[PositiveDuration, ...], Field(strict=False, max_length=64), AfterValidator(_rising)
]
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN})
]
Port = Annotated[
    int,
    Field(ge=1, le=65535),
    BeforeValidator(_number),
    _numeric({"type": "integer", "minimum": 1, "maximum": 65535}),
]
Weight = Annotated[
    float,
    Field(ge=0, le=1000),
    BeforeValidator(_number),
    _numeric({"type": "number", "minimum": 0, "maximum": 1000}),
]
Natural = Annotated[int, BeforeValidator(_number), _numeric({"type": "integer", "minimum": 0})]
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
LoginName = Annotated[
    str | SecretReference,
    PlainValidator(_login_name),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
Host = Annotated[str, BeforeValidator(_host), WithJsonSchema({"type": "string", "minLength": 1})]
Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Scalar = Annotated[
    str | int | float | bool,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Setting = Annotated[str, BeforeValidator(_setting), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Isolation = Literal["database", "schema", "row"]
SettingName = Annotated[
    str,
    Field(pattern=r"^[a-z_][a-z0-9_]{0,30}\.[a-z_][a-z0-9_]{0,30}$"),
]
Key = Annotated[
    str,
    Field(max_length=200),
    BeforeValidator(_text),
    BeforeValidator(_key),
    WithJsonSchema({"type": ["string", "integer"]}),
]
TenantId = Annotated[str, BeforeValidator(check_tenant_id), _named("[a-z0-9][a-z0-9_-]{0,62}")]
PhysicalName = Annotated[str, BeforeValidator(check_physical_name), _named("[a-z_][a-z0-9_]{0,62}")]
ExtensionSchema = Annotated[str, BeforeValidator(_public_name), _named("[a-z_][a-z0-9_]{0,62}")]
LogicalName = Annotated[str, BeforeValidator(check_logical_name), _named("[a-z][a-z0-9_-]{0,62}")]
