{{- /* What the operator does in a namespace that it serves; every verb has its caller in edgemodel.cluster. */ -}}
{{- define "edgemodel.namespacedRules" -}}
- apiGroups: [edgemodel.io]
  resources: [edgemodels]
  verbs: [get, list, watch]
- apiGroups: [edgemodel.io]
  resources: [edgemodels/status]
  verbs: [patch]
# Children name their EdgeModel as an owner that blocks its deletion; some clusters ask for this right then.
- apiGroups: [edgemodel.io]
  resources: [edgemodels/finalizers]
  verbs: [update]
# Children: found, watched, applied (create and patch), deleted.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Those that lead a Service to the gateway, and those that Kubernetes made when it led to pods; it would leave them behind, and
# makes them again from Endpoints.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [endpoints]
  verbs: [delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, create, patch, delete]
{{- if .Values.node.enabled }}
# Pods whose model was altered on their node are evicted; deleted if a budget forbids that for a minute.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
{{- else }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- end }}
# Pull secrets, by name.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end }}

{{- /* Two installations that share a cluster, by watchNamespaces, may bear the same release name in two namespaces. */ -}}
{{- define "edgemodel.clusterRoleName" -}}
{{- include "edgemodel.fullname" . }}{{ if .Values.watchNamespaces }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "edgemodel.subjects" -}}
- kind: ServiceAccount
  name: {{ include "edgemodel.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* One Role and its binding; argument: (list $ namespace name-suffix rules). */ -}}
{{- define "edgemodel.role" -}}
{{- $root := index . 0 }}
{{- $name := printf "%s%s" (include "edgemodel.fullname" $root) (index . 2) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "edgemodel.labels" $root | nindent 4 }}
rules:
  {{- index . 3 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "edgemodel.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  {{- include "edgemodel.subjects" $root | nindent 2 }}
{{- end }}
