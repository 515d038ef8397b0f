"""Install the servers that the tests need: ``python -m tests.servers.install``.

With ``bench`` behind it also the proxy that only ``make bench`` compares with.
Quick when all are there. As root on a Debian-like system it installs what is missing from the system's own
packages; elsewhere it says in one line what to do, and the tests of a missing server skip (with ``CI=true``:
fail). No service of the system is started: the tests start servers of their own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.binaries import ServerMissing, find

_NEEDED = {
    "postgresql": ("postgres", "initdb", "pg_basebackup", "psql"),
    "mariadb-server": ("mariadbd",),
    "redis-server": ("redis-server",),
    "memcached": ("memcached",),
    "pgbouncer": ("pgbouncer",),
    "prometheus": ("prometheus", "promtool"),
    "chromium": ("chromium",),  # which the tests of the console drive
}
_PROXIES = {"pgpool2": ("pgpool",)}  # only `make bench` compares with them
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing(needed: Mapping[str, tuple[str, ...]] = _NEEDED) -> list[str]:
    """Return the packages whose programs this machine lacks, of those in ``needed``."""

    def lacks(programs: tuple[str, ...]) -> bool:
        try:
            find(*programs)
        except ServerMissing:
            return True
        return False

    return [package for package, programs in needed.items() if lacks(programs)]


@contextmanager
def _no_services() -> Iterator[None]:
    """Make packages start no service while they are installed: 101 is "not allowed" in Debian's policy."""
    before = _POLICY.read_text() if _POLICY.exists() else None
    mode = _POLICY.stat().st_mode if before is not None else 0o755
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            _POLICY.unlink()
        else:
            _POLICY.write_text(before)
            _POLICY.chmod(mode)


def _apt(*arguments: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-q", *arguments], env=environment, stdin=subprocess.DEVNULL, check=True)


def main(arguments: Sequence[str] = ()) -> int:
    """Install what is missing where we may, else say how; fail only if an installation fails."""
    needed = _NEEDED | _PROXIES if "bench" in arguments else _NEEDED
    packages = missing(needed)
    if not packages:
        return 0
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Some of this needs {names}: install with your package manager, else it is left out")
        return 0
    print(f"Installing {names}, without starting any service", flush=True)
    with _no_services():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *packages)
    if packages := missing(needed):
        print(f"Still missing after installation: {' '.join(packages)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
