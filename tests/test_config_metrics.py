"""Rules of observability.metrics: how many series there may be, and where workers leave theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import Router
from router.config import load
from router.metrics import BUCKETS
from tests.telling import finished
from tests.test_config_keys import built, folder, refused


def test_metrics_have_defaults(tmp_path: Path) -> None:
    """Without the section two hundred tenants have series, and a process shows its own."""
    metrics = load(folder(tmp_path, "")).observability.metrics
    assert (metrics.tenants, metrics.always, metrics.buckets, metrics.workers) == (200, (), (), None)


@pytest.mark.parametrize(
    ("given", "flaw"),
    [
        ("tenants: -1", "observability.metrics.tenants"),
        ("tenants: 10001", "observability.metrics.tenants"),
        ("buckets: [1s, 100ms]", "observability.metrics.buckets is not in rising order"),
        ("buckets: [1s, 1s]", "observability.metrics.buckets is not in rising order"),
        ("buckets: [0s]", "observability.metrics.buckets[0]"),
        ("always: [Not A Tenant]", "observability.metrics.always[0]"),
        ("workers: ''", "observability.metrics.workers is empty"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, given: str, flaw: str) -> None:
    """Each mistake is told with its place."""
    ((*_, message),) = refused(tmp_path, f"observability:\n  metrics: {{{given}}}\n")
    assert flaw in message


def test_a_router_counts_as_it_is_configured() -> None:
    """Bounds, buckets and the folder of workers reach the metrics, relative to the configuration."""
    given = {"tenants": 0, "always": ["acme"], "buckets": ["100ms", "1s"]}
    router = Router(built(observability={"metrics": given}))
    for tenant in ("acme", "globex"):
        router.dispatcher.emit(finished(tenant=tenant))
    value = router.metrics.registry.get_sample_value
    assert value("router_tenant_requests_total", {"tenant": "acme", "outcome": "ok"}) == 1
    assert value("router_tenant_requests_total", {"tenant": "_other", "outcome": "ok"}) == 1
    assert router.metrics.render().count(b"router_request_duration_seconds_bucket") == 3
    usual = Router(built())
    usual.dispatcher.emit(finished())
    assert usual.metrics.render().count(b"router_request_duration_seconds_bucket") == len(BUCKETS) + 1


async def test_workers_meet_in_the_folder_that_is_configured(tmp_path: Path) -> None:
    """It is relative to the configuration, and made if it is not there."""
    text = "observability: {metrics: {workers: run/metrics}}\n"
    async with Router.open(folder(tmp_path, text)):
        assert len(files(tmp_path / "run" / "metrics", "*.live")) == 1


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))
