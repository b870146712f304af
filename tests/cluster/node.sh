#!/bin/bash
# Process 1 of the node's namespaces, started by up.sh: private mounts, network, then every daemon. When it is killed, all of it ends.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$RUN" || exit 3

# Mounts: nothing of the machine is written to. The kubelet needs shared propagation; its paths under /var/lib and /var/log are compiled in.
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib && mkdir /var/lib/kubelet /var/lib/cni
mount --bind "$RUN/kubelet" /var/lib/kubelet
mkdir -p /tmp/hostpath_pv && mount --bind "$RUN/volumes" /tmp/hostpath_pv
mount -t tmpfs -o mode=755 tmpfs /var/log && mkdir -p /var/log/pods /var/log/containers && mount --bind "$RUN/logs" /var/log/pods
mkdir -p /run/sysctl # the kubelet writes these, and they are the whole machine's: it gets files instead
for sysctl in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  file=/run/sysctl/${sysctl//\//_}
  cat "/proc/sys/$sysctl" > "$file" && mount --bind "$file" "/proc/sys/$sysctl"
done

# Network: a veth to the machine, no default route, so that nothing can leave.
hostname "$NODE_NAME"
ip link set lo up
until ip link show node0 > /dev/null 2>&1; do sleep 0.05; done
ip addr add "$NODE_IP/24" dev node0 && ip link set node0 up
ip route add "$SVC_CIDR" dev node0 src "$NODE_IP" # without any route, traffic to a Service would end before its address is translated
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables 2> /dev/null # Pod to Service to Pod on the same bridge

daemon() { local name=$1; shift; "$@" > "log/$name.log" 2>&1 & echo "$name $!" >> daemons; }
until_ok() { for _ in $(seq 600); do ! "$@" > /dev/null 2>&1 || return 0; sleep 0.1; done; echo "gave up on: $*"; }
etcd_up() { (: < /dev/tcp/127.0.0.1/2379) 2> /dev/null; }

daemon etcd etcd --data-dir "$RUN/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
until_ok etcd_up
daemon apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --bind-address 0.0.0.0 --advertise-address "$NODE_IP" --secure-port 6443 \
  --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt --token-auth-file pki/tokens.csv \
  --kubelet-preferred-address-types InternalIP --kubelet-client-certificate pki/kubelet-client.crt --kubelet-client-key pki/kubelet-client.key \
  --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-cluster-ip-range "$SVC_CIDR" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged
daemon containerd containerd --config "$RUN/containerd.toml"
until_ok ctr -a "$RUN/containerd.sock" version
import() { # IMAGE PROGRAM
  mkimage "$2.tar" "$1" "/$2" "$(tool_dir "$2")/$2=/$2" && ctr -a "$RUN/containerd.sock" -n k8s.io images import "$2.tar" >> log/import.log 2>&1
}
import "$PAUSE_IMAGE" pause && import "$TLSSERVER_IMAGE" tlsserver && touch images.done
until_ok kubectl get --raw /readyz
daemon kcm kube-controller-manager --kubeconfig kcm.conf --bind-address 127.0.0.1 --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000 --enable-hostpath-provisioner \
  --use-service-account-credentials --service-account-private-key-file pki/sa.key --root-ca-file pki/ca.crt --cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key
daemon scheduler kube-scheduler --kubeconfig scheduler.conf --bind-address 127.0.0.1 --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000
daemon kubelet kubelet --config kubelet.yaml --kubeconfig kubelet.conf --hostname-override "$NODE_NAME" --node-ip "$NODE_IP"
daemon proxy kube-proxy --config proxy.yaml
daemon coredns coredns -conf Corefile

# As process 1 it reaps what is left to it, and says which daemon ended.
trap 'exit 0' TERM INT
while :; do
  wait -n -p pid; code=$?
  name=$(awk -v pid="${pid:-0}" '$2 == pid {print $1}' daemons)
  [ -z "$name" ] || echo "$(date +%T) $name ended with $code"
  [ "$code" != 127 ] || sleep 1
done
