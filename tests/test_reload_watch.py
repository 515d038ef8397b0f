"""Watching the folder: changes are taken over by themselves, once the folder is whole."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from router import Router, Watch, errors
from router.events import ConfigurationLoaded, ConfigurationRefused, Event
from tests.folders import ROUTER, TENANT, Folder, Mounted

QUICK = Watch(debounce=0.03, patience=0.4, poll=10.0)


class Heard:
    """Wait for what is told of configurations."""

    def __init__(self, router: Router) -> None:
        self._told: asyncio.Queue[Event] = asyncio.Queue()
        for kind in (ConfigurationLoaded, ConfigurationRefused):
            router.dispatcher.subscribe(kind, self._told.put_nowait)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self._told.get()

    async def tenants(self, count: int) -> Any:
        """Return what was told when there were so many tenants; nothing may be refused before."""
        while True:
            event = await self.next()
            assert isinstance(event, ConfigurationLoaded), event.message
            if event.tenants == count:
                return event


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "config", "acme")


async def test_a_watched_folder_is_reloaded_when_it_changes(folder: Folder) -> None:
    """Added, changed and removed files count without anybody asking."""
    async with Router.open(folder.path, watch=QUICK) as router:
        heard = Heard(router)
        folder.tenant("globex")
        assert (await heard.tenants(2)).tenants_added == 1
        folder.tenant("globex", "suspended: true\n")
        while not (await heard.next()).tenants_changed:
            pass
        with pytest.raises(errors.TenantSuspended):
            router.session("globex")
        folder.drop("globex")
        assert (await heard.tenants(1)).tenants_removed == 1


async def test_changes_are_found_where_no_event_tells_of_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without watchfiles, and on file systems without events, the folder is looked at now and then."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    async with Router.open(folder.path, watch=Watch(0.03, 0.4, poll=0.05)) as router:
        heard = Heard(router)
        folder.tenant("globex")
        await heard.tenants(2)


async def test_a_swap_by_kubernetes_is_one_change(tmp_path: Path) -> None:
    """The kubelet swaps the link ..data: what was mounted as one is taken over as one."""
    mounted = Mounted(tmp_path / "config")
    files = {"router.yaml": ROUTER, "tenants/acme.yaml": TENANT.format("acme")}
    mounted.swap(files)
    async with Router.open(mounted.path, watch=QUICK) as router:
        heard = Heard(router)
        mounted.swap({**files, "tenants/globex.yaml": TENANT.format("globex")})
        assert (await heard.tenants(2)).tenants_changed == 0
        third = {**files, "tenants/acme.yaml": TENANT.format("acme") + "slow_query: 9s\n"}
        mounted.swap(third)
        event = await heard.tenants(1)
        assert (event.tenants_removed, event.tenants_changed) == (1, 1)
        assert router.config.tenants["acme"].settings.slow_query == 9


async def test_tenants_that_are_mounted_by_themselves_are_swapped(tmp_path: Path) -> None:
    """A ConfigMap of tenants in a folder of its own: its links are inside of tenants/."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "router.yaml").write_text(ROUTER)
    mounted = Mounted(tmp_path / "config" / "tenants")
    mounted.swap({"acme.yaml": TENANT.format("acme")})
    async with Router.open(tmp_path / "config", watch=QUICK) as router:
        heard = Heard(router)
        mounted.swap({f"{name}.yaml": TENANT.format(name) for name in ("acme", "globex")})
        await heard.tenants(2)
        mounted.swap({"globex.yaml": TENANT.format("globex")})
        await heard.tenants(1)


async def test_a_folder_that_a_link_leads_to_is_followed(tmp_path: Path) -> None:
    """Tools that pull from git swap the folder itself: no event tells of that, a look does."""
    one, two = Folder(tmp_path / "one", "acme"), Folder(tmp_path / "two", "acme", "globex")
    link = tmp_path / "current"
    link.symlink_to(one.path)
    async with Router.open(link, watch=Watch(0.03, 0.4, poll=0.05)) as router:
        heard = Heard(router)
        (tmp_path / "next").symlink_to(two.path)
        os.rename(tmp_path / "next", link)
        await heard.tenants(2)


