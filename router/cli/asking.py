"""Ask the web application of running processes; the token never stands on a command line, nor in a URL."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from getpass import getpass
from http.client import HTTPException, HTTPMessage
from typing import IO, Annotated, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import typer

from router.cli.scraping import flaw
from router.errors import UsageError
from router.picture import FORMAT

VARIABLE: Final = "ROUTER_CONSOLE_TOKEN"
"""Name of the environment variable that holds the token."""

_MOST: Final = 64 * 1024 * 1024  # bytes of an answer
_PATHS: Final = ("/status", "/slow", "/console", "/metrics")
_REFUSED: Final = {
    401: f"does not know this token; set {VARIABLE} to that of observability.console",
    404: "has no such page: it has no token, or is no router. Name where its web application is mounted",
    429: "was asked with too many wrong tokens. Wait before you try again",
}

Urls = Annotated[
    list[str],
    typer.Argument(
        metavar="URL", help="Where the web application of each process is mounted.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what one process said, or why it said nothing."""

    url: str
    data: Any = None
    error: str | None = None


class _Here(HTTPRedirectHandler):
    """Follow nobody elsewhere: the token is meant for who was asked."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        return None


def roots(urls: Iterable[str]) -> list[str]:
    """Return the URLs without a slash, or the name of a page, at their ends; refuse what cannot be asked."""
    found = []
    for url in urls:
        if (why := flaw(url)) is not None:
            raise typer.BadParameter(f"a URL {why}")
        root = url.rstrip("/")
        for path in _PATHS:
            root = root.removesuffix(path)
        found.append(root)
    return found


def token() -> str:
    """Return the token of the environment, or ask for it where somebody can answer."""
    found = os.environ.get(VARIABLE, "")
    if not found and sys.stdin.isatty():
        found = getpass("token of the console: ")
    if not found:
        raise UsageError(
            f"the processes ask for the token of observability.console. Set {VARIABLE}, best from a file: "
            f"{VARIABLE}=$(cat console-token) router ..."
        )
    if not found.isascii() or not found.isprintable():
        raise UsageError("the token has characters that no token has. Set it without line breaks")
    return found


def ask(urls: Iterable[str], path: str, secret: str, timeout: float) -> list[Answer]:
    """Ask all processes at once, each for ``timeout`` seconds at most."""
    with ThreadPoolExecutor(32) as threads:
        return list(threads.map(partial(_ask, path=path, secret=secret, timeout=timeout), urls))


def pictures(urls: Iterable[str], secret: str, timeout: float) -> list[Answer]:
    """Ask all processes at once for their pictures; what is none of this version is an error."""
    return [_read(each) for each in ask(urls, "/status", secret, timeout)]


def _read(answer: Answer) -> Answer:
    data: Any = answer.data
    if answer.error is None and (not isinstance(data, dict) or data.get("format") != FORMAT):
        return Answer(answer.url, error="answers with something else; is it of another version?")
    return answer


def _ask(url: str, path: str, secret: str, timeout: float) -> Answer:
    headers = {"Authorization": f"Bearer {secret}", "Accept": "application/json"}
    request = Request(f"{url}{path}", headers=headers)  # noqa: S310 - only http and https, see roots()
    try:
        with build_opener(_Here).open(request, timeout=timeout) as answer:
            return Answer(url, json.loads(answer.read(_MOST)))
    except HTTPError as exc:
        exc.close()
        return Answer(url, error=_REFUSED.get(exc.code, f"answers with {exc.code}"))
    except URLError as exc:
        return Answer(url, error=str(exc.reason))
    except (OSError, HTTPException) as exc:
        return Answer(url, error=str(exc) or type(exc).__name__)
    except ValueError:
        return Answer(url, error="answers with something else than JSON")
