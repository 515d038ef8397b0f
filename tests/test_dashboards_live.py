"""Boards and alerts before a real Prometheus that scrapes a router in every trouble that they are for."""

import os
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.observe.boards import judged, look
from tests.observe.scene import Scene
from tests.servers.binaries import ServerMissing
from tests.servers.prometheus import promtool


async def test_every_panel_and_alert_has_data_in_its_situation(tmp_path: Path) -> None:
    """Calm fires nothing; then nothing that a board or an alert asks stays unanswered.

    promtool has no complaint about what the process shows.
    """
    try:
        scene = Scene(tmp_path)
    except ServerMissing as missing:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(str(missing))
    async with aclosing(scene.play()) as seen:  # what fails leaves nothing open for the next test
        async for watched in seen:
            assert promtool("check", "metrics", text=watched.exposition) == ""
            assert [figure for figure in judged(look(watched)) if not figure.ok] == []
