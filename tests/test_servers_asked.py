"""What the owner asks a server without starting a program: the answers of psql, a session for each text."""

import os
from collections.abc import Iterator

import pytest

from tests.servers import MariadbCluster, PostgresqlCluster, PostgresqlServer
from tests.servers.session import Refused, Session

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def primary(postgresql: PostgresqlCluster) -> PostgresqlServer:
    return postgresql.primary


@pytest.fixture
def session(primary: PostgresqlServer) -> Iterator[Session]:
    """Open a session of its own, with a second for whatever it does."""
    made = Session(primary.home / f".s.PGSQL.{primary.port}", "app", 1)
    yield made
    made.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1, true, NULL, 'ä|b', 1.50, ARRAY[1, NULL]",
        "SELECT n, 'two\nlines' FROM generate_series(1, 3) AS n ORDER BY n DESC",
        "SELECT repeat('x', 200000)",
        "SELECT now() - now(), '2026-01-01 00:00+00'::timestamptz, E'\\\\x41'::bytea",
        "SELECT 1 WHERE false",
        "SELECT NULL",
        "SET application_name = 'asked'",
        "  SELECT 1;  ",
        "",
    ],
)
def test_postgresql_answers_as_psql_shows_it(primary: PostgresqlServer, sql: str) -> None:
    """Whoever compares texts need not know which way they came."""
    assert primary._sessions.ask(sql, "app").strip() == primary._script(sql, "app")


def test_several_statements_are_no_transaction(primary: PostgresqlServer) -> None:
    """Each commits by itself: one of them may be VACUUM, and those before an error stay."""
    with pytest.raises(RuntimeError, match="not_there"):
        primary.run("CREATE TABLE asked (id INT); VACUUM asked; SELECT * FROM not_there; DROP TABLE asked")
    assert primary.run("SELECT count(*) FROM asked") == "0"
    primary.run("DROP TABLE asked")


def test_postgresql_refuses_in_the_servers_words(primary: PostgresqlServer) -> None:
    """An error says what the server has said, and the next statement is answered."""
    with pytest.raises(Refused, match=r"ERROR 42P01: .*not_there"):
        primary.run("SELECT * FROM not_there")
    with pytest.raises(Refused, match=r'FATAL 3D000: .*"nowhere"'):
        primary.run("SELECT 1", "nowhere")
    assert primary.run("SELECT 1") == "1"


def test_postgresql_keeps_one_session_and_nothing_in_it(primary: PostgresqlServer) -> None:
    """What one statement has set is gone for the next, though both are of one session."""
    first = primary.run(PID)
    primary.run("SET search_path = nowhere")
    primary.run("CREATE TEMPORARY TABLE asked (id INT)")
    primary.run("SELECT pg_advisory_lock(7)")
    assert primary.run("SHOW search_path") == '"$user", public'
    assert primary.run("SELECT to_regclass('asked')") == ""
    assert primary.run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"
    assert primary.run(PID) == first


def test_a_transaction_left_open_is_refused_and_ended(primary: PostgresqlServer) -> None:
    """BEGIN without an end would hold its locks for the statements of others."""
    before = primary.run(PID)
    with pytest.raises(Refused, match="DISCARD ALL"):
        primary.run("BEGIN")
    assert primary.run(PID) != before


def test_no_session_stays_in_a_database_of_a_test(
    primary: PostgresqlServer, postgresql_database: str
) -> None:
    """It would be in the way of dropping, copying or limiting that database."""
    primary.run("SELECT 1", postgresql_database)
    primary.run(f"DROP DATABASE {postgresql_database}")


def test_a_session_that_was_ended_is_replaced(primary: PostgresqlServer) -> None:
    """A restart, a crash or somebody's pg_terminate_backend costs the next statement nothing."""
    before = primary.run(PID, "app")
    primary.run(f"SELECT pg_terminate_backend({before}, 10000)", "postgres")
    assert primary.run(PID, "app") != before


def test_a_forked_process_asks_in_a_session_of_its_own(primary: PostgresqlServer) -> None:
    """Two processes in one session would read each other's answers."""
    before, (readable, writable) = primary.run(PID), os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writable, primary.run(PID).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(readable, 100).decode() not in ("", before)
    assert primary.run(PID) == before
    os.close(readable)
    os.close(writable)


def test_a_server_that_is_silent_is_given_up(primary: PostgresqlServer, session: Session) -> None:
    """A frozen server holds up no test for longer than the time for an answer, old session or new."""
    assert session.ask("SELECT 1", 5) == "1"
    primary.freeze()
    try:
        with pytest.raises(TimeoutError):
            session.ask("SELECT 1", 0.2)
        with pytest.raises(TimeoutError):
            Session(primary.home / f".s.PGSQL.{primary.port}", "app", 0.2)
    finally:
        primary.thaw()
    assert primary.run("SELECT 1") == "1"


def test_what_needs_psql_is_refused(session: Session) -> None:
    """COPY would have both sides wait for the other."""
    with pytest.raises(Refused, match="psql"):
        session.ask("COPY pg_database TO STDOUT", 5)


def test_mariadb_shows_bare_rows(mariadb: MariadbCluster) -> None:
    """Columns apart by a tab, nothing as NULL, the rows of all statements one behind another."""
    assert (
        mariadb.run("SELECT 1, NULL, 'ä', 1.50; SET @a = 1; SELECT x'41', TRUE") == "1\tNULL\tä\t1.50\nA\t1"
    )
    assert mariadb.run("SET @a = 1") == ""


def test_mariadb_forgets_what_a_text_has_set(mariadb: MariadbCluster) -> None:
    """A lock or a setting ends with its text; an error stops the text and says what the server has said."""
    mariadb.run("SET @asked = 1; CREATE TEMPORARY TABLE asked (id INT); SELECT GET_LOCK('asked', 1)")
    assert mariadb.run("SELECT @asked, IS_FREE_LOCK('asked')") == "NULL\t1"
    with pytest.raises(RuntimeError, match="asked"):
        mariadb.run("SELECT * FROM asked; CREATE DATABASE never_made")
    assert "never_made" not in mariadb.run("SHOW DATABASES")
