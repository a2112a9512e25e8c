{{/* NAME of this release, as its objects begin. */}}
{{- define "trivet.name" -}}
{{- if contains "trivet" .Release.Name -}}{{ .Release.Name }}{{- else -}}{{ printf "%s-trivet" .Release.Name }}{{- end -}}
{{- end -}}

{{/* NAME of a group's objects: {root, name}. */}}
{{- define "trivet.group" -}}
{{ printf "%s-%s" (include "trivet.name" .root) .name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* What selects the pods of a group: {root, name}. */}}
{{- define "trivet.selector" -}}
app.kubernetes.io/name: trivet
app.kubernetes.io/instance: {{ .root.Release.Name }}
trivet/group: {{ .name }}
{{- end -}}

{{- define "trivet.labels" -}}
{{ include "trivet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* The labels of what belongs to no group. */}}
{{- define "trivet.common" -}}
app.kubernetes.io/name: trivet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The image by digest, else by tag. */}}
{{- define "trivet.image" -}}
{{- if .Values.image.digest -}}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}{{ .Values.image.repository }}:{{ .Values.image.tag }}{{- end -}}
{{- end -}}

{{/* The secret that has keys.toml, empty without keys. */}}
{{- define "trivet.keys" -}}
{{- if .Values.keys.existingSecret -}}{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.toml -}}{{ include "trivet.name" . }}-keys{{- end -}}
{{- end -}}

{{/* Seconds until a pod that is to end is killed: {group}. */}}
{{- define "trivet.grace" -}}
{{ add .drainDelaySeconds .longestRequestSeconds 5 }}
{{- end -}}
