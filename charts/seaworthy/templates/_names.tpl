{{- define "seaworthy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "seaworthy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "seaworthy.labels" -}}
{{ include "seaworthy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "seaworthy.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "seaworthy.name" .) }}
{{- end }}

{{- define "seaworthy.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The rules of one scope (namespaces, cluster, operator) for what is enabled. */}}
{{- define "seaworthy.rules" -}}
{{- $rules := .root.Files.Get "files/rbac.yaml" | fromYaml }}
{{- $wanted := list }}
{{- range prepend .root.Values.areas "shared" }}{{ $wanted = concat $wanted (index $rules . $.scope) }}{{ end }}
{{- toYaml $wanted }}
{{- end }}
