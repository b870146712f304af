#!/bin/bash
# What `make demo` runs: builds the operator, starts a cluster, installs the chart, applies the examples, waits, and shows what happened.
#
#   CLUSTER=current  the cluster of your kubeconfig; with IMAGE= of a registry, or kind or k3d, which are loaded directly
#   APP_IMAGE=       with IMAGE=: an image that your cluster can pull and that runs for ever (nginx, redis), for an application that uses the values
#   ONCE=1           take everything down at the end; exit 0 only if all of it became Ready
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export NODE_NAME=sw-demo NODE_N=8
USER_KUBECONFIG=${KUBECONFIG:-$HOME/.kube/config}
. tests/cluster/env.sh
NAMESPACE=seaworthy
STARTED=$SECONDS
step() { printf '%4ds  %s\n' "$((SECONDS - STARTED))" "$*" >&2; }
stop() { echo "demo: $*" >&2; exit 3; }
command -v cargo > /dev/null || stop "Rust is not installed; install it from https://rustup.rs and try again"
command -v go > /dev/null || stop "Go is not installed, and the cluster is built from source; install Go 1.26.6 or newer (https://go.dev/dl) and try again"
[ "$(uname)" = Linux ] || [ "${CLUSTER:-}" = current ] || stop "a cluster of its own needs Linux; use CLUSTER=current with a cluster of yours"

MODE=node
if [ "${CLUSTER:-}" = current ]; then MODE=current; elif [ "$(id -u)" != 0 ]; then MODE=process; fi
WORK=$(mktemp -d "${TMPDIR:-/tmp}/seaworthy-demo-XXXXXX")
OPERATOR_PID=
APPS= # whether applications run that use the values
# Only what this demo made: it began in a cluster without our kinds and without the namespace. What cannot be removed is said.
remove_from_current() {
  local failed=0
  [ ! -e "$WORK/app.yaml" ] || kubectl delete -f "$WORK/app.yaml" --ignore-not-found --timeout=60s || failed=1
  kubectl delete -f examples --ignore-not-found --timeout=60s || failed=1
  helm uninstall seaworthy -n $NAMESPACE --wait || failed=1
  kubectl delete secrets -A -l seaworthy.dev/owner-hash || failed=1 # there were none; those that nobody would collect when the kinds are gone, too
  kubectl delete crd certificaterotations.seaworthy.dev certificateissuers.seaworthy.dev secretrotations.seaworthy.dev secretstores.seaworthy.dev || failed=1
  kubectl delete namespace $NAMESPACE --wait=false || failed=1
  return $failed
}
cleanup() {
  trap - EXIT INT TERM
  [ -z "${SLEEPER:-}" ] || kill "$SLEEPER" 2> /dev/null || true
  [ -z "$OPERATOR_PID" ] || { kill "$OPERATOR_PID" 2> /dev/null && wait "$OPERATOR_PID" 2> /dev/null; } || true
  case $MODE in
    node) [ -z "${LOCKED:-}" ] || tests/cluster/down.sh ;;
    process) tests/cluster/control-plane.sh down "$WORK/control-plane" ;;
    current)
      [ -z "${INSTALLED:-}" ] || remove_from_current > "$WORK/removal.log" 2>&1 || {
        cat "$WORK/removal.log" >&2
        echo "demo: not everything could be removed from the cluster; see above" >&2
      } ;;
  esac
  rm -rf "$WORK"
  step "taken down; only the cache $SEAWORTHY_CACHE stays"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

load() { # ARCHIVE: into the cluster of the kubeconfig
  case $context in
    kind-*) kind load image-archive "$1" --name "${context#kind-}" ;;
    k3d-*) k3d image import "$1" --cluster "${context#k3d-}" ;;
    *) stop "the cluster $context cannot be given an image directly; push one (make image) and say IMAGE=registry/name:tag" ;;
  esac
}

step "building the operator"
cargo build --bin seaworthy
BINARY=$ROOT/target/$CARGO_BUILD_TARGET/debug/seaworthy
tests/tools/build.sh kube helm mkimage