async def test_a_half_written_file_is_ignored(folder: Folder) -> None:
    """What does not parse yet is read again when it changes; nobody is told of a mistake that was none."""
    file = folder.path / "tenants" / "globex.yaml"
    async with Router.open(folder.path, watch=QUICK) as router:
        heard = Heard(router)
        text = TENANT.format("globex")
        file.write_text(text[:20])
        await asyncio.sleep(0.12)
        (folder.path / "tenants" / ".globex.yaml.swp").write_text("of an editor")
        (folder.path / "tenants" / "globex.yaml~").write_text("of an editor")
        file.write_text(text)
        assert (await heard.next()).tenants == 2


async def test_what_stays_wrong_is_refused_once(folder: Folder) -> None:
    """After some patience mistakes are told, and the last good configuration goes on, until it is mended."""
    async with Router.open(folder.path, watch=QUICK) as router:
        heard = Heard(router)
        folder.tenant("globex", "unknown: key\n")
        refused = await heard.next()
        assert isinstance(refused, ConfigurationRefused)
        assert "globex.yaml" in refused.message
        assert await router.fetch_all("SELECT 1", tenant="acme")
        folder.tenant("globex")
        assert (await heard.next()).tenants == 2


async def test_a_closed_router_watches_no_more(folder: Folder) -> None:
    """Nothing of the watching is left behind."""
    before = asyncio.all_tasks()
    async with Router.open(folder.path, watch=QUICK):
        await asyncio.sleep(0.1)
    assert asyncio.all_tasks() <= before


async def test_what_lies_elsewhere_is_watched_too(folder: Folder, tmp_path: Path) -> None:
    """A list of tenants that a pattern names may be anywhere."""
    listed = tmp_path / "listed.txt"
    listed.write_text("hooli\n")
    rule = "{file: ../listed.txt, cluster: main, isolation: database, database: 'p_{tenant}'}"
    folder.router(ROUTER + f"patterns:\n  - {rule}\n")
    async with Router.open(folder.path, watch=Watch(0.03, 0.4, poll=0.05)) as router:
        heard = Heard(router)
        router.session("hooli")
        listed.write_text("piper\n")
        await heard.next()
        router.session("piper")
        with pytest.raises(errors.UnknownTenant):
            router.session("hooli")


_FORKING = """
import asyncio, gc, os, sys
from pathlib import Path
from router import Router, Watch
from router.events import ConfigurationLoaded

async def main(folder):
    async with Router.open(folder, watch=Watch(debounce=0.03, poll=0.1)) as router:
        loaded = asyncio.Queue()
        router.dispatcher.subscribe(ConfigurationLoaded, loaded.put_nowait)
        await asyncio.sleep(0.1)
        if not (pid := os.fork()):
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        file = Path(folder, "tenants", "acme.yaml")
        file.with_name("globex.yaml").write_text(file.read_text().replace("acme", "globex"))
        async with asyncio.timeout(10):
            print((await loaded.get()).tenants)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_fork_leaves_the_watching_to_the_parent(folder: Folder) -> None:
    """The parent goes on to watch; the child ends in silence."""
    command = (sys.executable, "-W", "error", "-c", _FORKING, folder.path)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (out.decode(), err.decode()) == ("2\n", "")


async def test_only_a_folder_can_be_watched(folder: Folder) -> None:
    """A configuration made in code has no files, and cannot be read again."""
    with pytest.raises(errors.UsageError, match="no folder to watch"):
        Router.open(Router.open(folder.path).config, watch=True)
    async with Router.open(Router.open(folder.path).config) as router:
        with pytest.raises(errors.UsageError, match="Pass the new configuration"):
            await router.reload()
