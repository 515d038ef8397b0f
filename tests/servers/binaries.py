"""Where the programs of a server are, and which user of the system may run them."""

import os
import pwd
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOW = (
    "Run `make test` as root on a Debian-like system and it installs it, or put postgresql, mariadb-server, "
    "redis-server, memcached, prometheus and chromium of your system's packages on the PATH"
)


class ServerMissing(Exception):
    """Say which server is not on this machine and how to get it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. {HOW}")


@dataclass(frozen=True)
class Account:
    """Name the user of the system that a server runs as; ``None`` inside means: the one we are."""

    uid: int | None = None
    gid: int | None = None

    def popen(self) -> dict[str, Any]:
        """Return the arguments that make ``subprocess`` switch to this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make ``path`` the property of this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account(name: str) -> Account:
    """Return who runs the server: ``name`` if we are root, which servers refuse to be; else ourselves."""
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ServerMissing(f"the user {name} does not exist, and root must not run its server") from None
    return Account(entry.pw_uid, entry.pw_gid)


def _distribution_folders() -> Iterable[Path]:
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    yield from map(Path, ("/usr/sbin", "/usr/local/sbin", "/usr/libexec"))


def find(*programs: str) -> Path:
    """Return a folder that has all of ``programs``, which must fit each other; else raise ``ServerMissing``.

    A package may put a link to one of them elsewhere on the PATH; its real folder counts.
    """
    on_path = [Path(found).resolve().parent for program in programs if (found := shutil.which(program))]
    for folder in (*on_path, *_distribution_folders()):
        if all(os.access(folder / program, os.X_OK) for program in programs):
            return folder
    raise ServerMissing(f"{programs[0]} is not installed")


def search_path(*folders: Path) -> str:
    """Return a PATH that starts with ``folders``."""
    usual = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*map(str, folders), *usual, "/usr/sbin"])