NAME=${IMAGE:-localhost/seaworthy:demo}
case $MODE in
  node)
    only_one
    APPS=1
    step "starting a one-node Kubernetes $KUBE_VERSION"
    tests/cluster/up.sh > /dev/null
    step "making the image and loading it"
    image/build.sh "$BINARY" "$NAME" "$WORK/image.tar" > /dev/null
    ctr -a "$RUN/containerd.sock" -n k8s.io images import "$WORK/image.tar" > "$RUN/log/import.log" 2>&1 ;;
  process)
    step "not root: the cluster is a control plane without a node, and the operator runs beside it"
    KUBECONFIG=$(tests/cluster/control-plane.sh up "$WORK/control-plane" | tail -1) ;;
  current)
    export KUBECONFIG=$USER_KUBECONFIG
    context=$(kubectl config current-context) || stop "your kubeconfig has no current context"
    [ -z "$(kubectl get namespace $NAMESPACE --ignore-not-found -o name || echo unknown)" ] || stop "the cluster $context has a namespace $NAMESPACE already; the demo does not touch it"
    [ -z "$(kubectl get crd certificaterotations.seaworthy.dev certificateissuers.seaworthy.dev secretrotations.seaworthy.dev secretstores.seaworthy.dev --ignore-not-found -o name || echo unknown)" ] || stop "the cluster $context has the kinds of Seaworthy already; the demo does not touch them"
    [ -z "$(kubectl get secrets -A -l seaworthy.dev/owner-hash -o name || echo unknown)" ] || stop "the cluster $context holds Secrets of an earlier Seaworthy; the demo does not touch them"
    [ -z "$(kubectl -n default get deployments client orders --ignore-not-found -o name || echo unknown)" ] || stop "the namespace default of the cluster $context has a Deployment client or orders; the demo does not touch it"
    step "using the cluster $context"
    if [ -z "${IMAGE:-}" ]; then
      image/build.sh "$BINARY" "$NAME" "$WORK/image.tar" > /dev/null
      load "$WORK/image.tar"
      if [ -z "${APP_IMAGE:-}" ]; then
        tests/tools/build.sh tlsserver
        mkimage "$WORK/app.tar" "$TLSSERVER_IMAGE" /tlsserver "$(tool_dir tlsserver)/tlsserver=/tlsserver"
        load "$WORK/app.tar"
        APPS=1
      fi
    fi
    [ -z "${APP_IMAGE:-}" ] || APPS=1 ;;
esac
export KUBECONFIG

step "installing the chart"
INSTALLED=1
replicas=2; [ $MODE != process ] || replicas=0
helm install seaworthy charts/seaworthy -n $NAMESPACE --create-namespace --wait --timeout 3m \
  --set replicas=$replicas --set image.repository="${NAME%:*}" --set image.tag="${NAME##*:}" --set log.format=text > "$WORK/helm.log" 2>&1 || {
  cat "$WORK/helm.log" >&2
  kubectl -n $NAMESPACE get pods,events >&2
  kubectl -n $NAMESPACE logs deployment/seaworthy --tail 30 >&2 || true
  stop "the chart could not be installed"
}
if [ $MODE = process ]; then
  token=$(kubectl -n $NAMESPACE create token seaworthy --duration 24h)
  sed "s#user: {token: .*}#user: {token: $token}}#" "$KUBECONFIG" > "$WORK/operator.conf"
  chmod 600 "$WORK/operator.conf"
  KUBECONFIG=$WORK/operator.conf "$BINARY" controller --operator-namespace $NAMESPACE --listen 127.0.0.1:0 --log-format text > "$WORK/audit.log" 2> "$WORK/operator.log" &
  OPERATOR_PID=$!
fi

