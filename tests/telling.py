"""Events as tests need them: complete, with what a test wants to say about them."""

from typing import Any

from router import events
from router.reasons import Reason
from router.topology import Node, Role
from router.waits import Waits

PRIMARY = Node("primary", "main", Role.PRIMARY, "db-1", 5432)
REPLICA = Node("r1", "main", Role.REPLICA, "db-2", 5432)

_STEPS = ("lookup", "execute", "fetch", "total")


def finished(node: Node | None = REPLICA, **given: Any) -> events.RequestFinished:
    """Return a read on a replica, or a write on the primary, that took no time unless told."""
    return events.RequestFinished(**_facts(node, given))


def failed(node: Node | None = PRIMARY, **given: Any) -> events.RequestFailed:
    """Return a failed write on the primary, or read on a replica."""
    error = {"error": "Deadlock", "code": "40P01", "message": "boom"}
    return events.RequestFailed(**_facts(node, error | given))


def _facts(node: Node | None, given: dict[str, Any]) -> dict[str, Any]:
    reads = node is not None and node.role is Role.REPLICA
    return {
        "at": 1.0,
        "tenant": "acme",
        "schema": None,
        "sql": "SELECT 1",
        "fingerprint": "f1",
        "kind": "read" if reads else "write",
        "tables": frozenset(),
        "node": node,
        "role": Role.REPLICA if reads else Role.PRIMARY,
        "reason": Reason.READ if reads else Reason.WRITE,
        "attempts": 1,
        "waits": Waits(),
        **dict.fromkeys(_STEPS, 0.0),
        **given,
    }
