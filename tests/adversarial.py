"""Statements that a router may get wrong, with the truth decided by hand.

``primary`` must never go to a replica. ``replica`` is a read that a good classifier proves; sending it to
the primary costs time only. ``either`` may go anywhere: it is a matter of taste, or not valid at all.
A line of a listing is ``expect | statement | note``, with ``\\n`` and ``\\t`` for a line break and a tab.

The PostgreSQL statements run against :data:`POSTGRESQL_OBJECTS`; ``stable_one`` and ``vector_like`` there
are functions of the user that the catalog knows to be stable, ``writes_a_row`` and ``locks`` are volatile.
"""

from __future__ import annotations

from typing import NamedTuple

from router.statements import Dialect


class Case(NamedTuple):
    """Hold one statement and where it may go."""

    dialect: Dialect
    expect: str  # primary, replica, either
    sql: str
    note: str


STABLE = frozenset(("stable_one", "stable_rows", "f"))

POSTGRESQL_OBJECTS = """
CREATE TABLE t (id int PRIMARY KEY, a int, b text, data jsonb, tags int[], at timestamptz DEFAULT now());
INSERT INTO t SELECT n, n % 3, 'row ' || n, '{"k": 1}', ARRAY[n, n + 1] FROM generate_series(1, 20) n;
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, "update" int);
INSERT INTO accounts VALUES (1, 100, 0), (2, 50, 0);
CREATE TABLE log (id serial PRIMARY KEY, line text);
CREATE SEQUENCE s;
SELECT nextval('s');
CREATE FUNCTION writes_a_row() RETURNS int LANGUAGE sql VOLATILE
    AS $$ INSERT INTO log (line) VALUES ('called') RETURNING id $$;
CREATE FUNCTION writes_a_row(t) RETURNS int LANGUAGE sql VOLATILE
    AS $$ INSERT INTO log (line) VALUES ('attribute') RETURNING id $$;
CREATE FUNCTION locks() RETURNS void LANGUAGE sql VOLATILE AS $$ SELECT pg_advisory_lock(99) $$;
CREATE FUNCTION stable_one() RETURNS int LANGUAGE sql STABLE AS $$ SELECT count(*)::int FROM t $$;
CREATE FUNCTION stable_rows() RETURNS SETOF int LANGUAGE sql STABLE AS $$ SELECT id FROM t $$;
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + 1 $$;
CREATE FUNCTION plus_and_write(int, int) RETURNS int LANGUAGE sql VOLATILE
    AS $$ INSERT INTO log (line) VALUES ('operator') RETURNING id $$;
CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = plus_and_write);
CREATE SCHEMA app;
CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE sql VOLATILE
    AS $$ INSERT INTO public.log (line) VALUES ('shadow') RETURNING line $$;
CREATE FUNCTION "Lower"(text) RETURNS text LANGUAGE sql VOLATILE
    AS $$ INSERT INTO log (line) VALUES ('case') RETURNING line $$;
CREATE VIEW sneaky AS SELECT writes_a_row() AS id;
CREATE TABLE list (a int, b int);
"""

