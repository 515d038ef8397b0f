"""Say why there is no connection to be had: who holds them, for how long, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import PoolDeadlock, PoolFull, PoolTimeout, RouterError
from router.pools.holders import Holder, listed
from router.topology import Node

Held = Sequence[tuple[float, Holder]]  # seconds and who


def _at(error: RouterError, node: Node) -> RouterError:
    return error.at(cluster=node.cluster, node=node.name)


def timed_out(
    node: Node, asked: float, used: int, most: int, waiting: int, held: Held, refusal: RouterError | None
) -> RouterError:
    """Return the error of who waited ``asked`` seconds in vain, as one of ``waiting``."""
    text = (
        f"no connection to {node.label} came free within {asked:.3g} s: {used} of {most} in use, "
        f"{waiting} waiting. Raise connections.max, or find who holds them for so long. "
        f"Held by {listed(held)}"
    )
    if refusal is not None:
        text += f". No more can be opened: {refusal.message}"
    return _at(PoolTimeout(text), node)


def full(node: Node, used: int, most: int, waiting: int, held: Held) -> RouterError:
    """Return the error of who may not even wait."""
    return _at(
        PoolFull(
            f"{waiting} tasks wait for a connection to {node.label} already, "
            f"and {used} of {most} are in use. Send fewer requests at once, or raise connections.max "
            f"or connections.waiting. Held by {listed(held)}"
        ),
        node,
    )


def deadlocked(node: Node, most: int, held: Held) -> RouterError:
    """Return the error of who would close the circle of tasks that wait for one another."""
    return _at(
        PoolDeadlock(
            f"each of the {most} connections to {node.label} is held by a task that waits for another one, "
            "so none can come free. Run the inner statement in the transaction that is open already, "
            f"or end that one first. Held by {listed(held)}"
        ),
        node,
    )
