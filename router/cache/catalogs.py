"""The statement of each engine that asks its catalog what the relations of one schema are.

The statement is run on a connection that is bound to the schema asked about, on the primary (a replica's
catalog may be late), and by the login that writes: MySQL shows a login what it may touch only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.statements import Dialect

# A database may hold thousands of schemas, so each step is a look-up in an index: even the relations of a
# schema are found by what depends on it. Arrays and OFFSET keep the planner on that path; they also make it
# believe that the statement is cheap, else it would spend a second on compiling it.
#
# Follow views, children and cascading foreign keys out of the schema, whichever schema they lead to. The
# relations and functions of a view are read from its stored tree: pg_depend leaves out those of the system
# (PostgreSQL sources, "recordMultipleDependencies"). A foreign key is found by its trigger on the table that
# it refers to, which has an index; 16384 is the first number of an object that initdb has not made.
#
# A function of a table's row can be called as if it were a column (t.f), which no text shows: "computed".
_POSTGRESQL: Final = r"""
WITH RECURSIVE path AS (
    SELECT n.oid, n.nspname, s.position
    FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s(name, position)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.name
), reached(oid) AS (
    SELECT pg_catalog.unnest(ARRAY(
        SELECT d.objid FROM path JOIN pg_catalog.pg_depend AS d ON d.refobjid = path.oid
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass
            AND d.classid = 'pg_catalog.pg_class'::regclass
    ))
    UNION
    SELECT e.oid FROM reached AS r CROSS JOIN LATERAL (
        SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = r.oid
        UNION ALL
        SELECT k.conrelid FROM pg_catalog.pg_trigger AS t
        JOIN pg_catalog.pg_constraint AS k ON k.oid = t.tgconstraint AND k.confrelid = r.oid
        WHERE t.tgrelid = r.oid AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
        UNION ALL
        SELECT d.refobjid FROM pg_catalog.pg_rewrite AS w
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass
        WHERE w.ev_class = r.oid AND w.ev_type = '1'
    ) AS e
)
SELECT NULL AS schema, NULL AS name,
    (SELECT pg_catalog.array_agg(nspname::text ORDER BY position) FROM path) AS shows,
    NULL::text[] AS drags, NULL::text[] AS calls, NULL AS kind, NULL AS persistence,
    false AS secured, false AS acts, false AS computed
UNION ALL
SELECT n.nspname::text, c.relname::text,
    CASE WHEN c.relkind = 'v' THEN v.shows ELSE ARRAY(
        SELECT i.inhrelid::text FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid) END,
    ARRAY(
        SELECT DISTINCT k.conrelid::text FROM pg_catalog.pg_trigger AS t
        JOIN pg_catalog.pg_constraint AS k ON k.oid = t.tgconstraint AND k.confrelid = c.oid
        WHERE t.tgrelid = c.oid AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
    ),
    v.calls, c.oid::text || c.relkind::text, c.relpersistence::text, c.relrowsecurity,
    EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = c.oid AND t.tgenabled <> 'D' AND t.tgfoid >= 16384
    ) OR EXISTS (
        SELECT FROM pg_catalog.pg_rewrite AS w
        WHERE w.ev_class = c.oid AND w.ev_type <> '1' AND w.ev_enabled <> 'D'
    ) OR EXISTS (
        SELECT FROM pg_catalog.pg_attrdef AS a
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = a.oid
            AND d.refclassid = 'pg_catalog.pg_proc'::regclass
        JOIN pg_catalog.pg_proc AS p ON p.oid = d.refobjid
        JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
        WHERE a.adrelid = c.oid AND p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c')
    ),
    EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_type'::regclass
            AND d.refobjid = c.reltype AND p.provolatile <> 'i' AND p.proargtypes[0] = c.reltype
            AND p.pronargs - p.pronargdefaults <= 1 AND p.prorettype <> 'pg_catalog.trigger'::regtype
    )
FROM pg_catalog.unnest(ARRAY(SELECT oid FROM reached)) AS r(oid)
CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_class AS c WHERE c.oid = r.oid OFFSET 0) AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT
        pg_catalog.array_agg(DISTINCT f[2]) FILTER (WHERE f[1] = 'relid' AND f[2] <> c.oid::text) AS shows,
        pg_catalog.array_agg(DISTINCT
            CASE WHEN p.oid >= 16384 THEN '' ELSE pg_catalog.concat(p.proname, f[3]) END)
            FILTER (WHERE f[3] IS NOT NULL OR p.provolatile <> 'i') AS calls
    FROM pg_catalog.pg_rewrite AS w
    CROSS JOIN LATERAL pg_catalog.regexp_matches(w.ev_action::text,
        ':(relid|funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)'
        '|\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|TABLESAMPLECLAUSE|ROWMARKCLAUSE)', 'g') AS f
    LEFT JOIN pg_catalog.pg_proc AS p ON f[1] <> 'relid' AND p.oid = f[2]::oid
    WHERE w.ev_class = c.oid AND w.ev_type = '1'
) AS v ON c.relkind = 'v'
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
"""

# MariaDB lets a virtual column ask the clock or who asks.
#
# A login sees the tables, views and keys that it has a right on, and triggers where it has that right: only
# the right of triggers on the whole schema shows that there are none. If several grants are for patterns that
# fit the schema, one of them counts, so all have to have it.
_MYSQL: Final = """
SELECT 'schema' AS kind, DATABASE() AS name, (
    EXISTS (SELECT 1 FROM information_schema.USER_PRIVILEGES
        WHERE PRIVILEGE_TYPE = 'TRIGGER' AND GRANTEE = me.name)
    OR (SELECT COUNT(DISTINCT TABLE_SCHEMA) > 0 AND COUNT(DISTINCT TABLE_SCHEMA)
            = COUNT(DISTINCT IF(PRIVILEGE_TYPE = 'TRIGGER', TABLE_SCHEMA, NULL))
        FROM information_schema.SCHEMA_PRIVILEGES WHERE GRANTEE = me.name AND DATABASE() LIKE TABLE_SCHEMA)
    ) AS a, NULL AS b, NULL AS c
FROM (SELECT CONCAT('''', SUBSTRING(CURRENT_USER(), 1,
    CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)) - 1),
    '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''') AS name) AS me
UNION ALL SELECT 'relation', TABLE_NAME, TABLE_TYPE, ENGINE, NULL
FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
UNION ALL SELECT 'view', TABLE_NAME, VIEW_DEFINITION, NULL, NULL
FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()
UNION ALL SELECT 'column', TABLE_NAME, GENERATION_EXPRESSION, NULL, NULL
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND EXTRA LIKE '%VIRTUAL%'
UNION ALL SELECT 'trigger', EVENT_OBJECT_TABLE, NULL, NULL, NULL
FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
UNION ALL SELECT 'key', REFERENCED_TABLE_NAME, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, NULL
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()
    AND (DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION'))
"""

_SQLITE: Final = """
SELECT type AS kind, CASE type WHEN 'trigger' THEN tbl_name ELSE name END AS name, sql AS a,
    NULL AS b, NULL AS c
FROM main.sqlite_master WHERE type IN ('table', 'view', 'trigger')
UNION ALL
SELECT 'key', f."table", m.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name, 'main') AS f
WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL %'
    AND (f.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
        OR f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
"""

QUERIES: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: _POSTGRESQL,
    Dialect.MYSQL: _MYSQL,
    Dialect.SQLITE: _SQLITE,
}
