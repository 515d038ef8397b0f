"""Which process of ``make test`` runs what: whole files, since each process makes what a file's tests share.

The longest files come first: one that a process begins last keeps the others waiting at the end. Tests that
are timed come last of all, one after the other: before and after each of them the others have to wait.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

_LONGEST = (
    "test_failover",
    "test_dashboards_live",
    "test_consistency",
    "test_network",
    "test_cancellation",
    "test_cache_broadcast",
    "test_commit_outcome",
    "test_process",
    "test_cli",
    "test_cache_figures",
    "test_cache_shared",
    "test_drivers_failing",
    "test_cancellation_servers",
    "test_consistency_reads",
    "test_tls",
    "test_servers",
    "test_cache_memory",
    "test_cache_remote",
    "test_differential",
    "test_walls",
)
_TIMED = "timed"


def is_timed(item: pytest.Item) -> bool:
    """Tell whether a test measures time, so that no other may run meanwhile."""
    return item.get_closest_marker(_TIMED) is not None


def name_timed(metafunc: pytest.Metafunc) -> None:
    """Let the ids of timed tests say so: nothing else of a test is known to the process that shares out."""
    if is_timed(metafunc.definition):
        metafunc.fixturenames.append(_TIMED)
        metafunc.parametrize(_TIMED, [None], ids=[_TIMED], indirect=True)


def turn(item: pytest.Item) -> tuple[bool, int]:
    """Return what tests are sorted by."""
    name = item.path.stem
    return is_timed(item), _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)


class ByFile(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types of this one
    """Give each process a file at a time, and all that is timed to one.

    xdist's own groups do nothing with pytest 9.2: they rename tests by an attribute that is gone (xdist 3.8).
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return what the test is handed out together with."""
        file, _, name = nodeid.partition("::")
        values = name.partition("[")[2].rstrip("]").split("-")
        return _TIMED if _TIMED in values else file
