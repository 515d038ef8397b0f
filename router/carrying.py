"""Carry a token from one request, process or queue to the next: in a header, a cookie or with a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from http.cookies import SimpleCookie

HEADER = "X-Router-Token"
COOKIE = "router_token"

Text = str | bytes
Headers = Mapping[str, object] | Mapping[bytes, object] | Iterable[tuple[Text, object]]


def cookie(token: str, max_age: float, *, path: str = "/", secure: bool = True) -> str:
    """Return the value of a ``Set-Cookie`` header; ``max_age`` in seconds, best the lifetime of tokens.

    Scripts of the page do not see the cookie, and other sites' forms do not send it. ``secure=False`` lets it
    go over plain HTTP, as on a developer's machine.
    """
    morsel = SimpleCookie({COOKIE: token})[COOKIE]
    morsel.update({"max-age": str(int(max_age)), "path": path, "samesite": "Lax"})
    morsel["httponly"] = True
    morsel["secure"] = secure
    return morsel.OutputString()


def from_headers(headers: Headers) -> str | None:
    """Return the token in the headers of a request, else the one in its cookies; ``None`` if there is none.

    Takes a mapping, or pairs as ASGI has them, of text or bytes in any case. Whatever the headers hold, it
    raises nothing: whether a token is good is found out when it is used.
    """
    pairs = list(_pairs(headers))
    token = _first(pairs, HEADER)
    if token is not None:
        return token
    crumbs = (crumb.partition("=") for value in _all(pairs, "cookie") for crumb in value.split(";"))
    return next(
        (found for name, _, value in crumbs if name.strip() == COOKIE and (found := _bare(value))), None
    )


def to_message(headers: MutableMapping[str, str] | list[tuple[str, bytes]], token: str) -> None:
    """Put a token into the headers of a message, in place of one that is there.

    Takes a mapping, as Celery and AMQP have, or a list of names and bytes, as Kafka has.
    """
    if isinstance(headers, list):
        headers[:] = [pair for pair in headers if pair[0].lower() != HEADER.lower()]
        headers.append((HEADER, token.encode()))
        return
    for name in [name for name in headers if name.lower() == HEADER.lower()]:
        del headers[name]
    headers[HEADER] = token


def from_message(headers: Headers | None) -> str | None:
    """Return the token in the headers of a message, of text or bytes; ``None`` if there is none."""
    return None if headers is None else _first(_pairs(headers), HEADER)


def _pairs(headers: Headers) -> Iterator[tuple[str, str]]:
    """Yield the headers that are text, with their names in lower case."""
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if isinstance(name, Text) and isinstance(value, Text):
            yield _text(name).lower(), _text(value)


def _text(value: Text) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")  # which takes any byte


def _all(pairs: Iterable[tuple[str, str]], name: str) -> Iterator[str]:
    return (value for each, value in pairs if each == name.lower())


def _first(pairs: Iterable[tuple[str, str]], name: str) -> str | None:
    return next((found for value in _all(pairs, name) if (found := _bare(value))), None)


def _bare(value: str) -> str:
    """Return a value without spaces and quotes around it, which no token has."""
    return value.strip().strip('"')
