#!/bin/bash
# What `make bench` runs: a control plane of its own, and the measurement against it.
set -euo pipefail
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$TESTS/tools/env.sh"
dir=$(mktemp -d "${TMPDIR:-/tmp}/seaworthy-bench-XXXXXX")
trap 'for bench in "$dir"/*/; do "$TESTS/cluster/control-plane.sh" down "$bench"; done; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cargo bench --no-run --bench certificates --bench inventory --bench rollout --bench secrets
"$TESTS/tools/build.sh" vault
export SEAWORTHY_TEST_VAULT=$(tool_dir vault)/vault
for bench in ${*:-certificates inventory rollout secrets}; do # each on a control plane that nothing else has filled
  KUBECONFIG=$("$TESTS/cluster/control-plane.sh" up "$dir/$bench" | tail -1)
  export KUBECONFIG
  kubectl apply --server-side -f "$TESTS/../crds" > /dev/null
  kubectl wait --for=condition=Established crd --all --timeout=60s > /dev/null
  if [ "$bench" = rollout ]; then # the part of the controller manager is played by the bench; without one, no namespace gets its ServiceAccount
    kubectl create namespace rollout > /dev/null
    kubectl wait --for=create serviceaccount/default -n rollout --timeout=60s > /dev/null
    "$TESTS/cluster/control-plane.sh" stop "$dir/$bench" kcm
  fi
  cargo bench --bench "$bench"
  "$TESTS/cluster/control-plane.sh" down "$dir/$bench"
done