ELSEWHERE='^ *(vault|aws|oci|file|env):' # a Vault, AWS, Oracle Cloud, what is mounted into the operator: not here
if [ $MODE = node ]; then
  step "applying examples/, a server that uses one of the certificates, and an application that uses the values"
  for file in $(grep -LE "$ELSEWHERE" examples/*.yaml); do kubectl apply -f "$file" > /dev/null; done
  kubectl apply -f demo/web.yaml -f demo/app.yaml > /dev/null
else
  step "applying examples/, but for those that have to be served, or need a store that is not here"
  for file in $(grep -LE "^  verify:|$ELSEWHERE" examples/*.yaml); do kubectl apply -f "$file" > /dev/null; done
  if [ -n "$APPS" ]; then
    step "and an application that uses the values"
    # What another image is to do is its own affair.
    sed -e '' ${APP_IMAGE:+-e "s|image: .*|image: $APP_IMAGE|" -e '/args:/d'} demo/app.yaml > "$WORK/app.yaml"
    kubectl apply -f "$WORK/app.yaml" > /dev/null
  else
    step "no application runs that could use the values: that needs a node, and an image (root, kind, k3d, or CLUSTER=current with APP_IMAGE=)"
  fi
fi
ok=1
wait_ready() { # KIND
  kubectl wait --for=condition=Ready "$1" --all -A --timeout=120s > "$WORK/wait.log" 2>&1 || { cat "$WORK/wait.log" >&2; ok=0; }
}
# Every Pod of an application was made with what the Secret holds, as far as can be told from outside a node.
is_restarted() { # DEPLOYMENT SECRETROTATION
  kubectl -n default rollout status "deployment/$1" --timeout=120s > /dev/null &&
    kubectl -n default wait --for=jsonpath='{.status.consumers.summary}'=2/2 "secretrotation/$2" --timeout=120s > /dev/null || return 1
  step "every Pod of Deployment $1 has the new value of Secret $2"
}
# Every process of an application has in its environment what the Secret holds: the kernel is asked, not the operator.
runs_with() { # VARIABLE SECRET KEY
  local wanted running
  wanted=$1=$(kubectl -n default get secret "$2" -o jsonpath="{.data.$3}" | base64 -d)
  for _ in {1..40}; do # Pods that end take a moment
    running=$(for pid in $(pgrep tlsserver); do tr '\0' '\n' < "/proc/$pid/environ" 2> /dev/null | grep "^$1=" || true; done | sort -u)
    [ "$running" != "$wanted" ] || { step "every process that uses Secret $2 runs with the new value"; return; }
    sleep 0.5
  done
  echo "demo: not every process that uses Secret $2 has the new value" >&2
  return 1
}
wait_ready certificateissuers
wait_ready certificaterotations
wait_ready secretstores
wait_ready secretrotations
if [ $ok = 1 ]; then
  step "all of them are Ready; renewing one now"
  "$BINARY" rotate certificaterotation/api -n default --wait --timeout 60s >&2 || ok=0
  if [ $MODE = node ]; then
    step "renewing the one that is served: its Pods are restarted, and asked what they serve"
    "$BINARY" rotate certificaterotation/web -n default --wait --timeout 120s >&2 || ok=0
  fi
  [ -z "$APPS" ] || for name in client orders; do kubectl -n default rollout status deployment/$name --timeout=120s > /dev/null || ok=0; done
  step "a new API key: the previous one stays beside it for a day, and who uses it is restarted"
  before=$(kubectl -n default get secret api-key -o jsonpath='{.data.key}')
  "$BINARY" rotate secretrotation/api-key -n default --wait --timeout 120s >&2 || ok=0
  [ "$(kubectl -n default get secret api-key -o jsonpath='{.data.key-previous}')" = "$before" ] || { echo "demo: the previous API key is gone" >&2; ok=0; }
  [ -z "$APPS" ] || is_restarted client api-key || ok=0
  [ $MODE != node ] || runs_with API_KEY api-key key || ok=0
  step "another database password in the Secret that orders is made of"
  kubectl -n default patch secret database -p '{"stringData": {"password": "another/one"}}' > /dev/null
  kubectl -n default wait --for=jsonpath='{.status.revision}'=2 secretrotation/orders --timeout=30s > /dev/null || ok=0
  kubectl -n default wait --for=jsonpath='{.status.lastRotation.completedAt}' secretrotation/orders --timeout=60s > /dev/null || ok=0
  case $(kubectl -n default get secret orders -o jsonpath='{.data.database-url}' | base64 -d) in
    *another%2Fone*) ;;
    *) echo "demo: orders does not have it" >&2; ok=0 ;;
  esac
  [ -z "$APPS" ] || is_restarted orders orders || ok=0
  [ $MODE != node ] || runs_with DATABASE_URL orders database-url || ok=0
fi

echo
"$BINARY" status -A || ok=0
echo
[ -z "$APPS" ] || { "$BINARY" consumers secret/api-key -n default || ok=0; "$BINARY" consumers secret/orders -n default || ok=0; echo; }
kubectl get events -A --field-selector reportingComponent=seaworthy.dev/operator --sort-by=.metadata.creationTimestamp \
  -o 'custom-columns=EVENT:.reason,OBJECT:.involvedObject.name,SAYS:.message' 2> /dev/null || true
echo
echo "Look around:  export KUBECONFIG=$KUBECONFIG"
echo "              kubectl get seaworthy -A"
echo "kubectl is in $(tool_dir kube), helm in $(tool_dir helm)"
[ $ok = 1 ] || { echo "demo: not all of it became Ready" >&2; exit 1; }
if [ -n "${ONCE:-}" ]; then
  step "all Ready"
  exit 0
fi
echo "Ctrl-C ends it and leaves nothing behind."
while :; do sleep 3600 9>&- & SLEEPER=$!; wait $SLEEPER; done # without the lock: what a signal leaves behind would hold it
