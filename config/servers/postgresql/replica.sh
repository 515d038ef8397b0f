#!/bin/sh
# Copy the primary on the first start, then follow it. Arguments go to postgres.
# Needs PGDATA, PRIMARY_HOST, PRIMARY_PORT, REPLICATION_SLOT and ROUTER_REPLICATION_PASSWORD.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # The copy is made beside PGDATA and renamed when complete: a half copy must never be started.
    rm -rf "$PGDATA.new"
    PGPASSWORD=$ROUTER_REPLICATION_PASSWORD pg_basebackup \
        --host="$PRIMARY_HOST" --port="$PRIMARY_PORT" --username=router_replication \
        --pgdata="$PGDATA.new" --checkpoint=fast --no-sync \
        --slot="$REPLICATION_SLOT" --write-recovery-conf
    mv "$PGDATA.new" "$PGDATA"
fi
exec postgres "$@"
