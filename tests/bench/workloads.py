"""The workloads: what every client asks its arm to do, again and again."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.arms import Arm
from tests.bench.texts import STREAMED

Operation = Callable[[int, int], Awaitable[None]]
"""Called with the number of the task and a key."""


@dataclass(frozen=True)
class Workload:
    """Name a workload and turn an arm into what its clients call."""

    name: str
    bind: Callable[[Arm], Operation]
    tasks: tuple[int, ...] = (1, 16)
    narrow: bool = False  # more tasks than connections
    heavy: bool = False  # a request takes so long that it is no use as a warm-up


def _mix(every: int) -> Callable[[Arm], Operation]:
    def bind(arm: Arm) -> Operation:
        def operation(task: int, key: int) -> Awaitable[None]:
            return arm.point_read(task, key) if key % every else arm.write(task, key)

        return operation

    return bind


def _rows(count: int) -> Callable[[Arm], Operation]:
    return lambda arm: lambda task, key: arm.rows(task, count)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("point_read", lambda arm: arm.point_read),
        Workload("mix_95_5", _mix(20)),
        Workload("mix_80_20", _mix(5)),
        Workload("write", lambda arm: arm.write),
        Workload("transaction", lambda arm: arm.transaction),
        Workload("rows_100", _rows(100)),
        Workload("rows_10000", _rows(10_000), heavy=True),
        Workload("insert_many", lambda arm: lambda task, key: arm.insert_many(task), heavy=True),
        Workload("stream", lambda arm: lambda task, key: arm.stream(task, STREAMED), tasks=(1,), heavy=True),
        Workload("oversubscribed", lambda arm: arm.point_read, tasks=(100,), narrow=True),
    )
}
"""Workloads that run on a server, by name."""

ALONE = ("decision", "tenants")
"""Workloads that only the router can run."""
