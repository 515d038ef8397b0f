"""From exceptions to one line and an exit code."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import typer

from router.cli.screen import say
from router.errors import CatalogError, ConfigurationError, MissingExtra, RouterError, UsageError

P = ParamSpec("P")

_USAGE = (UsageError, CatalogError, ConfigurationError, MissingExtra)


class Code(IntEnum):
    """Say what an exit code means; 70 is EX_SOFTWARE of sysexits.h, 130 is 128 + SIGINT."""

    OK = 0
    NO = 1
    USAGE = 2
    INTERNAL = 70
    INTERRUPTED = 130


def guarded(command: Callable[P, Code]) -> Callable[P, None]:
    """Let ``command`` return its code, and turn whatever it raises into one line on stderr and a code.

    typer passes all arguments by name; the context among them says in ``obj`` if tracebacks are wanted.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(getattr(kwargs["ctx"], "obj", False))
        raise typer.Exit(_code_of(lambda: command(*args, **kwargs), debug=debug))

    return run


def _code_of(command: Callable[[], Code], *, debug: bool) -> Code:
    try:
        return command()
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except RouterError as error:
        say(str(error), "red")
        return Code.USAGE if isinstance(error, _USAGE) else Code.NO
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise  # typer's own business; it also ends quietly when the reader of a pipe has gone
    except Exception as exc:  # the last place that can tell it in one line
        _tell_internal(exc, debug=debug)
        return Code.INTERNAL


def _tell_internal(exc: Exception, *, debug: bool) -> None:
    """Tell where it happened; not the message, which is foreign and may hold a value."""
    if debug:
        say("".join(traceback.format_exception(exc)).rstrip())
        return
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    hint = "Run it again as `router --debug ...` for the traceback"
    say(f"internal error: {type(exc).__name__}{place}. {hint}", "red")
