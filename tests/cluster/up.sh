#!/bin/bash
# Starts a whole one-node Kubernetes in namespaces of its own. Needs root and Linux; prints the path of the kubeconfig on the last line.
#
# On the machine itself there is only: $RUN, a veth pair with two routes, and a cgroup $NODE_NAME. down.sh removes all of it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$CLUSTER_DIR/pki.sh"
say() { echo "$*" >&2; }
fail() { say "cluster: $*"; exit 3; }
[ "$(uname)" = Linux ] || fail "a cluster with a node needs Linux; use make demo CLUSTER=current with a cluster of your own"
[ "$(id -u)" = 0 ] || fail "a cluster with a node needs root (namespaces, mounts); run it as root, or use tests/cluster/control-plane.sh"

install_packages() {
  local missing=() package
  declare -A of=([runc]=runc [nft]=nftables [openssl]=openssl [ip]=iproute2 [curl]=curl [unshare]=util-linux)
  for command in "${!of[@]}"; do command -v "$command" > /dev/null || missing+=("${of[$command]}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || fail "these packages are missing: ${missing[*]}; install them with your package manager"
  say "installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } > "${TMPDIR:-/tmp}/seaworthy-apt.log" 2>&1 ||
    fail "apt-get failed; see ${TMPDIR:-/tmp}/seaworthy-apt.log"
}

make_cgroup() { # one parent for all Pods, so that down.sh can remove it
  local dir file
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    for dir in /sys/fs/cgroup "/sys/fs/cgroup/$NODE_NAME"; do
      mkdir -p "$dir"
      for file in cpuset cpu memory pids io hugetlb; do echo "+$file" > "$dir/cgroup.subtree_control" 2>/dev/null || true; done
    done
    return
  fi
  for dir in /sys/fs/cgroup/{cpu,cpuacct,cpuset,memory,devices,freezer,blkio,pids,systemd}; do
    [ -d "$dir" ] || continue
    mkdir -p "$dir/$NODE_NAME"
    [ "${dir##*/}" != cpuset ] || for file in cpus mems; do cat "$dir/cpuset.$file" > "$dir/$NODE_NAME/cpuset.$file"; done
  done
}

configure() {
  local server=https://$NODE_IP:6443
  new_ca
  sign apiserver /CN=kube-apiserver "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$NODE_IP,IP:$SVC_IP"
  sign kubelet-client "/O=system:masters/CN=apiserver-kubelet-client" extendedKeyUsage=clientAuth
  kubeconfig admin.conf "$server" admin system:masters
  kubeconfig kcm.conf "$server" system:kube-controller-manager ""
  kubeconfig scheduler.conf "$server" system:kube-scheduler ""
  kubeconfig proxy.conf "$server" system:kube-proxy ""
  kubeconfig kubelet.conf "$server" "system:node:$NODE_NAME" system:nodes
  chmod 600 pki/*.key pki/tokens.csv
  : > resolv.conf
  local file
  for file in containerd.toml cni.conflist kubelet.yaml proxy.yaml Corefile; do
    sed "s#@RUN@#$RUN#g; s#@CNI@#$(tool_dir cni)#g; s#@NODE@#$NODE_NAME#g; s#@NODE_IP@#$NODE_IP#g; s#@POD_CIDR@#$POD_CIDR#g; s#@PAUSE@#$PAUSE_IMAGE#g" "$CLUSTER_DIR/config/$file" > "$file"
  done
  mkdir -p cni && mv cni.conflist cni/10-seaworthy.conflist
}

wait_for() { # WHAT COMMAND...
  local what=$1; shift
  for i in $(seq 900); do
    if "$@" > /dev/null 2>&1; then say "  $what"; return; fi
    [ -d "/proc/$init" ] || fail "the node died; see $RUN/log"
    [ $((i % 100)) != 0 ] || say "  still waiting: $what"
    sleep 0.1
  done
  fail "$what did not come within 90 s; see $RUN/log"
}
node_ready() { kubectl get node "$NODE_NAME" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }

if [ -e "$RUN" ] || [ -L "$RUN" ]; then
  is_ours || fail "$RUN is there and is not a folder that this script made; remove it and try again"
  say "cluster: what an earlier run left is taken down first"
  "$CLUSTER_DIR/down.sh"
fi
install_packages
"$CLUSTER_DIR/../tools/build.sh" kube containerd cni coredns pause tlsserver mkimage
say "starting a one-node Kubernetes $KUBE_VERSION"
mkdir -m 700 "$RUN"
touch "$RUN/$MARKER"
mkdir "$RUN"/{log,kubelet,logs,volumes}
cd "$RUN"
configure
make_cgroup
export NODE_NAME NODE_N RUN
setsid unshare --mount --net --pid --uts --ipc --fork --mount-proc "$CLUSTER_DIR/node.sh" > log/init.log 2>&1 < /dev/null 9>&- &
outer=$!
for _ in $(seq 100); do
  read -r init _ < "/proc/$outer/task/$outer/children" 2>/dev/null || true
  [ -z "${init:-}" ] || break
  sleep 0.05
done
echo "${init:?no process in the new namespaces}" > init.pid
ip link add "$NODE_NAME-h" type veth peer name node0 netns "$init"
ip addr add "$HOST_IP/24" dev "$NODE_NAME-h"; ip link set "$NODE_NAME-h" up
ip route add "$POD_CIDR" via "$NODE_IP"; ip route add "$SVC_CIDR" via "$NODE_IP"
wait_for "API server" kubectl get --raw /readyz
wait_for "containerd" test -e images.done
wait_for "node" node_ready
wait_for "default ServiceAccount" kubectl get serviceaccount default
wait_for "DNS" curl -sf "http://$NODE_IP:8181/ready"
wait_for "Service addresses" curl -skf --max-time 1 "https://$SVC_IP/readyz"
echo "$RUN/admin.conf"
