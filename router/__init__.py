"""Route (tenant, schema, statement) to the right database connection.

``from router import Router`` is all that most programs need.
"""

import logging

from router import carrying
from router.capture import Failure, Success, capture
from router.config import Config, Secret, load, parse
from router.consistency import Bounded, Consistency
from router.context import Context, acting
from router.dispatcher import Dispatcher, Subscription
from router.drivers.registry import engines, register
from router.errors import (
    CommitOutcomeUnknown,
    ConfigurationError,
    DatabaseError,
    RouterError,
    StaleReadError,
)
from router.predicates import (
    is_check_violation,
    is_connection_lost,
    is_deadlock,
    is_foreign_key_violation,
    is_not_null_violation,
    is_read_only,
    is_retryable,
    is_serialization_failure,
    is_timeout,
    is_unique_violation,
)
from router.reasons import Reason
from router.router import Router
from router.rows import Column, Result, Row
from router.session import Session
from router.status import Explanation, NodeStatus, Ping, Status
from router.topology import Role
from router.transaction import Transaction
from router.watching import Watch

__all__ = [
    # the facade
    "Router",
    "Watch",
    "Session",
    "Transaction",
    # results
    "Row",
    "Result",
    "Column",
    "Success",
    "Failure",
    "capture",
    # configuration
    "Config",
    "Secret",
    "load",
    "parse",
    "register",
    "engines",
    # words
    "Consistency",
    "Bounded",
    "Reason",
    "Role",
    "Explanation",
    "Status",
    "NodeStatus",
    "Ping",
    # tokens in headers, cookies and messages
    "carrying",
    # events: the classes are in router.events
    "acting",
    "Context",
    "Dispatcher",
    "Subscription",
    # errors: the whole tree is in router.errors
    "RouterError",
    "ConfigurationError",
    "DatabaseError",
    "CommitOutcomeUnknown",
    "StaleReadError",
    # predicates, the same on every engine
    "is_unique_violation",
    "is_foreign_key_violation",
    "is_not_null_violation",
    "is_check_violation",
    "is_deadlock",
    "is_serialization_failure",
    "is_timeout",
    "is_connection_lost",
    "is_read_only",
    "is_retryable",
]

__version__ = "0.1.0"

# a library is silent unless the application configures logging
logging.getLogger("router").addHandler(logging.NullHandler())
