{{- define "edgemodel.nodeName" -}}
{{- include "edgemodel.fullname" . }}-node
{{- end }}

{{- define "edgemodel.nodeSelectorLabels" -}}
app.kubernetes.io/name: {{ include "edgemodel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end }}

{{- define "edgemodel.nodeLabels" -}}
{{ include "edgemodel.nodeSelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What the agent reads at its start; the fields are those of edgemodel.node.settings. */ -}}
{{- define "edgemodel.nodeSettings" -}}
{{- $settings := dict "heartbeatSeconds" .Values.node.heartbeatSeconds }}
{{- with .Values.registries }}{{ $_ := set $settings "registries" . }}{{ end }}
{{- with .Values.node.storeBudget }}{{ $_ := set $settings "storeBudget" . }}{{ end }}
{{- with .Values.node.rateLimit }}{{ $_ := set $settings "rateLimit" . }}{{ end }}
{{- merge $settings .Values.node.settings | toJson }}
{{- end }}

{{- /* One agent on each node: what is of the whole cluster bears the name of the whole release. */ -}}
{{- define "edgemodel.nodeRoleName" -}}
{{- include "edgemodel.nodeName" . }}{{ if .Values.watchNamespaces }}-{{ .Release.Namespace }}{{ end }}
{{- end }}
