"""The catalog: names resolve by look-up only; nothing is guessed and nothing is a default."""

import pytest

from router.config import parse
from router.errors import UnknownSchema, UnknownTenant
from router.tenants import Catalog
from router.topology import Cluster, Node, Role

CLUSTER = Cluster("main", "sqlite", Node("primary", "main", Role.PRIMARY, path="/data"))


@pytest.fixture
def catalog() -> Catalog:
    config = parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": "data"}}},
            "defaults": {"consistency": "strong"},
            "tenants": {
                "acme": {
                    "cluster": "main",
                    "isolation": "database",
                    "database": "acme_db",
                    "schemas": {"analytics": "acme_reports", "archive": "acme_old"},
                },
                "globex": {"cluster": "main", "isolation": "database", "database": "globex_db"},
            },
        }
    )
    return Catalog(config.tenants, {"main": CLUSTER})


def test_a_tenant_resolves_to_its_place(catalog: Catalog) -> None:
    """Cluster, database, physical schema and settings come from the tenant's section."""
    main = catalog.lookup("acme")
    assert (main.tenant, main.schema, main.database, main.physical) == ("acme", None, "acme_db", None)
    assert main.cluster is CLUSTER
    assert main.settings.consistency == "strong"
    reports = catalog.lookup("acme", "analytics")
    assert (reports.schema, reports.database, reports.physical) == ("analytics", "acme_db", "acme_reports")


def test_the_catalog_lists_what_it_has(catalog: Catalog) -> None:
    """Tenants and the schemas of one are listed in their order."""
    assert len(catalog) == 2
    assert catalog.tenants() == ("acme", "globex")
    assert catalog.schemas("acme") == ("analytics", "archive")
    assert catalog.schemas("globex") == ()


def test_a_physical_name_is_no_logical_one(catalog: Catalog) -> None:
    """What the database calls a schema is not what the application may ask for."""
    with pytest.raises(UnknownSchema, match="it has: analytics, archive"):
        catalog.lookup("acme", "acme_reports")


def test_a_schema_of_another_tenant_is_unknown(catalog: Catalog) -> None:
    """Schemas belong to a tenant; having none is said as such."""
    with pytest.raises(UnknownSchema, match="it has: none. Add it under schemas:") as caught:
        catalog.lookup("globex", "analytics")
    assert caught.value.tenant == "globex"


def test_an_unknown_tenant_is_not_told_which_there_are(catalog: Catalog) -> None:
    """No list and no near miss: whoever guesses names learns nothing."""
    for name in ("acm", "ACME", "nobody"):
        with pytest.raises(UnknownTenant) as caught:
            catalog.lookup(name)
        assert "acme" not in str(caught.value).replace(name, "")
        assert "globex" not in str(caught.value)
    with pytest.raises(UnknownTenant):
        catalog.schemas("nobody")


def test_a_name_from_outside_cannot_forge_a_log_line(catalog: Catalog) -> None:
    """Control characters are escaped and long names are cut."""
    with pytest.raises(UnknownTenant) as caught:
        catalog.lookup("a\nERROR root: forged" + "x" * 1_000)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
