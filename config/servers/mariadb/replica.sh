#!/bin/sh
# Make a new, empty server follow the primary by GTID from the very start of its binary log.
# Needs PRIMARY_HOST, PRIMARY_PORT and ROUTER_REPLICATION_PASSWORD; speaks to the server on its Unix socket
# (MYSQL_UNIX_PORT if not the usual one) as root with MARIADB_ROOT_PASSWORD.
set -eu

# RESET MASTER: what set-up wrote to the replica's own binary log would collide with the primary's GTIDs.
# MASTER_SSL=0: both servers are on one private network, and 11.4 would otherwise insist on a certificate.
MYSQL_PWD=${MARIADB_ROOT_PASSWORD:-} mariadb --no-defaults --protocol=socket --user=root <<SQL
RESET MASTER;
SET GLOBAL gtid_slave_pos = '';
CHANGE MASTER TO
    MASTER_HOST = '$PRIMARY_HOST',
    MASTER_PORT = $PRIMARY_PORT,
    MASTER_USER = 'router_replication',
    MASTER_PASSWORD = '$ROUTER_REPLICATION_PASSWORD',
    MASTER_SSL = 0,
    MASTER_CONNECT_RETRY = 1,
    MASTER_USE_GTID = slave_pos;
START SLAVE;
SQL
