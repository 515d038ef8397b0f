"""Loading again: what has not changed is not parsed anew, and what differs is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from router.config import loader as module
from router.config import parse
from router.config.difference import difference, in_force
from router.config.loader import Loader
from router.errors import ConfigurationError
from tests.folders import ROUTER, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "config", "acme", "globex", "initech")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the tenants' files that are parsed, in order; none counts as young."""
    names: list[str] = []
    real = module.read_string

    def seen(text: str, file: str) -> Any:
        names.append(Path(file).stem)
        return real(text, file)

    monkeypatch.setattr(module, "read_string", seen)
    monkeypatch.setattr(module, "_COARSE", 0)
    return names


def test_only_what_has_changed_is_parsed_again(folder: Folder, parsed: list[str]) -> None:
    """Of an unchanged file not even the text is looked at; the tenant is the same object."""
    loader = Loader(folder.path)
    before = loader.load()
    parsed.clear()
    folder.tenant("globex", "slow_query: 1s\n")
    folder.tenant("hooli")
    after = loader.load()
    assert sorted(parsed) == ["globex", "hooli"]
    assert after.tenants["acme"] is before.tenants["acme"]
    assert after.tenants["acme"].settings is after.tenants["hooli"].settings
    assert list(after.tenants) == ["acme", "globex", "hooli", "initech"]


def test_new_files_with_the_same_text_are_not_parsed(folder: Folder, parsed: list[str]) -> None:
    """A folder that was exchanged for a copy, as Kubernetes does it, is read, and known again."""
    loader = Loader(folder.path)
    before = loader.load()
    parsed.clear()
    folder.drop("acme")
    folder.tenant("acme")
    assert loader.load().tenants["acme"] is before.tenants["acme"]
    assert not parsed


def test_a_young_file_is_read_again_whatever_its_times_say(
    folder: Folder, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks of file systems are coarse: two changes may leave the same time behind."""
    monkeypatch.setattr(module, "_COARSE", 10**18)
    monkeypatch.setattr(module.os, "stat", lambda path: os.lstat(folder.path))
    loader = Loader(folder.path)
    loader.load()
    folder.tenant("acme", "slow_query: 1s\n")
    assert loader.load().tenants["acme"].settings.slow_query == 1


def test_what_tenants_inherit_reaches_all_of_them(folder: Folder, parsed: list[str]) -> None:
    """A changed default changes the tenants whose own files are the same."""
    loader = Loader(folder.path)
    before = loader.load()
    folder.router(ROUTER + "defaults: {slow_query: 7s}\n")
    after = loader.load()
    assert {each.settings.slow_query for each in after.tenants.values()} == {7}
    assert difference(before, after).tenants.changed == {"acme", "globex", "initech"}


def test_references_are_looked_up_at_each_load(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that names a variable may mean something else although it has not changed."""
    folder.tenant("acme", "slow_query: ${env:SLOW}\n")
    loader = Loader(folder.path)
    for seconds in (3, 4):
        monkeypatch.setenv("SLOW", f"{seconds}s")
        assert loader.load().tenants["acme"].settings.slow_query == seconds


def test_places_are_compared_over_all_tenants(folder: Folder, parsed: list[str]) -> None:
    """A new file cannot take the place of one that was not read again."""
    loader = Loader(folder.path)
    loader.load()
    text = "tenant: aaa\ncluster: main\nisolation: database\ndatabase: globex\n"
    (folder.path / "tenants" / "aaa.yaml").write_text(text)
    with pytest.raises(
        ConfigurationError, match=r"globex.yaml:4:11: database is a place that .*aaa.yaml has"
    ):
        loader.load()
    folder.drop("globex")
    assert sorted(loader.load().tenants) == ["aaa", "acme", "initech"]


def test_a_cluster_that_goes_takes_its_tenants_along(folder: Folder, parsed: list[str]) -> None:
    """Tenants that were fine are wrong once their cluster is gone, though nobody touched their files."""
    loader = Loader(folder.path)
    loader.load()
    folder.router(ROUTER.replace("main", "other"))
    with pytest.raises(ConfigurationError) as refused:
        loader.load()
    assert len(refused.value.problems) == 3
    folder.router()
    assert len(loader.load().tenants) == 3


def test_a_folder_that_changes_while_it_is_read_is_read_again(
    folder: Folder, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read in part before and in part after a change is nobody's configuration."""
    real = module._tenant_files
    turns = iter(range(9))

    def files(*given: Any) -> list[str]:
        found = real(*given)
        if next(turns) == 0:
            folder.drop("initech")
            folder.tenant("hooli")
        return found

    monkeypatch.setattr(module, "_tenant_files", files)
    assert sorted(Loader(folder.path).load().tenants) == ["acme", "globex", "hooli"]


def test_a_folder_that_never_rests_is_refused(
    folder: Folder, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries that is a mistake as others are."""
    real, numbers = module._tenant_files, iter(range(99))

    def files(*given: Any) -> list[str]:
        folder.tenant(f"t{next(numbers)}")
        return real(*given)

    monkeypatch.setattr(module, "_tenant_files", files)
    with pytest.raises(ConfigurationError, match="changes all the time"):
        Loader(folder.path).load()


def _config(**more: Any) -> Any:
    clusters = {"main": {"engine": "sqlite", "primary": {"path": "data"}}}
    tenants = {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}}
    return parse({"version": 1, "clusters": clusters, "tenants": tenants, **more})


def test_a_difference_names_what_needs_a_restart() -> None:
    """What is built once per process stays as it is, and is named at each reload until it is started anew."""
    old = _config()
    new = _config(
        cache={"size": "1MiB"},
        observability={"console": {"token": "a-long-token-of-the-console"}},
        tokens={"keys": ["a-key-of-sixteen-characters"]},
    )
    found = difference(old, new)
    assert found.restart == ("cache", "observability.console")
    assert (found.tokens, bool(found), bool(found.tenants)) == (True, True, False)
    kept = in_force(old, new)
    assert (kept.cache, kept.observability, kept.tokens) == (old.cache, old.observability, new.tokens)
    assert difference(kept, new).restart == found.restart
    assert not difference(new, new)
