#!/bin/bash
# A PostgreSQL of a test's own, on loopback:
#
#   postgres.sh up DIR PORT        starts it with TLS off; prints nothing
#   postgres.sh tls DIR CRT KEY    takes a certificate over, turns TLS on, and reloads
#   postgres.sh down DIR           ends it and removes DIR
#
# PostgreSQL does not run as root: then it runs as the user nobody. Its programs come from the distribution; as root they are installed.
set -euo pipefail
DIR=$2
programs() {
  local dir
  for dir in /usr/lib/postgresql/*/bin; do [ ! -x "$dir/initdb" ] || { echo "$dir"; return; }; done
  dirname "$(command -v initdb)"
}
if [ -z "$(programs 2> /dev/null)" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "postgres.sh: PostgreSQL is not installed; install the package postgresql" >&2
    exit 3
  fi
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql; } > "${TMPDIR:-/tmp}/seaworthy-apt.log" 2>&1
fi
BIN=$(programs)
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
own() { [ "$(id -u)" != 0 ] || chown -R 65534:65534 "$@"; }
case $1 in
  up)
    mkdir -m 700 "$DIR"; own "$DIR"
    cd "$DIR"
    echo admin > password; own password
    as_user "$BIN/initdb" -D "$DIR/data" -A scram-sha-256 -U admin --pwfile="$DIR/password" --no-sync > "$DIR.log" 2>&1 || { cat "$DIR.log" >&2; exit 1; }
    as_user "$BIN/pg_ctl" -D "$DIR/data" -w -l "$DIR/log" -o "-c listen_addresses=127.0.0.1 -c port=$3 -c unix_socket_directories='' -c fsync=off" start > /dev/null
    rm -f "$DIR.log" ;;
  tls)
    for file in crt key; do
      source=$3; [ $file = crt ] || source=$4
      cp "$source" "$DIR/data/server.$file"; chmod 600 "$DIR/data/server.$file"; own "$DIR/data/server.$file"
    done
    cd "$DIR"
    grep -q '^ssl = on' data/postgresql.auto.conf || echo 'ssl = on' >> data/postgresql.auto.conf
    as_user "$BIN/pg_ctl" -D "$DIR/data" reload > /dev/null ;;
  down)
    cd "${TMPDIR:-/tmp}"
    [ ! -d "$DIR/data" ] || as_user "$BIN/pg_ctl" -D "$DIR/data" -m immediate stop > /dev/null 2>&1 || true
    rm -rf "$DIR" ;;
  *) sed -n 2,8p "$0" >&2; exit 2 ;;
esac
