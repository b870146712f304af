#!/bin/bash
# The chart without a cluster: lint, rendered with many values and validated against the API's schemas, the alerts tested, bad values refused.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/../tools/env.sh"
"$HERE/../tools/build.sh" helm kubeconform schemas promtool
CHART=$HERE/../../charts/seaworthy
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export HELM_CACHE_HOME=$WORK/cache HELM_CONFIG_HOME=$WORK/config HELM_DATA_HOME=$WORK/data

helm lint --strict "$CHART" > "$WORK/lint" || { cat "$WORK/lint"; exit 1; }

render() { # NAME ARGUMENTS...
  local name=$1; shift
  helm template seaworthy "$CHART" --namespace seaworthy "$@" > "$WORK/$name.yaml"
  # The kinds of Prometheus and CustomResourceDefinitions have no schema of Kubernetes' own.
  kubeconform -strict -summary -schema-location "$(tool_dir schemas)/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
    -skip ServiceMonitor,PrometheusRule,CustomResourceDefinition "$WORK/$name.yaml" > "$WORK/$name.out" || { cat "$WORK/$name.out"; exit 1; }
  echo "  $name: $(cat "$WORK/$name.out")"
}
contains() { grep -q -- "$2" "$WORK/$1.yaml" || { echo "chart: rendered with $1, $2 is missing"; exit 1; }; }
lacks() { ! grep -q -- "$2" "$WORK/$1.yaml" || { echo "chart: rendered with $1, $2 should not be there"; exit 1; }; }

render default
contains default "helm.sh/resource-policy: keep"
contains default "readOnlyRootFilesystem: true"
contains default "kind: PodDisruptionBudget"
contains default "kind: NetworkPolicy"
lacks default "kind: ServiceMonitor"
render monitored --set metrics.serviceMonitor.enabled=true --set metrics.prometheusRule.enabled=true
contains monitored "kind: ServiceMonitor"
contains monitored "alert: SeaworthyDown"
render namespaced --set 'namespaces={a,b}'
contains namespaced "--namespaces=a,b"
lacks namespaced "kind: ClusterRoleBinding"
lacks namespaced "certificateissuers/status"
lacks namespaced "secretstores/status"
render stores --set 'stores.networks={127.0.0.1/32}' --set-json 'networkPolicy.egress=[{"ports":[{"port":8200,"protocol":"TCP"}]}]'
contains stores "--store-networks=127.0.0.1/32"
contains stores "port: 8200"
render mounted --set 'stores.env={APP_*}' --set 'stores.folders={/mnt/values}' --set-json 'extraVolumes=[{"name":"values","secret":{"secretName":"values"}}]' \
  --set-json 'extraVolumeMounts=[{"name":"values","mountPath":"/mnt/values","readOnly":true}]'
contains mounted "--store-env=APP_"
contains mounted "--store-folders=/mnt/values"
contains mounted "mountPath: /mnt/values"
render certificates --set 'areas={certificates}'
lacks certificates "secretrotations/status"
render bare --set crds.install=false --set rbac.create=false --set serviceAccount.create=false --set networkPolicy.enabled=false --set podDisruptionBudget.enabled=false
lacks bare "kind: CustomResourceDefinition"
lacks bare "kind: ClusterRole"
lacks bare "kind: ServiceAccount$"
render digest --set image.digest=sha256:$(printf 'a%.0s' $(seq 64))
contains digest "image: seaworthy@sha256:aaaa"

for bad in replicas=-1 'areas={cooking}' log.format=xml image.digest=latest unknown=1; do
  ! helm template seaworthy "$CHART" --set "$bad" > /dev/null 2>&1 || { echo "chart: accepted --set $bad"; exit 1; }
done

promtool check rules "$CHART/files/alerts.yaml" > "$WORK/rules" || { cat "$WORK/rules"; exit 1; }
promtool test rules "$HERE/alerts_test.yaml" > "$WORK/alerts" || { cat "$WORK/alerts"; exit 1; }
echo "chart: linted, rendered, validated; alerts tested"
