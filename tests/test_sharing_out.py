"""Files go to processes as a whole, and all that is timed goes to one, at the end."""

import pytest

from tests.sharing_out import ByFile, is_timed


def _group(nodeid: str) -> str:
    return ByFile._split_scope(ByFile.__new__(ByFile), nodeid)


def test_tests_of_a_file_go_together() -> None:
    """Whatever they are called with."""
    names = ("test_a", "test_b[postgresql-timed out]", "test_c[at.timed]")
    assert {_group(f"tests/test_x.py::{name}") for name in names} == {"tests/test_x.py"}


@pytest.mark.timed
@pytest.mark.parametrize("value", ["some-text"])
def test_what_is_timed_goes_together(value: str, request: pytest.FixtureRequest) -> None:
    """The mark alone does it: the id of this test was given its word."""
    assert _group(request.node.nodeid) == _group("tests/test_y.py::test_y[timed]") == "timed"


def test_what_is_timed_comes_last(request: pytest.FixtureRequest) -> None:
    """Of all that was collected here, the order of files after that."""
    timed = [is_timed(item) for item in request.session.items]
    assert timed == sorted(timed)
