# Sourced: where the tools are. Sets SEAWORTHY_CACHE, tool_dir, and PATH.
_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$_here/versions.env"
: "${SEAWORTHY_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/seaworthy}"
tool_dir() { # NAME -> the folder of its pinned version
  local version=${1^^}_VERSION
  echo "$SEAWORTHY_CACHE/$1-${!version}"
}
for _tool in kube containerd cni coredns pause tlsserver mkimage helm kubeconform promtool; do PATH=$(tool_dir "$_tool"):$PATH; done
export PATH SEAWORTHY_CACHE
