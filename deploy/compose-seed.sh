#!/bin/sh
# Fills the private bucket of docker-compose.yml from tiles-sample/, and makes the user that reads it.
set -eu
mc alias set local http://minio:9000 "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD"
mc mb --ignore-existing local/tiles
mc anonymous set none local/tiles
for set in world values countries; do
    mc mirror --quiet --overwrite "/tiles-sample/$set" "local/tiles/$set"
done
mc admin policy create local tilekeep-read /deploy/compose-read-policy.json
mc admin user add local "$TILEKEEP_ACCESS_KEY" "$TILEKEEP_SECRET_KEY"
# Attaching twice is an error of mc's, and no harm.
mc admin policy attach local tilekeep-read --user "$TILEKEEP_ACCESS_KEY" ||
    mc admin policy entities local --user "$TILEKEEP_ACCESS_KEY" | grep -q tilekeep-read
echo "the bucket 'tiles' is filled, and private"
