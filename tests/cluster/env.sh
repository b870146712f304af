# Sourced. One node is one folder, one cgroup name and one veth pair: NODE_NAME and NODE_N tell several apart.
CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$CLUSTER_DIR/../tools/env.sh"
: "${NODE_NAME:=seaworthy}"                        # cgroup, veth prefix (at most 10 characters), node
: "${NODE_N:=0}"                                   # third octet of its networks
RUN=${TMPDIR:-/tmp}/seaworthy-$NODE_NAME             # everything that the node writes; short, because of the sockets in it
HOST_IP=10.200.$NODE_N.254 NODE_IP=10.200.$NODE_N.1
POD_CIDR=10.244.$NODE_N.0/24 SVC_CIDR=10.96.$NODE_N.0/24 SVC_IP=10.96.$NODE_N.1
PAUSE_IMAGE=localhost/pause:1
TLSSERVER_IMAGE=localhost/tlsserver:1
export KUBECONFIG=$RUN/admin.conf
MARKER=made-by-up.sh
is_ours() { [ -d "$RUN" ] && [ ! -L "$RUN" ] && [ -O "$RUN" ] && [ -e "$RUN/$MARKER" ]; } # else nothing in it is touched
# One run at a time has the node of this name; the lock (file descriptor 9) goes with the process, whatever ends it.
only_one() {
  mkdir -p "$SEAWORTHY_CACHE"
  exec 9> "$SEAWORTHY_CACHE/$NODE_NAME.lock"
  flock -n 9 || { echo "cluster: another run uses the node $NODE_NAME; wait until it has ended" >&2; exit 3; }
  LOCKED=1
}
