#!/bin/bash
# A control plane without a node (etcd, kube-apiserver, kube-controller-manager) on loopback; needs no root.
#
#   control-plane.sh up DIR                 starts it; prints the path of the kubeconfig (DIR/admin.conf)
#   control-plane.sh stop|start DIR DAEMON  ends or starts one of etcd, apiserver, kcm
#   control-plane.sh down DIR               ends all of it and removes DIR
set -euo pipefail
CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$CLUSTER_DIR/../tools/env.sh"
. "$CLUSTER_DIR/pki.sh"

free_port() { # not in use now, and not one that this script has given out
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (: < "/dev/tcp/127.0.0.1/$port") 2>/dev/null || { mkdir "${TMPDIR:-/tmp}/.seaworthy-port-$port" 2>/dev/null && break; }
  done
  echo "${TMPDIR:-/tmp}/.seaworthy-port-$port" >> ports.lock
  echo "$port"
}

# On few cores that all have to share, the same writes take a third longer with Go's default.
export GOGC=${GOGC:-400}

start() {
  . ./ports
  local etcd=http://127.0.0.1:$ETCD_PORT
  case $1 in
    etcd) set -- etcd etcd --data-dir "$PWD/etcd" --unsafe-no-fsync --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
      --listen-peer-urls "http://127.0.0.1:$PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$PEER_PORT" --initial-cluster "default=http://127.0.0.1:$PEER_PORT" ;;
    apiserver) set -- apiserver kube-apiserver --etcd-servers "$etcd" --bind-address 127.0.0.1 --advertise-address 192.0.2.1 --secure-port "$API_PORT" \
      --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt --token-auth-file pki/tokens.csv \
      --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key --service-account-issuer https://kubernetes.default.svc.cluster.local \
      --service-cluster-ip-range 10.96.0.0/16 --authorization-mode RBAC --shutdown-delay-duration 0s --endpoint-reconciler-type none ;;
    kcm) set -- kcm kube-controller-manager --kubeconfig kcm.conf --bind-address 127.0.0.1 --secure-port "$KCM_PORT" --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000 \
      --use-service-account-credentials --service-account-private-key-file pki/sa.key --root-ca-file pki/ca.crt ;;
    *) echo "control-plane.sh: no daemon $1" >&2; exit 2 ;;
  esac
  local name=$1; shift
  setsid "$@" >> "log/$name.log" 2>&1 < /dev/null &
  echo $! > "$name.pid"
}

alive() { # one that has ended and waits to be reaped by somebody else does not count, unless threads of it still hold its port
  local state threads
  state=$(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) || return 1
  threads=("/proc/$1/task/"*)
  [ "${state:0:1}" != Z ] || [ "${#threads[@]}" -gt 1 ]
}

stop() {
  local pid; pid=$(cat "$1.pid" 2>/dev/null) || return 0
  kill -9 "$pid" 2>/dev/null || true
  while alive "$pid"; do sleep 0.05; done
  rm -f "$1.pid"
}

wait_for() { # WHAT COMMAND...
  local what=$1; shift
  for _ in $(seq 900); do ! "$@" > /dev/null 2>&1 || return 0; sleep 0.1; done
  echo "control-plane.sh: $what did not come within 90 s; the last lines of $PWD/log:" >&2
  tail -n 5 log/*.log >&2
  exit 3
}

ready() { kubectl --kubeconfig admin.conf get --raw /readyz; }

DIR=${2:?"usage: control-plane.sh up|down DIR, or stop|start DIR DAEMON"}
case $1 in
  up)
    "$CLUSTER_DIR/../tools/build.sh" kube
    mkdir -p "$DIR/log"; cd "$DIR"
    API_PORT=$(free_port)
    printf 'ETCD_PORT=%s\nPEER_PORT=%s\nAPI_PORT=%s\nKCM_PORT=%s\n' "$(free_port)" "$(free_port)" "$API_PORT" "$(free_port)" > ports
    new_ca
    sign apiserver /CN=kube-apiserver "subjectAltName=DNS:localhost,IP:127.0.0.1"
    kubeconfig admin.conf "https://127.0.0.1:$API_PORT" admin system:masters
    kubeconfig kcm.conf "https://127.0.0.1:$API_PORT" system:kube-controller-manager ""
    start etcd
    start apiserver
    wait_for "the API server" ready
    start kcm
    wait_for "the default ServiceAccount" kubectl --kubeconfig admin.conf get serviceaccount default
    echo "$PWD/admin.conf" ;;
  start) cd "$DIR"; start "$3"; [ "$3" != apiserver ] || wait_for "the API server" ready ;;
  stop) cd "$DIR"; stop "$3" ;;
  down)
    cd "$DIR" 2>/dev/null || exit 0
    for daemon in kcm apiserver etcd; do stop $daemon; done
    [ ! -e ports.lock ] || while read -r lock; do rmdir "$lock" 2>/dev/null || true; done < ports.lock
    cd /; rm -rf "$DIR" ;;
  *) echo "control-plane.sh: up, down, start or stop" >&2; exit 2 ;;
esac