_POSTGRESQL = r"""
replica | SELECT 1 | the least
replica | select * from t where id = 1 | lower case
replica | SELECT id, b FROM t WHERE a = 2 ORDER BY id DESC LIMIT 3 OFFSET 1 | clauses
replica | SELECT * FROM public.t; | schema and final semicolon
replica | ((SELECT 1)) | parentheses
replica | (SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 | set operation
replica | SELECT a FROM t INTERSECT SELECT id FROM t EXCEPT SELECT 5 | set operations
replica | VALUES (1, 'a'), (2, 'b') | values
replica | TABLE t | the command TABLE
replica | WITH x AS (SELECT * FROM t) SELECT * FROM x | common table expression
replica | WITH x (a, b) AS (SELECT 1, 2), y (c) AS (SELECT 3) SELECT * FROM x, y | names with columns are no calls
replica | WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n | recursive
replica | WITH x AS NOT MATERIALIZED (SELECT 1) SELECT * FROM x | materialized is no call
replica | SELECT count(*) FILTER (WHERE a > 1), sum(id) OVER (PARTITION BY a ORDER BY id) FROM t GROUP BY a, id | aggregates
replica | SELECT a, count(*) FROM t GROUP BY GROUPING SETS ((a), ()) | grouping sets
replica | SELECT a, b, count(*) FROM t GROUP BY ROLLUP (a, b) | rollup
replica | SELECT substring(b FROM 1 FOR 2) FROM t | FOR that locks nothing
replica | SELECT overlay(b PLACING 'x' FROM 1 FOR 2) FROM t | FOR again
replica | SELECT extract(year FROM at), position('o' IN b), trim(BOTH ' ' FROM b) FROM t | odd argument syntax
replica | SELECT 'DELETE FROM t; UPDATE t SET a = 1 FOR UPDATE' | keywords in a string
replica | SELECT $$ INSERT INTO t $$, $x$ $$; DROP TABLE t; $$ $x$ | keywords in dollar quotes
replica | SELECT 1 /* FOR UPDATE /* nested */ ; DELETE FROM t */ AS one -- INTO x | keywords in comments
replica | SELECT E'it\'s; DELETE FROM t' | escapes
replica | SELECT "update" FROM accounts | quoted column named like a keyword
replica | SELECT accounts."update" AS "delete" FROM accounts | and an alias
replica | SELECT a.update FROM accounts a | column after a point
replica | SELECT update FROM accounts | not reserved in PostgreSQL
replica | SELECT data->>'k', data @> '{"k": 1}', data ? 'k', data #>> '{k}' FROM t | json operators
replica | SELECT tags[1:2], tags[1] FROM t | slices
replica | SELECT id::text, CAST(a AS numeric(10, 2)), b::varchar(3) FROM t | types with parentheses are no calls
replica | SELECT at AT TIME ZONE 'UTC', date '2020-01-01' + interval '1 day' FROM t | typed literals
replica | SELECT * FROM generate_series(1, 3) AS g(n) | table function
replica | SELECT * FROM (VALUES (1, 2)) v(a, b) | alias with columns
replica | SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS r(a, b) | several at once
replica | SELECT * FROM t, LATERAL (SELECT t.id + 1 AS n) x | lateral
replica | SELECT * FROM t TABLESAMPLE BERNOULLI (50) REPEATABLE (1) | sampling methods
replica | SELECT * FROM t JOIN accounts USING (id) LEFT JOIN (SELECT 1 AS z) q ON (true) | joins
replica | SELECT CASE WHEN a IN (1, 2) THEN 'x' ELSE coalesce(b, 'y') END FROM t | case
replica | SELECT EXISTS (SELECT 1 FROM t), ARRAY(SELECT id FROM t), a = ANY (SELECT 1) FROM t | subqueries
replica | SELECT now(), current_timestamp, random(), gen_random_uuid(), clock_timestamp() | volatile but harmless
replica | SELECT current_setting('server_version'), current_schema, current_user | looks only
replica | SELECT pg_catalog.lower(b) FROM t | the server's own schema
replica | SELECT stable_one() | the catalog knows it
replica | SELECT public.f(id), f (1) FROM t | the catalog knows it
replica | SELECT * FROM stable_rows() | in FROM
replica | SELECT pg_size_pretty(pg_total_relation_size('t')) | sizes
replica | SELECT b FROM t WHERE b ILIKE '%W%' AND b !~* 'x' AND b SIMILAR TO 'r%' | patterns
replica | SELECT DISTINCT ON (a) id, a FROM t ORDER BY a, id | distinct on
replica | SELECT * FROM t FETCH FIRST (2) ROWS ONLY | fetch clause
replica | SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM t | ordered set
replica | SELECT sum(id) OVER w FROM t WINDOW w AS (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) | window
replica | SELECT a IS DISTINCT FROM id, NOT (a = 1), -id, id - -1 FROM t | operators
replica | SELECT string_agg(b, ',' ORDER BY id) FROM t HAVING count(*) > (SELECT 1) | having
replica | SELECT to_tsvector('simple', b) @@ to_tsquery('simple', 'row') FROM t | text search
replica | SELECT jsonb_path_query(data, '$.k') FROM t | json path
replica | SELECT * FROM pg_stat_activity | a catalog view
replica | SELECT * FROM information_schema.tables | standard catalog
replica | SELECT xmlelement(name x, b) FROM t | function-like syntax
replica | SELECT (t).id, (t.*)::text FROM t | whole rows
either | SELECT id FROM t WHERE at > now() - interval '1 day' FOR READ ONLY | an old no-op
either | SELECT 1 AS into | a label that is a keyword
either | SELECT a OPERATOR(pg_catalog.+) 1 FROM t | operator by name
either | SELECT pg_backend_pid() | answers for the connection
either | SELECT pg_is_in_recovery() | answers for the node
either | SHOW search_path | session state, read only
either | EXPLAIN SELECT 1 | runs nothing
either | SELECT U&"\0074".id FROM t | an escaped name
either | SELECT id FROM sneaky | a view that writes: only the server can know
either | SELECT t.writes_a_row FROM t | functional notation: only the server can know
either | SELECT 1 FROM t WHERE a = 1 FOR | not valid
either | SELEC 1 | not valid
either | SELECT (1 | not valid
either | SELECT 1)) | not valid
primary | INSERT INTO t (id) VALUES (1000) | write
primary | UPDATE t SET a = 1 WHERE id = 1 | write
primary | DELETE FROM t WHERE id = 1 | write
primary | MERGE INTO accounts USING t ON accounts.id = t.id WHEN MATCHED THEN UPDATE SET balance = 1 | write
primary | INSERT INTO t (id) VALUES (1000) ON CONFLICT (id) DO UPDATE SET a = 2 RETURNING * | upsert
primary | TRUNCATE log | write
primary | COPY t FROM STDIN | write
primary | COPY (SELECT 1) TO PROGRAM 'true' | runs a program on the server
primary | WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d | writing CTE
primary | WITH i AS (INSERT INTO log (line) VALUES ('x') RETURNING id) SELECT * FROM i | writing CTE
primary | WITH u AS (UPDATE t SET a = 1 RETURNING id) TABLE u | writing CTE before TABLE
primary | WITH x AS (SELECT 1), d AS NOT MATERIALIZED (DELETE FROM t RETURNING id) SELECT 1 | second CTE
primary | WITH a AS (WITH b AS (SELECT 1) DELETE FROM t RETURNING id) SELECT * FROM a | nested WITH
primary | WITH x AS (SELECT 1) INSERT INTO log (line) SELECT 'x' FROM x | WITH before a write
primary | WITH x AS (SELECT 1) UPDATE t SET a = 1 FROM x | WITH before a write
primary | with/**/d/**/as/**/(delete/**/from/**/t/**/returning/**/id)/**/select/**/1 | comments for spaces
primary | SELECT * INTO new_table FROM t | SELECT INTO
primary | SELECT id INTO TEMP scratch FROM t | SELECT INTO TEMP
primary | (SELECT 1 AS one) UNION SELECT id INTO UNLOGGED x FROM t | INTO, deep
primary | SELECT * FROM t FOR UPDATE | row lock
primary | SELECT * FROM t FOR SHARE | row lock
primary | SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED | row lock
primary | SELECT * FROM t FOR KEY SHARE NOWAIT | row lock
primary | SELECT * FROM (SELECT * FROM t FOR UPDATE) x | row lock inside
primary | SELECT 1 WHERE EXISTS (SELECT 1 FROM t FOR /* x */ UPDATE) | row lock, commented
primary | WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x | row lock in a CTE
primary | SELECT * FROM t FOR\tUPDATE | row lock, tab
primary | SELECT * FROM t FOR -- x\nUPDATE | row lock, line comment
primary | SELECT * FROM t for update limit 1 | row lock before LIMIT
primary | SELECT nextval('s') | sequence
primary | SELECT setval('s', 10) | sequence
primary | SELECT currval('s') | answers for the session
primary | SELECT lastval() | answers for the session
primary | SELECT pg_catalog.nextval('s'::regclass) | qualified
primary | SELECT "nextval"('s') | quoted
primary | SELECT "pg_catalog"."nextval"('s') | quoted and qualified
primary | SELECT NEXTVAL /* x */ ('s') | comment before the parenthesis
primary | SELECT nextval\n('s') | line break before the parenthesis
primary | SELECT U&"n\0065xtval"('s') | escaped name
primary | SELECT coalesce(nullif(nextval('s'), 0), 1) | nested call
primary | SELECT CASE WHEN false THEN nextval('s') END | in a branch
primary | SELECT * FROM nextval('s') | in FROM
primary | SELECT * FROM ROWS FROM (nextval('s'), generate_series(1, 2)) AS r(a, b) | in ROWS FROM
primary | SELECT * FROM t, LATERAL nextval('s') n | lateral
primary | SELECT a FROM t ORDER BY nextval('s') | in ORDER BY
primary | SELECT DISTINCT ON (a) nextval('s') FROM t | after a parenthesis
primary | VALUES (nextval('s')) | in VALUES
primary | SELECT sum(nextval('s')) FILTER (WHERE true) OVER () FROM t | in an aggregate
primary | SELECT 1 LIMIT nextval('s') | in LIMIT
primary | SELECT writes_a_row() | volatile function of the user
primary | SELECT * FROM writes_a_row() AS w(id) | in FROM
primary | SELECT public.writes_a_row() | qualified
primary | SELECT writes_a_row(t) FROM t | of a row
primary | SELECT app.lower('X') | a built-in name in another schema
primary | SELECT "Lower"('X') | a built-in name in another case
primary | SELECT stable_one(), writes_a_row() | one of two
primary | SELECT 1 ### 2 | operator of the user
primary | SELECT 1 OPERATOR(public.###) 2 | operator of the user, by name
primary | SELECT no_such_function() | unknown
primary | SELECT locks() | keeps a lock
primary | SELECT pg_advisory_lock(1) | a standby allows it, on the wrong node
primary | SELECT pg_try_advisory_lock(1), pg_advisory_unlock(1) | lock
primary | SELECT pg_advisory_xact_lock_shared(1) | lock
primary | SELECT pg_notify('c', 'x') | notification
primary | SELECT set_config('work_mem', '8MB', false) | session state
primary | SELECT pg_catalog.set_config('role', 'none', false) | session state
primary | SELECT setseed(0.5) | session state
primary | SELECT txid_current() | takes a number; stable to the catalog
primary | SELECT pg_current_xact_id() | takes a number; stable to the catalog
primary | SELECT pg_export_snapshot() | of this node only
primary | SELECT lo_create(0) | large object
primary | SELECT lo_unlink(1), lo_import('/tmp/x') | large object
primary | SELECT query_to_xml('DELETE FROM t', true, false, '') | runs any text
primary | SELECT * FROM dblink('dbname=x', 'DELETE FROM t') AS r(a int) | leaves the server
primary | SELECT pg_terminate_backend(0) | acts on this node
primary | SELECT pg_cancel_backend(0) | acts on this node
primary | SELECT pg_switch_wal() | acts on the server
primary | SELECT pg_create_restore_point('x') | acts on the server
primary | SELECT pg_reload_conf(), pg_rotate_logfile() | acts on the server
primary | SELECT pg_stat_reset() | acts on the server
primary | SELECT pg_read_file('PG_VERSION') | reads this node's files
primary | SELECT pg_current_wal_lsn() | a standby has none
primary | SELECT pg_last_wal_replay_lsn() | about this node
primary | SELECT pg_drop_replication_slot('x') | acts on the server
primary | SELECT pg_logical_emit_message(true, 'a', 'b') | writes to the log
primary | SELECT 1; DELETE FROM t | two statements
primary | SELECT 1;; SELECT nextval('s'); | three, one empty
primary | ; DELETE FROM t | an empty one first
primary | SELECT 1; -- x\nCOMMIT; DELETE FROM t | leaves a read-only transaction
primary | BEGIN | transaction control
primary | BEGIN READ WRITE | transaction control
primary | COMMIT | transaction control
primary | SAVEPOINT a | transaction control
primary | SET search_path = app | session state
primary | SET default_transaction_read_only = off | would open the wall
primary | SET ROLE admin | role
primary | RESET ALL | session state
primary | DISCARD ALL | session state
primary | LISTEN c | sqlglot reads an expression
primary | UNLISTEN * | session state
primary | NOTIFY c | notification
primary | PREPARE p AS SELECT 1 | prepared statement
primary | EXECUTE p | runs what cannot be seen
primary | DEALLOCATE ALL | prepared statements
primary | DECLARE c CURSOR WITH HOLD FOR SELECT 1 | cursor
primary | FETCH ALL FROM c | cursor
primary | LOCK TABLE t | lock
primary | DO $$ BEGIN DELETE FROM t; END $$ | code
primary | CALL p() | code
primary | CREATE TABLE x AS SELECT 1 | schema
primary | CREATE TEMP TABLE x (a int) | session
primary | DROP TABLE IF EXISTS nothing | schema
primary | ALTER TABLE t ADD COLUMN z int | schema
primary | GRANT SELECT ON t TO PUBLIC | schema
primary | REFRESH MATERIALIZED VIEW m | data
primary | COMMENT ON TABLE t IS 'x' | schema
primary | VACUUM t | upkeep
primary | ANALYZE t | upkeep
primary | REINDEX TABLE t | upkeep
primary | EXPLAIN ANALYZE DELETE FROM t | runs it
primary | EXPLAIN (ANALYZE, COSTS off) SELECT nextval('s') | runs it
primary | LOAD 'auto_explain' | code
primary | CREATE FUNCTION z() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END | a body with semicolons
"""

