"""The statements of all arms and the tables under them: the same text for everyone, but for placeholders."""

KEYS = 10_000
"""Rows of ``plans``, which is read, and of ``counters``, which is written."""
BULK = 1_000
"""Rows of one bulk insert."""
STREAMED = 10
"""Parameter of :data:`STREAM`: so many times :data:`KEYS` rows."""
BATCH = 500
"""Rows that a cursor fetches at a time."""

USER, DATABASE, SCHEMA = "router_app", "app", "acme"

READ = "SELECT id, name, seats FROM plans WHERE id = :id"
WRITE = "UPDATE counters SET seats = seats + 1 WHERE id = :id"
LOOK = "SELECT seats FROM counters WHERE id = :id"
ROWS = "SELECT id, name, seats FROM plans WHERE id <= :id"
INSERT = "INSERT INTO bulk (id, name) VALUES (:id, :name)"
STREAM = "SELECT a.id, a.name, a.seats FROM plans AS a, plans AS b WHERE b.id <= :id"
ALL = (READ, WRITE, LOOK, ROWS, STREAM, INSERT)


def dollar(text: str) -> str:
    """Return the text with PostgreSQL's own placeholders."""
    return text.replace(":id", "$1").replace(":name", "$2")


def percent(text: str) -> str:
    """Return the text with the placeholders of psycopg and aiomysql, by position."""
    return text.replace(":id", "%s").replace(":name", "%s")


def question(text: str) -> str:
    """Return the text with SQLite's placeholders, by position."""
    return text.replace(":id", "?").replace(":name", "?")


BULK_ROWS = [(number, f"row {number}") for number in range(BULK)]
BULK_PARAMS = [{"id": number, "name": name} for number, name in BULK_ROWS]

_TABLES = """
CREATE TABLE plans (id int PRIMARY KEY, name varchar(40) NOT NULL, seats int NOT NULL);
CREATE TABLE counters (id int PRIMARY KEY, seats int NOT NULL);
CREATE {unlogged} TABLE bulk (id int, name varchar(40));
INSERT INTO plans WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {keys})
    SELECT i, {name}, i FROM n;
INSERT INTO counters SELECT id, 0 FROM plans;
"""

SCRIPTS = {
    # The role's own search path, so that every arm can write unqualified names. The table of bulk inserts
    # is not logged, so that the replicas have no part in them.
    "postgresql": (
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {USER};"
        f"ALTER ROLE {USER} IN DATABASE {DATABASE} SET search_path = {SCHEMA};"
        f"SET ROLE {USER}; SET search_path = {SCHEMA};"
        + _TABLES.format(unlogged="UNLOGGED", keys=KEYS, name="'plan ' || i")
        + "ALTER TABLE counters SET (fillfactor = 50); RESET ROLE; VACUUM ANALYZE"
    ),
    "mariadb": "SET max_recursive_iterations = 1000000;"
    + _TABLES.format(unlogged="", keys=KEYS, name="concat('plan ', i)"),
    "sqlite": _TABLES.format(unlogged="", keys=KEYS, name="'plan ' || i"),
}
"""What makes the tables on each engine."""
