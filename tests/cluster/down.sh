#!/bin/bash
# Ends the node that up.sh started and removes what it left: with process 1 of its namespaces all daemons, containers, mounts and interfaces go.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ -s "$RUN/init.pid" ]; then
  init=$(cat "$RUN/init.pid")
  if [ -d "/proc/$init" ] && tr '\0' ' ' < "/proc/$init/cmdline" | grep -q cluster/node.sh; then
    kill -9 "$init"
    for _ in $(seq 100); do [ -d "/proc/$init" ] || break; sleep 0.1; done
  fi
fi
ip link del "$NODE_NAME-h" 2> /dev/null
for dir in "/sys/fs/cgroup/$NODE_NAME" /sys/fs/cgroup/*/"$NODE_NAME"; do
  for _ in $(seq 50); do
    [ -d "$dir" ] || break
    find "$dir" -depth -type d -exec rmdir {} + 2> /dev/null
    [ ! -d "$dir" ] || sleep 0.1
  done
done
! is_ours || rm -rf "$RUN"
rmdir /tmp/hostpath_pv 2> /dev/null
exit 0