_MYSQL = r"""
replica | SELECT 1 | the least
replica | SELECT * FROM t WHERE id = 1 LIMIT 1, 2 | clauses
replica | SELECT `update`, `delete` FROM `t` | quoted names
replica | SELECT t.update FROM t | after a point
replica | SELECT REPLACE(b, 'a', 'b'), INSERT(b, 1, 2, 'x') FROM t | functions named like writes
replica | SELECT IF(a, 1, 2), IFNULL(a, 0), LEFT(b, 1), MOD(a, 2), TRUNCATE(a, 0) FROM t | functions named like keywords
replica | SELECT DATE_ADD(NOW(), INTERVAL 1 DAY), UTC_TIMESTAMP(), UUID(), RAND() | clock and chance
replica | SELECT GROUP_CONCAT(DISTINCT b ORDER BY a SEPARATOR ';') FROM t GROUP BY a | separator
replica | SELECT 'INSERT INTO t; FOR UPDATE', "DELETE \" FROM t" | strings of both kinds
replica | SELECT 'it\'s; DELETE FROM t' | backslash
replica | SELECT 1 # DELETE FROM t | comment
replica | SELECT 1 -- DELETE FROM t | comment
replica | SELECT 5--1 | no comment: two minus signs
replica | SELECT /* DELETE */ 1 | comment
replica | SELECT /*+ MAX_EXECUTION_TIME(1000) */ * FROM t | optimizer hint
replica | SELECT SQL_NO_CACHE HIGH_PRIORITY STRAIGHT_JOIN a FROM t | modifiers
replica | SELECT * FROM t FORCE INDEX (i) USE INDEX FOR ORDER BY (j) | index hints
replica | SELECT * FROM t PARTITION (p0) | partition
replica | SELECT a DIV b, a <=> b, a REGEXP 'x', a RLIKE 'y', a XOR b, !a, ~a FROM t | operators
replica | SELECT data->'$.a', data->>'$.b', JSON_EXTRACT(data, '$.c') FROM t | json
replica | SELECT MATCH(b) AGAINST('x' IN BOOLEAN MODE) FROM t | full text
replica | WITH x (a) AS (SELECT 1), y AS (SELECT 2) SELECT * FROM x, y | common table expressions
replica | VALUES ROW(1, 2), ROW(3, 4) | values
replica | TABLE t | the command TABLE
replica | (SELECT 1) UNION (SELECT 2) | set operation
replica | SELECT a FROM t WHERE (a, b) IN ((1, 2), (3, 4)) | rows
replica | SELECT SUM(a) OVER (PARTITION BY b ORDER BY c) FROM t | window
replica | SELECT CAST(a AS DECIMAL(10, 2)), CONVERT(b USING utf8mb4), _utf8mb4'x' FROM t | types
replica | SELECT COUNT(DISTINCT a) FROM t GROUP BY b WITH ROLLUP | rollup
replica | SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01' | FOR that locks nothing
replica | SELECT DATABASE(), USER(), VERSION() | same on every node of ours
replica | SELECT SLEEP(0) | harmless
replica | SELECT SUBSTRING(b FROM 1 FOR 2), TRIM(LEADING 'x' FROM b), EXTRACT(YEAR FROM d) FROM t | odd arguments
replica | SELECT * FROM a LEFT JOIN b USING (id) RIGHT JOIN (SELECT 1 AS z) q ON (q.z = a.z) | joins
replica | SELECT 10 % 3, b LIKE '50%' FROM t | percent signs
either | SELECT @@version | session or system variable
either | SELECT SQL_CALC_FOUND_ROWS * FROM t | pairs with FOUND_ROWS()
either | SHOW TABLES | not a query
either | DESCRIBE t | not a query
either | EXPLAIN SELECT 1 | not a query
either | SELECT {d '2020-01-01'} | ODBC escape
either | SELECT 1 FROM DUAL WHERE | not valid
either | HELP 'SELECT' | not a query
primary | INSERT INTO t VALUES (1) | write
primary | INSERT t SET a = 1 | write without INTO
primary | INSERT IGNORE INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a) | upsert
primary | REPLACE INTO t VALUES (1) | write
primary | REPLACE t VALUES (1) | write without INTO
primary | UPDATE t SET a = 1 | write
primary | DELETE t FROM t JOIN u USING (id) | write
primary | WITH x AS (SELECT 1 AS id) DELETE FROM t WHERE id IN (SELECT id FROM x) | WITH before a write
primary | WITH x AS (SELECT 1) UPDATE t SET a = 1 | WITH before a write
primary | LOAD DATA INFILE '/tmp/x' INTO TABLE t | write
primary | TRUNCATE t | write
primary | SELECT * FROM t FOR UPDATE | row lock
primary | SELECT * FROM t FOR SHARE OF t SKIP LOCKED | row lock
primary | SELECT * FROM t LOCK IN SHARE MODE | row lock
primary | SELECT * FROM (SELECT * FROM t LIMIT 1 FOR UPDATE) x | row lock inside
primary | SELECT * FROM t FOR/**/UPDATE | row lock, commented
primary | SELECT * FROM t lock  in\tshare mode | row lock, spaces
primary | SELECT * FROM t INTO OUTFILE '/tmp/x' | writes a file
primary | SELECT a INTO DUMPFILE '/tmp/x' FROM t | writes a file
primary | SELECT a INTO @x FROM t | sets a variable
primary | SELECT 1 INTO x | into a variable of a routine
primary | SELECT @a := 1 | sets a variable
primary | SELECT @a:=@a+1 FROM t | sets a variable
primary | SELECT @a | reads a variable of the session
primary | SELECT @`a b`, @'c' | quoted variables
primary | SELECT GET_LOCK('x', 1) | lock
primary | SELECT get_lock ('x', 1) | lock
primary | SELECT `get_lock`('x', 1) | lock, quoted
primary | SELECT "get_lock"('x', 1) | lock under ANSI_QUOTES
primary | SELECT RELEASE_LOCK('x'), IS_USED_LOCK('x') | lock
primary | SELECT LAST_INSERT_ID() | answers for the session
primary | SELECT LAST_INSERT_ID(5) | sets it
primary | SELECT ROW_COUNT() | answers for the session
primary | SELECT FOUND_ROWS() | answers for the session
primary | SELECT CONNECTION_ID() | answers for the connection
primary | SELECT NEXTVAL(s) | MariaDB sequence
primary | SELECT NEXT VALUE FOR s | MariaDB sequence
primary | SELECT next /* x */ value for s | MariaDB sequence
primary | SELECT PREVIOUS VALUE FOR s | MariaDB sequence
primary | SELECT LASTVAL(s), SETVAL(s, 10) | MariaDB sequence
primary | SELECT s.nextval | MariaDB sequence, Oracle mode
primary | SELECT s.`nextval` | MariaDB sequence, Oracle mode
primary | SELECT UUID_SHORT() | counts per server
primary | SELECT MASTER_POS_WAIT('x', 4) | about this node
primary | SELECT LOAD_FILE('/etc/passwd') | reads this node's files
primary | SELECT BENCHMARK(10, f()) | runs anything
primary | SELECT my_function(1) | a stored function
primary | SELECT db.lower('x') | a stored function with a built-in name
primary | SELECT sys_exec('true') | loadable function
primary | SELECT * FROM t PROCEDURE ANALYSE() | procedure
primary | SELECT /*! SQL_NO_CACHE */ 1 | the server runs the comment
primary | SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */ FROM t | the server runs the comment
primary | SELECT 1 /*M! FOR UPDATE */ | MariaDB runs the comment
primary | /*!40101 SET NAMES utf8 */ | the server runs the comment
primary | SELECT 1; DELETE FROM t | two statements
primary | SELECT 1;#\nDROP TABLE t | two statements
primary | BEGIN | transaction control
primary | START TRANSACTION READ ONLY | transaction control
primary | XA START 'x' | transaction control
primary | COMMIT | transaction control
primary | SET @a = 1 | session state
primary | SET SESSION TRANSACTION READ WRITE | would open the wall
primary | USE other | session state
primary | HANDLER t OPEN | session state
primary | HANDLER t READ FIRST | session state
primary | LOCK TABLES t READ | lock
primary | UNLOCK TABLES | lock
primary | FLUSH TABLES WITH READ LOCK | lock
primary | PREPARE p FROM 'SELECT 1' | prepared statement
primary | EXECUTE p | runs what cannot be seen
primary | CALL p() | code
primary | DO GET_LOCK('x', 1) | code
primary | CREATE TEMPORARY TABLE x (a INT) | session
primary | CREATE TABLE x SELECT 1 | schema
primary | DROP TABLE IF EXISTS x | schema
primary | ALTER TABLE t ADD z INT | schema
primary | RENAME TABLE t TO u | schema
primary | OPTIMIZE TABLE t | upkeep
primary | ANALYZE TABLE t | upkeep
primary | KILL 1 | acts on the server
primary | PURGE BINARY LOGS TO 'x' | acts on the server
primary | SIGNAL SQLSTATE '45000' | session
primary | CREATE PROCEDURE p() BEGIN SELECT 1; DELETE FROM t; END | a body with semicolons
"""

