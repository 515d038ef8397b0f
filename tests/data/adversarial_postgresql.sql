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
