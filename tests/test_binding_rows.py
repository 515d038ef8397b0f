"""The check of row security finds each way in which rows of one tenant could be seen by another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from router import Router, errors
from router.row_security import Facts, RowFinding, Where, findings
from tests.isolation import Isolated
from tests.servers import PostgresqlCluster
from tests.test_cli import ROOT, run

NULLIF = "tenant = NULLIF(current_setting('app.tenant', true), '')"
TABLE = "CREATE TABLE shared.{name} (tenant TEXT); ALTER TABLE shared.{name} ENABLE ROW LEVEL SECURITY"
FLAWS = {
    "bare": (
        "CREATE TABLE shared.bare (tenant TEXT)",
        "has no row security",
        'ALTER TABLE "shared"."bare" ENABLE',
    ),
    "unforced": (
        TABLE + f"; CREATE POLICY p ON shared.unforced USING ({NULLIF})",
        "does not hold its owner to its policies",
        'ALTER TABLE "shared"."unforced" FORCE ROW LEVEL SECURITY',
    ),
    "empty": (TABLE + ", FORCE ROW LEVEL SECURITY", "has no policy for the router's users", "CREATE POLICY"),
    "foreigners": (
        TABLE
        + f", FORCE ROW LEVEL SECURITY; CREATE POLICY p ON shared.foreigners TO postgres USING ({NULLIF})",
        "has no policy for the router's users",
        "CREATE POLICY",
    ),
    "open": (
        TABLE + f", FORCE ROW LEVEL SECURITY; CREATE POLICY p ON shared.open USING ({NULLIF});"
        "CREATE POLICY wide ON shared.open FOR SELECT USING (true)",
        "has a policy 'wide' that does not look at app.tenant",
        "CREATE POLICY",
    ),
    "written": (
        TABLE + ", FORCE ROW LEVEL SECURITY;"
        f"CREATE POLICY p ON shared.written USING ({NULLIF}) WITH CHECK (true)",
        "has a policy 'p' that does not look at app.tenant",
        "CREATE POLICY",
    ),
    "other": (
        TABLE + ", FORCE ROW LEVEL SECURITY; CREATE POLICY p ON shared.other USING"
        " (tenant = NULLIF(current_setting('other.tenant', true), ''))",
        "has a policy 'p' that does not look at app.tenant",
        "CREATE POLICY",
    ),
    "blank": (
        TABLE + ", FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON shared.blank USING (tenant = current_setting('app.tenant', true))",
        "looks at app.tenant without NULLIF",
        "CREATE POLICY",
    ),
    "seen": (
        "CREATE VIEW shared.seen AS SELECT * FROM shared.owned",
        "is a view that reads as its owner",
        "ALTER VIEW",
    ),
    "kept": ("CREATE MATERIALIZED VIEW shared.kept AS SELECT 1 AS a", "is a materialized view", "Move it"),
}
FINE = (
    "CREATE VIEW shared.asked WITH (security_invoker = true) AS SELECT * FROM shared.owned;"
    "CREATE TABLE shared.narrow (tenant UUID);"
    "ALTER TABLE shared.narrow ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
    "CREATE POLICY all_rows ON shared.narrow USING (true);"
    "CREATE POLICY narrow ON shared.narrow AS RESTRICTIVE USING"
    " (tenant = NULLIF(current_setting('app.tenant', true), '')::uuid)"
)


@pytest.fixture(scope="module")
def isolated(postgresql: PostgresqlCluster) -> Iterator[Isolated]:
    """Make tenants by row."""
    made = Isolated(postgresql)
    made.run(FINE)
    yield made
    made.drop()


async def look(isolated: Isolated, *shared: str) -> tuple[RowFinding, ...]:
    """Return what is found."""
    async with Router.open(isolated.config()) as router:
        return await router.check_rows(shared)


async def test_tables_as_documented_are_fine(isolated: Isolated) -> None:
    """The documented pattern, views that read as who asks, and restrictive policies are no flaws."""
    assert await look(isolated) == ()


async def test_each_flaw_is_found_once_with_its_remedy(isolated: Isolated) -> None:
    """Tables without row security, force or policy, policies that let through, views, logins."""
    flawed = [make.format(name=name) for name, (make, _, _) in FLAWS.items()]
    flawed += [f"ALTER TABLE shared.{name} OWNER TO router_app" for name in ("bare", "empty")]
    flawed += [
        "GRANT TRUNCATE ON shared.other TO router_app",
        f"ALTER ROLE {isolated.roles['role_a']} BYPASSRLS",
    ]
    isolated.run(";".join(flawed))
    try:
        config = isolated.config(tenants={"sees_all": {"isolation": "row", "role": isolated.roles["role_a"]}})
        async with Router.open(config) as router:
            listed = await router.check_rows(["shared.kept"])
            assert await router.check_rows(tenants=()) == ()  # nobody's tables
    finally:
        kinds = {"kept": "MATERIALIZED VIEW", "seen": "VIEW"}
        drops = [f"DROP {kinds.get(name, 'TABLE')} shared.{name}" for name in FLAWS]
        isolated.run(";".join([*drops, f"ALTER ROLE {isolated.roles['role_a']} NOBYPASSRLS"]))
    found = {(each.name, each.fact): each for each in listed}
    assert len(found) == len(listed)
    for name, (_, fact, remedy) in FLAWS.items():
        if name == "kept":
            continue  # declared as shared
        each = next(each for each in listed if each.name == f"shared.{name}")
        assert (each.cluster, each.database) == ("main", isolated.database)
        assert fact in each.fact
        assert remedy in each.remedy
        del found[each.name, each.fact]
    assert {(name, fact.partition(":")[0]) for name, fact in found} == {
        ("router_app", "owns shared.bare, shared.empty, or may act as the owner"),
        ("router_app", "may truncate shared.other"),
        (isolated.roles["role_a"], "has BYPASSRLS"),
    }


async def test_further_schemas_of_the_path_are_looked_at(isolated: Isolated) -> None:
    """A name may lead there too; what belongs to an extension is its own."""
    isolated.run(
        "CREATE SCHEMA further; CREATE TABLE further.loose (n INT);"
        "CREATE EXTENSION tablefunc SCHEMA further; CREATE TABLE further.its (n INT);"
        "ALTER EXTENSION tablefunc ADD TABLE further.its"
    )
    try:
        assert await look(isolated) == ()
        async with Router.open(isolated.config(cluster={"extensions": ["further"]})) as router:
            assert [each.name for each in await router.check_rows()] == ["further.loose"]
    finally:
        isolated.run("DROP SCHEMA further CASCADE")


def test_the_command_says_no_and_why(isolated: Isolated, tmp_path: Path) -> None:
    """router check --rows exits 0 without flaws, else 1, with a line or an object for each."""
    config = isolated.config()
    main = config.clusters["main"]
    login = {"username": "router_app", "password": isolated.cluster.primary.password("router_app")}
    cluster = {"engine": "postgresql", "primary": {"host": main.primary.host, "port": main.primary.port}}
    cluster |= {"database": isolated.database, "credentials": {"writer": login}}
    (tmp_path / "router.yaml").write_text(yaml.safe_dump({"version": 1, "clusters": {"main": cluster}}))
    (tmp_path / "tenants").mkdir()
    section = {"tenant": "acme", "cluster": "main", **isolated.section("row_b")}
    (tmp_path / "tenants" / "acme.yaml").write_text(yaml.safe_dump(section))
    found = run("check", str(tmp_path), "--rows")
    assert (found.exit_code, "row security: nothing found" in found.stdout) == (0, True), found.output
    isolated.run("CREATE TABLE shared.late (tenant TEXT)")
    try:
        text, as_json = run("check", str(tmp_path), "--rows"), run("check", str(tmp_path), "--rows", "--json")
        accepted = run("check", str(tmp_path), "--rows", "--shared", "shared.late")
    finally:
        isolated.run("DROP TABLE shared.late")
    assert f"main/{isolated.database} shared.late has no row security. ALTER TABLE" in text.stdout
    assert (text.exit_code, as_json.exit_code, accepted.exit_code) == (1, 1, 0)
    value = json.loads(as_json.stdout)
    assert (value["ok"], [each["name"] for each in value["rows"]]) == (False, ["shared.late"])
    assert run("check", str(tmp_path), "--shared", "a.b").exit_code == 2


def test_old_servers_are_named() -> None:
    """One that may mix up the policies of roles is found by its version."""
    where = Where(frozenset(), False, frozenset(), "app.tenant", frozenset())
    found = {version: list(findings(Facts(version, (), (), ()), where)) for version in (110_022, 150_008)}
    assert all("CVE-2024-10976" in fact for ((_, fact, _),) in found.values())
    for version in (150_009, 170_001, 180_000, 190_000):
        assert list(findings(Facts(version, (), (), ()), where)) == []


async def test_what_is_documented_keeps_tenants_apart(isolated: Isolated) -> None:
    """The statements of docs/tenancy.md, run as they are: nothing is found, and each sees its own."""
    (sql,) = re.findall(
        r"^```sql\n(.*?)^```", (ROOT / "docs/tenancy.md").read_text(), re.DOTALL | re.MULTILINE
    )
    isolated.run(re.sub(r"\bTO app\b", "TO router_app", sql))
    shop = {
        name: {"isolation": "row", "schema": "shop", "key": key} for name, key in (("a", 1), ("b", "it's"))
    }
    async with Router.open(isolated.config(tenants=shop)) as router:
        for tenant in shop:
            await router.execute("INSERT INTO orders (item) VALUES (:item)", {"item": tenant}, tenant=tenant)
        for tenant in shop:
            for table in ("orders", "items"):
                rows = await router.fetch_all(f"SELECT item FROM {table}", tenant=tenant)
                assert [row.item for row in rows] == [tenant]
            with pytest.raises(errors.PermissionDenied, match="row-level security"):
                await router.execute("INSERT INTO orders (tenant, item) VALUES ('1x', 'x')", tenant=tenant)
        assert await router.check_rows() == ()
