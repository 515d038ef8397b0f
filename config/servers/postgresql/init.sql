-- Roles, the database "app" and one replication slot for each replica. Run once by psql as the owner of the
-- server. Passwords come from the environment, so that no file holds one.
SET log_min_error_statement = panic;  -- a failing CREATE ROLE must not write its password to the log
\getenv admin_password ROUTER_ADMIN_PASSWORD
\getenv app_password ROUTER_APP_PASSWORD
\getenv ro_password ROUTER_RO_PASSWORD
\getenv monitor_password ROUTER_MONITOR_PASSWORD
\getenv replication_password ROUTER_REPLICATION_PASSWORD

CREATE ROLE admin LOGIN SUPERUSER PASSWORD :'admin_password';
CREATE ROLE router_app LOGIN CREATEDB PASSWORD :'app_password';
CREATE ROLE router_ro LOGIN PASSWORD :'ro_password';
CREATE ROLE router_monitor LOGIN PASSWORD :'monitor_password';
CREATE ROLE router_replication LOGIN REPLICATION PASSWORD :'replication_password';
GRANT pg_read_all_data TO router_ro;
GRANT pg_monitor TO router_monitor;

CREATE DATABASE app OWNER router_app;

SELECT pg_create_physical_replication_slot('replica_1');
SELECT pg_create_physical_replication_slot('replica_2');
