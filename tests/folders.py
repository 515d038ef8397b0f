"""Configuration folders that change while a router works by them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROUTER = "version: 1\nclusters:\n  main: {engine: sqlite, primary: {path: data}}\n"
TENANT = "tenant: {0}\ncluster: main\nisolation: database\ndatabase: {0}\n"


class Folder:
    """A configuration folder on SQLite."""

    def __init__(self, path: Path, *tenants: str) -> None:
        self.path = path
        (path / "tenants").mkdir(parents=True)
        self.router()
        for each in tenants:
            self.tenant(each)

    def router(self, text: str = ROUTER) -> None:
        (self.path / "router.yaml").write_text(text)

    def tenant(self, name: str, more: str = "") -> None:
        (self.path / "tenants" / f"{name}.yaml").write_text(TENANT.format(name) + more)

    def drop(self, name: str) -> None:
        (self.path / "tenants" / f"{name}.yaml").unlink()


class Mounted:
    """The same as the kubelet mounts it: links to a folder of files that is swapped as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        path.mkdir(parents=True)

    def swap(self, files: dict[str, str]) -> None:
        """Put these files in the place of those before, in the order of kubelet's AtomicWriter."""
        self._number += 1
        new = self.path / f"..2026_11_21_{self._number}"
        for name, text in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)
        before = self.path / "..data"
        old = self.path / os.readlink(before) if before.is_symlink() else None
        (self.path / "..data_tmp").symlink_to(new.name)
        os.rename(self.path / "..data_tmp", before)
        tops = {name.split("/")[0] for name in files}
        for name in tops:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for each in self.path.iterdir():
            if not each.name.startswith("..") and each.name not in tops:
                each.unlink()
        if old is not None:
            shutil.rmtree(old)
