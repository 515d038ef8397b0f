#!/bin/sh
# Create the users and the database "app" on a new primary. The replica gets both through the binary log.
# Needs the five ROUTER_*_PASSWORD; speaks to the server on its Unix socket (MYSQL_UNIX_PORT if not the
# usual one) as root with MARIADB_ROOT_PASSWORD.
set -eu

MYSQL_PWD=${MARIADB_ROOT_PASSWORD:-} mariadb --no-defaults --protocol=socket --user=root <<SQL
CREATE USER admin@'%' IDENTIFIED BY '$ROUTER_ADMIN_PASSWORD';
GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION;

-- Every right on data and schemas, and none that read_only does not bind (SUPER, READ_ONLY ADMIN).
CREATE USER router_app@'%' IDENTIFIED BY '$ROUTER_APP_PASSWORD';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES,
    CREATE TEMPORARY TABLES, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, TRIGGER, EVENT
    ON *.* TO router_app@'%';

CREATE USER router_ro@'%' IDENTIFIED BY '$ROUTER_RO_PASSWORD';
GRANT SELECT ON *.* TO router_ro@'%';

CREATE USER router_monitor@'%' IDENTIFIED BY '$ROUTER_MONITOR_PASSWORD';
GRANT PROCESS, BINLOG MONITOR, REPLICA MONITOR ON *.* TO router_monitor@'%';

CREATE USER router_replication@'%' IDENTIFIED BY '$ROUTER_REPLICATION_PASSWORD';
GRANT REPLICATION REPLICA ON *.* TO router_replication@'%';

CREATE DATABASE app;
SQL
