{{- define "edgemodel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "edgemodel.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "edgemodel.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "edgemodel.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "edgemodel.selector" -}}
app.kubernetes.io/name: {{ include "edgemodel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "edgemodel.labels" -}}
{{ include "edgemodel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "edgemodel.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "edgemodel.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The full reference of one image; argument: (list $ "operator"). */ -}}
{{- define "edgemodel.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.images (index . 1) }}
{{- $registry := $root.Values.images.registry }}
{{- $path := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") }}
{{- if $image.digest }}
{{- printf "%s@%s" $path $image.digest }}
{{- else }}
{{- printf "%s:%s" $path (default $root.Chart.AppVersion $root.Values.images.tag) }}
{{- end }}
{{- end }}

{{- /* "true" or nothing: does this release elect a leader? */ -}}
{{- define "edgemodel.leaderElection" -}}
{{- if kindIs "bool" .Values.leaderElection }}
{{- if .Values.leaderElection }}true
{{- else if gt (int .Values.replicas) 1 }}
{{- fail (printf "leaderElection is false and replicas is %v: without an election only one operator may run; leave leaderElection at null" .Values.replicas) }}
{{- end }}
{{- else if gt (int .Values.replicas) 1 }}true{{ end }}
{{- end }}

{{- define "edgemodel.leaseName" -}}
{{- default "edgemodel-operator" .Values.settings.leaseName }}
{{- end }}

{{- /* What the operator reads at its start; the fields are OperatorSettings'. */ -}}
{{- define "edgemodel.settings" -}}
serverImage: {{ include "edgemodel.image" (list . "server") | quote }}
nodeImage: {{ include "edgemodel.image" (list . "node") | quote }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
leaderElection: {{ eq (include "edgemodel.leaderElection" .) "true" }}
nodeDelivery: {{ .Values.node.enabled }}
gateway: {{ .Values.gateway.enabled }}
{{- if .Values.gateway.enabled }}
gatewayNamespace: {{ .Release.Namespace }}
gatewaySelector:
  {{- include "edgemodel.gatewaySelectorLabels" . | nindent 2 }}
gatewayAccessSecret: {{ include "edgemodel.gatewayAccessSecret" . }}
{{- end }}
{{- with .Values.watchNamespaces }}
namespaces:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.registries }}
registries:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.settings }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Tolerations of a pod that is to be elsewhere soon after its node was lost. Takes the root and its other tolerations. */ -}}
{{- define "edgemodel.leavesSoon" -}}
{{- $soon := list }}
{{- range list "not-ready" "unreachable" }}
{{- $soon = append $soon (dict "key" (printf "node.kubernetes.io/%s" .) "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" (int (index $ 0).Values.nodeLossSeconds)) }}
{{- end }}
{{- toYaml (concat (index . 1) $soon) }}
{{- end }}
