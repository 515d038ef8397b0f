"""The one class that holds a secret: it shows itself nowhere, and gives its text only to who asks by name."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NoReturn, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

MASK = "***"


class Secret:
    """Hold a secret text; ``reveal()`` is the only way to it.

    ``str``, ``repr``, ``format`` and pydantic's serialisation give ``***``; a copy is the object itself;
    pickling raises ``TypeError``, since a pickle would be a plain copy on disk or on a wire.
    """

    __slots__ = ("_value",)

    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            kind = type(value).__name__  # type: ignore[unreachable]  # callers without a type checker
            del value  # a traceback that shows locals must not show it
            raise TypeError(f"a secret is text, not {kind}")
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the secret text. Use it at once; do not keep it."""
        return self._value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (text.encode(errors="surrogatepass") for text in (self._value, other._value))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled. Send a reference such as ${env:NAME} instead")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a pydantic field of this type take text, and show ``***`` when it is written out."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls._validated,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validated(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(value)
        raise ValueError("must be text")