_SQLITE = r"""
replica | SELECT 1 | the least
replica | select * from t where id = 1 order by 1 limit 2 offset 3 | clauses
replica | SELECT [update], "delete", `insert` FROM [t] | quoted names of three kinds
replica | SELECT replace(b, 'a', 'b'), total(a), iif(a, 1, 2) FROM t | functions
replica | SELECT 'DELETE FROM t; x''y' | string
replica | SELECT 1 /* DELETE FROM t */ -- DROP TABLE t | comments
replica | VALUES (1, 2), (3, 4) | values
replica | WITH x(a) AS (VALUES (1)), y AS MATERIALIZED (SELECT 2) SELECT * FROM x, y | common table expressions
replica | WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT * FROM n | recursive
replica | SELECT count(*) FILTER (WHERE a > 1), rank() OVER (ORDER BY a) FROM t | window
replica | SELECT a FROM t UNION SELECT b FROM u EXCEPT SELECT 1 | set operations
replica | SELECT random(), date('now'), datetime('now', '-1 day'), current_timestamp | clock and chance
replica | SELECT json_extract(data, '$.a'), data->>'$.b', data -> 'c' FROM t | json
replica | SELECT * FROM json_each('[1,2]') AS j | table function
replica | SELECT * FROM t, json_tree(t.data) WHERE json_tree.key = 'x' | table function, joined
replica | SELECT * FROM pragma_table_info('t') | a pragma that only looks
replica | SELECT name FROM pragma_index_list('t') WHERE "unique" | a pragma that only looks
replica | SELECT * FROM sqlite_master | catalog
replica | SELECT * FROM main.t INDEXED BY i WHERE b GLOB 'x*' OR b LIKE 'y%' ESCAPE '!' | clauses
replica | SELECT * FROM docs WHERE docs MATCH 'word' | full text
replica | SELECT highlight(docs, 0, '<b>', '</b>'), bm25(docs) FROM docs('word') AS d | full text
replica | SELECT a ISNULL, b NOTNULL, a IS NOT b, x'00ff' FROM t | operators
replica | SELECT max(a, b), min(a), coalesce(a, b), typeof(c), printf('%d', d) FROM t | functions
replica | SELECT CAST(a AS NUMERIC(10, 2)), a COLLATE nocase FROM t | types
replica | SELECT EXISTS (SELECT 1), CASE a WHEN 1 THEN (SELECT 2) END FROM t | subqueries
replica | SELECT * FROM a LEFT JOIN b USING (id) JOIN (SELECT 1 AS z) ON true | joins
replica | SELECT * FROM (VALUES (1)) v | alias
replica | SELECT t.update FROM t | after a point
either | EXPLAIN SELECT 1 | runs nothing
either | EXPLAIN QUERY PLAN SELECT 1 | runs nothing
either | PRAGMA table_info(t) | session command
either | SELECT sqlite_version() | the library's own
either | SELECT * FROM other.t | an attached file
either | SELECT 1 FROM | not valid
either | SELECT * FROM t FOR UPDATE | not SQLite
primary | INSERT INTO t VALUES (1) | write
primary | INSERT OR REPLACE INTO t VALUES (1) | write
primary | INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2 RETURNING * | upsert
primary | REPLACE INTO t VALUES (1) | write
primary | UPDATE t SET a = 1 RETURNING a | write
primary | UPDATE OR IGNORE t SET a = 1 | write
primary | DELETE FROM t | write
primary | WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x | WITH before a write
primary | WITH x AS (SELECT 1) DELETE FROM t | WITH before a write
primary | WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x | WITH before a write
primary | WITH x AS (SELECT 1), y(a) AS (SELECT 2) UPDATE t SET a = 1 | WITH before a write
primary | INSERT INTO docs (docs) VALUES ('optimize') | a command to fts5
primary | SELECT load_extension('x') | code
primary | SELECT load_extension ('x') | code
primary | SELECT "load_extension"('x') | quoted
primary | SELECT [load_extension]('x') | quoted
primary | SELECT LOAD_EXTENSION/**/('x') | comment before the parenthesis
primary | SELECT last_insert_rowid() | answers for the connection
primary | SELECT changes(), total_changes() | answers for the connection
primary | SELECT writefile('x', 'y') | writes a file
primary | SELECT readfile('x') | reads a file
primary | SELECT edit('x') | runs a program
primary | SELECT fts3_tokenizer('x', 'y') | code
primary | SELECT my_function(1) | function of the application
primary | SELECT * FROM my_table_function(1) | table function of an extension
primary | SELECT optimize(docs) FROM docs | a command to fts3
primary | SELECT * FROM pragma_optimize | a pragma that acts, without parentheses
primary | SELECT * FROM pragma_optimize() | a pragma that acts
primary | SELECT * FROM "pragma_journal_mode" | quoted
primary | SELECT * FROM pragma_user_version | a pragma not known to only look
primary | SELECT * FROM PRAGMA_INCREMENTAL_VACUUM(1) | a pragma that acts
primary | SELECT * FROM main.pragma_wal_checkpoint | qualified
primary | PRAGMA journal_mode = WAL | session command
primary | PRAGMA query_only = 0 | would open the wall
primary | PRAGMA wal_checkpoint(TRUNCATE) | acts
primary | PRAGMA user_version = 5 | write
primary | ATTACH 'x.db' AS x | session
primary | DETACH x | session
primary | BEGIN IMMEDIATE | transaction control
primary | COMMIT | transaction control
primary | END TRANSACTION | transaction control
primary | SAVEPOINT a | transaction control
primary | ROLLBACK TO a | transaction control
primary | CREATE TABLE x (a) | schema
primary | CREATE TEMP TABLE x AS SELECT 1 | session
primary | CREATE VIRTUAL TABLE d USING fts5(b) | schema
primary | CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; SELECT 1; END | a body with semicolons
primary | DROP TABLE t | schema
primary | ALTER TABLE t RENAME TO u | schema
primary | VACUUM | upkeep
primary | VACUUM INTO 'copy.db' | writes a file
primary | REINDEX | upkeep
primary | ANALYZE | upkeep
primary | SELECT 1; DELETE FROM t | two statements
primary | SELECT 1;/**/DROP TABLE t; | two statements
primary | SELECT random(), zipfile('x', 'y') | one of two
"""


def _cases(dialect: Dialect, listing: str) -> list[Case]:
    cases = []
    for line in listing.strip().splitlines():
        expect, rest = line.split(" | ", 1)
        sql, note = rest.rsplit(" | ", 1)
        cases.append(Case(dialect, expect, sql.replace(r"\n", "\n").replace(r"\t", "\t"), note))
    return cases


CASES = [
    *_cases(Dialect.POSTGRESQL, _POSTGRESQL),
    *_cases(Dialect.MYSQL, _MYSQL),
    *_cases(Dialect.SQLITE, _SQLITE),
]
