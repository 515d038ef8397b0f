"""The storm: tasks cancelled at random moments, many at once, over a small pool."""

import random

from tests.engines import Engine
from tests.faults.storm import storm


async def test_a_storm_of_cancellations_mixes_nothing_up_and_leaves_nothing(engine: Engine) -> None:
    """No row of another tenant, no half write, no lost connection, session or exception (fault case 37)."""
    found = await storm(engine, 1_000, 0.6, random.Random(20))
    assert found.ok, found
    assert 200 < found.cancelled < 700
    assert found.discarded > 20
