{{- define "edgemodel.gatewayName" -}}
{{- include "edgemodel.fullname" . }}-gateway
{{- end }}

{{- define "edgemodel.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ include "edgemodel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "edgemodel.gatewayLabels" -}}
{{ include "edgemodel.gatewaySelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Who may call which model: made here, filled by the operator, read by the gateway. */ -}}
{{- define "edgemodel.gatewayAccessSecret" -}}
{{- include "edgemodel.gatewayName" . }}-access
{{- end }}

{{- /* What the gateway reads at its start; the fields are those of edgemodel.gateway.settings. */ -}}
{{- define "edgemodel.gatewaySettings" -}}
{{- $settings := dict "accessSecret" (include "edgemodel.gatewayAccessSecret" .) }}
{{- with .Values.gateway.tls.secretName }}{{ $_ := set $settings "tlsSecret" . }}{{ end }}
{{- with .Values.watchNamespaces }}{{ $_ := set $settings "namespaces" . }}{{ end }}
{{- merge $settings .Values.gateway.settings | toJson }}
{{- end }}

{{- /* What is of the whole cluster bears the name of the whole release. */ -}}
{{- define "edgemodel.gatewayRoleName" -}}
{{- include "edgemodel.gatewayName" . }}{{ if .Values.watchNamespaces }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- /* What it does in a namespace whose models it leads to; it reads no Secret there. */ -}}
{{- define "edgemodel.gatewayRules" -}}
- apiGroups: [edgemodel.io]
  resources: [edgemodels]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# A pod that is to end looks for Services that still lead to it.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
{{- end }}

{{- /* One Role and its binding; argument: (list $ namespace name rules). */ -}}
{{- define "edgemodel.gatewayRole" -}}
{{- $root := index . 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "edgemodel.gatewayLabels" $root | nindent 4 }}
rules:
  {{- index . 3 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "edgemodel.gatewayLabels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "edgemodel.gatewayName" $root }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
