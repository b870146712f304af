#!/bin/bash
# Runs a command with a cluster to test against, and takes the cluster down whatever happens:
#
#   tests/with-cluster.sh cargo test --test it
#
# As root it is a whole node and a control plane beside it, else a control plane. The chart is installed with the real helm, without replicas: its CRDs
# and its rights are what tests run under. The command gets SEAWORTHY_TEST_KUBECONFIG (an administrator), SEAWORTHY_TEST_NODE (1 with a node), and
# SEAWORTHY_TEST_CONTROL_PLANE (an administrator of the one without a node).
set -euo pipefail
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export NODE_NAME=sw-test NODE_N=7
. "$TESTS/cluster/env.sh"
if [ "$(id -u)" = 0 ] && [ "$(uname)" = Linux ]; then
  export SEAWORTHY_TEST_NODE=1
  only_one
else
  export SEAWORTHY_TEST_NODE=0
  echo "not root: the tests get a control plane without a node; what needs a node fails with CI=true" >&2
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/seaworthy-cp-XXXXXX")
down() {
  [ "$SEAWORTHY_TEST_NODE" = 0 ] || "$TESTS/cluster/down.sh"
  "$TESTS/cluster/control-plane.sh" down "$dir"
}
trap down EXIT
trap 'exit 130' INT TERM
if [ "$SEAWORTHY_TEST_NODE" = 1 ]; then
  kubeconfig=$("$TESTS/cluster/up.sh" | tail -1)
  # The operator's image, for the test that runs it as Pods.
  binary=$TESTS/../target/${CARGO_BUILD_TARGET:-}/debug/seaworthy
  if [ -x "$binary" ]; then
    export SEAWORTHY_TEST_IMAGE=localhost/seaworthy:test
    "$TESTS/../image/build.sh" "$binary" "$SEAWORTHY_TEST_IMAGE" "$RUN/image.tar" > /dev/null
    ctr -a "$RUN/containerd.sock" -n k8s.io images import "$RUN/image.tar" > "$RUN/log/import.log" 2>&1
  fi
fi
SEAWORTHY_TEST_CONTROL_PLANE=$("$TESTS/cluster/control-plane.sh" up "$dir")
export SEAWORTHY_TEST_CONTROL_PLANE
kubeconfig=${kubeconfig:-$SEAWORTHY_TEST_CONTROL_PLANE}
"$TESTS/tools/build.sh" vault
export SEAWORTHY_TEST_VAULT=$(tool_dir vault)/vault
export SEAWORTHY_TEST_KUBECONFIG=$kubeconfig KUBECONFIG=$kubeconfig
"$TESTS/tools/build.sh" kube helm
for KUBECONFIG in $(printf '%s\n' "$kubeconfig" "$SEAWORTHY_TEST_CONTROL_PLANE" | sort -u); do
  helm install seaworthy "$TESTS/../charts/seaworthy" --namespace seaworthy --create-namespace --set replicas=0 > /dev/null
  kubectl wait --for=condition=Established crd --all --timeout=60s > /dev/null
done
KUBECONFIG=$kubeconfig
status=0
"$@" || status=$?
exit $status
