{{/*
All groups with the defaults below what each says, as YAML; refuses what does not fit together, with a
sentence. A map of a group is laid over the map of the defaults, anything else replaces it.
*/}}
{{- define "trivet.groups" -}}
{{- $groups := dict -}}
{{- range $name, $given := .Values.groups -}}
{{- $group := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy ($given | default dict)) -}}
{{- include "trivet.refuse" (dict "name" $name "group" $group) -}}
{{- $_ := set $groups $name $group -}}
{{- end -}}
{{- if not $groups -}}{{- fail "groups is empty: name at least one group of models, such as groups.models.repository.pvc" -}}{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{- define "trivet.refuse" -}}
{{- $where := printf "groups.%s" .name -}}
{{- $group := .group -}}
{{- $auto := $group.autoscaling -}}
{{- $repository := $group.repository -}}
{{- $sources := 0 -}}
{{- range list $repository.image $repository.pvc $repository.url -}}{{- if . -}}{{- $sources = add1 $sources -}}{{- end -}}{{- end -}}
{{- if ne (int $sources) 1 -}}
{{- fail (printf "%s.repository names %d places of models: give exactly one of image, pvc and url" $where (int $sources)) -}}
{{- end -}}
{{- $grace := int (include "trivet.grace" $group) -}}
{{- $wanted := int $group.terminationGracePeriodSeconds -}}
{{- if and $wanted (lt $wanted $grace) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d, less than the %d s that draining takes (drainDelaySeconds %d + longestRequestSeconds %d + 5): requests would be cut off. Leave it 0, or shorten these" $where $wanted $grace (int $group.drainDelaySeconds) (int $group.longestRequestSeconds)) -}}
{{- end -}}
{{- if and $group.spot (gt $grace 25) -}}
{{- fail (printf "%s runs on spot nodes, which are gone 30 s after their notice, and takes %d s to drain: drainDelaySeconds + longestRequestSeconds may be 20 at the most" $where $grace) -}}
{{- end -}}
{{- $count := int $group.gpu.count -}}
{{- $node := int $group.gpu.perNode -}}
{{- if and $node (gt $count $node) -}}
{{- fail (printf "%s.gpu.count is %d and a node has %d of %s (gpu.perNode): no pod would ever be placed. Ask for at most %d" $where $count $node $group.gpu.resource $node) -}}
{{- end -}}
{{- if and (eq (int $auto.min) 0) (eq $auto.kind "hpa") -}}
{{- fail (printf "%s.autoscaling.min is 0, and nothing would wake a group that has no replica: kind hpa counts what its replicas say. Take keda, keda-http or knative, or min 1" $where) -}}
{{- end -}}
{{- if lt (int $auto.max) (int $auto.min) -}}
{{- fail (printf "%s.autoscaling.max is %d, less than min, which is %d" $where (int $auto.max) (int $auto.min)) -}}
{{- end -}}
{{- if and (eq $auto.kind "none") (eq (int $group.replicas) 0) -}}
{{- fail (printf "%s.replicas is 0 without an autoscaler (autoscaling.kind none): nothing would ever serve it" $where) -}}
{{- end -}}
{{- if and (eq $auto.kind "keda") (not $auto.prometheus) -}}
{{- fail (printf "%s.autoscaling.prometheus is empty: kind keda asks a Prometheus, such as http://prometheus.monitoring:9090" $where) -}}
{{- end -}}
{{- if and (eq $auto.kind "keda") (eq (int $auto.min) 0) (not $auto.activationQuery) -}}
{{- fail (printf "%s.autoscaling.min is 0 with kind keda and no activationQuery: what its Prometheus knows comes from the replicas, so nothing would wake a group that has none. Give one that something in front of them answers, or take keda-http or knative, which hold requests meanwhile, or min 1" $where) -}}
{{- end -}}
{{- if and (eq $auto.kind "keda-http") (not $auto.hosts) -}}
{{- fail (printf "%s.autoscaling.hosts is empty: kind keda-http tells by the host name which group a request wakes" $where) -}}
{{- end -}}
{{- end -}}
