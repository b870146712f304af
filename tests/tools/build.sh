#!/bin/bash
# Builds the pinned servers and tools that are named, each once, into the cache folder, and prints where they are.
#
#   tests/tools/build.sh NAME...     NAME: kube containerd cni coredns pause tlsserver mkimage helm kubeconform schemas promtool vault moto
#
# A tool lives in $SEAWORTHY_CACHE/NAME-VERSION/ and nowhere else; deleting that folder builds it again. Needs Go and the Go module proxy.
set -euo pipefail
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$TOOLS/env.sh"

command -v go >/dev/null || {
  echo "seaworthy: Go is not installed, and the test servers are built from source. Install Go 1.26.6 or newer and put it on PATH." >&2
  exit 3
}

export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath" GOTOOLCHAIN="${GOTOOLCHAIN:-local}"

install() { GOBIN=$OUT go install "$@"; }

build_kube() {
  local src=$TOOLS/../cluster/kube minor=${KUBE_VERSION#1.}; minor=${minor%%.*}
  if ! grep -q "k8s.io/kubernetes v$KUBE_VERSION\$" "$src/go.mod"; then src=$(other_kube "$src"); fi
  local v=k8s.io/component-base/version
  (cd "$src" && go build -ldflags "-s -w -X $v.gitVersion=v$KUBE_VERSION -X $v.gitMajor=1 -X $v.gitMinor=$minor" -o "$OUT/kube" .)
  for c in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do ln -sf kube "$OUT/$c"; done
}
# The committed go.mod is of the default version. For another one its staging modules are moved along and the rest is resolved anew.
other_kube() {
  local from=$1 to=$OUT.src
  rm -rf "$to"; mkdir -p "$to"; cp "$from/main.go" "$to/"
  sed -E "s#(k8s.io/kubernetes) v1[^ ]*#\1 v$KUBE_VERSION#; s#(k8s.io/[a-z-]+) v0\.[0-9]+\.[0-9]+\$#\1 v0${KUBE_VERSION#1}#; /\/\/ indirect/d" "$from/go.mod" > "$to/go.mod"
  (cd "$to" && GOFLAGS=-mod=mod go mod tidy >&2)
  echo "$to"
}
build_containerd() {
  local m=github.com/containerd/containerd/v2
  install -tags 'no_btrfs no_devmapper no_zfs' -ldflags "-s -w -X $m/version.Version=v$CONTAINERD_VERSION" \
    "$m/cmd/containerd@v$CONTAINERD_VERSION" "$m/cmd/containerd-shim-runc-v2@v$CONTAINERD_VERSION" "$m/cmd/ctr@v$CONTAINERD_VERSION"
}
build_cni() {
  local m=github.com/containernetworking/plugins/plugins
  install -ldflags '-s -w' "$m/main/bridge@v$CNI_VERSION" "$m/main/loopback@v$CNI_VERSION" "$m/ipam/host-local@v$CNI_VERSION" "$m/meta/portmap@v$CNI_VERSION"
}
build_coredns() { (cd "$TOOLS/../cluster/coredns" && go build -ldflags '-s -w' -o "$OUT/coredns" .); }
build_pause() { go build -ldflags '-s -w' -o "$OUT/pause" "$TOOLS/../cluster/pause/main.go"; }
build_tlsserver() { go build -ldflags '-s -w' -o "$OUT/tlsserver" "$TOOLS/../cluster/tlsserver/main.go"; }
build_vault() { (cd "$TOOLS/../servers/vault" && go build -ldflags '-s -w' -o "$OUT/vault" .); }
# The one that is not Go: an emulator of AWS, in a Python environment of its own.
build_moto() {
  if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then echo "moto needs Python 3 with venv; install the package python3-venv" >&2; exit 3; fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv; } > "${TMPDIR:-/tmp}/seaworthy-apt.log" 2>&1
  fi
  python3 -m venv "$OUT"
  "$OUT/bin/python" -m pip install --quiet --disable-pip-version-check "moto[server]==$MOTO_VERSION"
}
build_mkimage() { go build -ldflags '-s -w' -o "$OUT/mkimage" "$TOOLS/../../image/mkimage.go"; }
build_helm() { install -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"; }
build_kubeconform() {
  install -ldflags '-s -w' "github.com/yannh/kubeconform/cmd/kubeconform@v$KUBECONFORM_VERSION"
}
# Its go.mod has replace directives, which `go install` refuses: it is built as the main module, from a copy of the module cache.
build_promtool() {
  local module=github.com/prometheus/prometheus dir
  dir=$(cd "${TMPDIR:-/tmp}" && go mod download -json "$module@v$PROMTOOL_VERSION" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
  mkdir -p "$OUT.src" && cp -r "$dir/." "$OUT.src/" && chmod -R u+w "$OUT.src"
  (cd "$OUT.src" && go build -ldflags '-s -w' -o "$OUT/promtool" ./cmd/promtool)
}
# Schemas for kubeconform, from the API description in the Kubernetes module.
build_schemas() {
  local dir
  dir=$(cd "$TOOLS/../cluster/kube" && go mod download -json "k8s.io/kubernetes@v$KUBE_VERSION" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
  go run "$TOOLS/schemas.go" "$dir/api/openapi-spec/swagger.json" "$OUT"
}

# What a cold build takes on two free cores, so that a person knows whether to wait.
estimate() {
  case $1 in kube | vault) echo "5 to 10 min" ;; containerd | coredns | helm | promtool | moto) echo "2 to 4 min" ;; *) echo "under 1 min" ;; esac
}

mkdir -p "$SEAWORTHY_CACHE"
for tool in "$@"; do
  dir=$(tool_dir "$tool")
  [ ! -e "$dir/.done" ] || continue
  exec 9> "$SEAWORTHY_CACHE/.lock-$tool"
  flock 9
  if [ ! -e "$dir/.done" ]; then
    OUT=$dir.part; rm -rf "$OUT"; mkdir -p "$OUT"
    echo "building $(basename "$dir") (once; about $(estimate "$tool"))" >&2
    start=$SECONDS
    (while sleep 15; do echo "  still building $tool, $((SECONDS - start)) s" >&2; done) 9>&- & ticker=$!
    trap 'kill $ticker 2>/dev/null || true' EXIT
    "build_$tool"
    kill $ticker 2>/dev/null || true; wait $ticker 2>/dev/null || true; trap - EXIT
    rm -rf "$OUT.src" "$dir"; mv "$OUT" "$dir"; touch "$dir/.done"
    echo "built $(basename "$dir") in $((SECONDS - start)) s" >&2
  fi
  exec 9>&-
done
