#!/bin/sh
# Makes what docker-compose.yml's server needs and nobody should find in a repository: the key that signs
# sessions, the admin token, the users file. What is there already stays.
set -eu
umask 077
state=/var/lib/tilekeep
admin=/run/tilekeep-admin

secret() {
    [ -s "$1" ] && return
    head -c 48 /dev/urandom | base64 -w 0 >"$1.new"
    mv "$1.new" "$1"
}
secret "$state/session.key"
secret "$admin/token"
# Prometheus reads it too, as another user; the volume is these two containers' own.
chmod 0755 "$admin"
chmod 0444 "$admin/token"

if [ ! -s "$state/users.toml" ]; then
    printf '%s\n' "$DEMO_PASSWORD" | tilekeep user add demo --tilesets '*' --scope tiles,explain \
        --password-stdin --users-file "$state/users.toml"
fi
chown -R tilekeep:tilekeep "$state" /var/cache/tilekeep
