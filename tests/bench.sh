#!/bin/bash
# What `make bench` runs: a control plane of its own, and the measurement against it.
set -euo pipefail
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$TESTS/tools/env.sh"
dir=$(mktemp -d "${TMPDIR:-/tmp}/seaworthy-bench-XXXXXX")
trap '"$TESTS/cluster/control-plane.sh" down "$dir"' EXIT
trap 'exit 130' INT TERM
cargo bench --no-run --bench certificates
KUBECONFIG=$("$TESTS/cluster/control-plane.sh" up "$dir" | tail -1)
export KUBECONFIG
kubectl apply --server-side -f "$TESTS/../crds" > /dev/null
kubectl wait --for=condition=Established crd --all --timeout=60s > /dev/null
cargo bench --bench certificates
