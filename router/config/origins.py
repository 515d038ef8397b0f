"""Where each setting in force for a tenant comes from: its own file, its tier, the defaults, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from router.config.models import SettingsConfig
from router.config.values import Settings

# name as in the files: where it is in Settings
SETTINGS: Mapping[str, str] = {
    "consistency": "consistency",
    "freshness.max_time": "bounded.seconds",
    "freshness.max_bytes": "bounded.size",
    "freshness.wait": "wait",
    "freshness.otherwise": "otherwise",
    "timeouts.acquire": "acquire_timeout",
    "timeouts.connect": "connect_timeout",
    "timeouts.statement": "statement_timeout",
    "slow_query": "slow_query",
    "slow_statements": "slow_rules",
    "retries.attempts": "retry_attempts",
    "retries.min_wait": "retry_min_wait",
    "retries.max_wait": "retry_max_wait",
    "cache.rules": "cache_rules",
    "cache.auto": "cache_auto",
    "cache.dependencies": "cache_dependencies",
    "limits.connections": "limits.connections",
    "limits.waiting": "limits.waiting",
    "limits.weight": "limits.weight",
    "limits.rate": "limits.rate",
    "limits.burst": "limits.burst",
    "audit": "audit",
}


class Origin(NamedTuple):
    """Hold one setting: its name as in the files, the value in force, and who has set it."""

    name: str
    value: Any
    where: str  # the name of a section, several with "+" where they add up, "" if it is set nowhere


def origins(settings: Settings, sections: Mapping[str, SettingsConfig]) -> list[Origin]:
    """Return all settings in force; ``sections`` are those they were settled from, weakest first."""
    return [
        Origin(name, attrgetter(place)(settings), _where(attrgetter(name), name, sections))
        for name, place in SETTINGS.items()
    ]


def _where(get: Callable[[Any], Any], name: str, sections: Mapping[str, SettingsConfig]) -> str:
    setting = [where for where, section in sections.items() if get(section) not in (None, {})]
    # of these each section adds some; of all else the strongest one counts
    return "+".join(setting if name == "cache.dependencies" else setting[-1:])
