{{/* The pod of a group: {root, name, group}. Knative wants no ports, probes of its own kind and no name. */}}
{{- define "trivet.pod" -}}
{{- $root := .root -}}
{{- $group := .group -}}
{{- $knative := eq $group.autoscaling.kind "knative" -}}
{{- $keys := include "trivet.keys" $root -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
{{- if not $knative }}
terminationGracePeriodSeconds: {{ $group.terminationGracePeriodSeconds | default (include "trivet.grace" $group) }}
{{- end }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with $group.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $group.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := $group.tolerations }}
{{- if gt (int $group.gpu.count) 0 }}
{{- $taint := regexReplaceAll "/.*" $group.gpu.resource "/gpu" }}
{{- $tolerations = append $tolerations (dict "key" $taint "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $group.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $group.topologySpread (not $knative) }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "trivet.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
containers:
  - name: trivet
    image: {{ include "trivet.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      {{- range $group.repository.url }}
      - {{ printf "--model-repository=%s" . | quote }}
      {{- else }}
      - --model-repository=/models{{ with $group.repository.subPath }}/{{ . }}{{ end }}
      {{- end }}
      {{- if $group.models }}
      - --model-control-mode=explicit
      {{- range $group.models }}
      - {{ printf "--load-model=%s" . | quote }}
      {{- end }}
      {{- end }}
      - --exit-on-error=false
      - --drain-delay-secs={{ int $group.drainDelaySeconds }}
      - --exit-timeout-secs={{ int $group.longestRequestSeconds }}
      {{- if $keys }}
      - --auth-keys-file=/run/trivet/keys.toml
      {{- else }}
      - --allow-unauthenticated=true
      {{- end }}
      - --log-format=json
      - --no-progress=true
      - --state-dir=/cache/state
      {{- with $group.spot }}
      - --spot-notice={{ . }}
      {{- end }}
      {{- range $group.args }}
      - {{ . | quote }}
      {{- end }}
    env:
      - { name: HOME, value: /tmp }
      - { name: XDG_CACHE_HOME, value: /cache }
      {{- with $group.env }}{{- toYaml . | nindent 6 }}{{- end }}
    {{- with $group.envFrom }}
    envFrom: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $knative }}
    ports:
      - { name: http1, containerPort: 8000 }
    readinessProbe:
      httpGet: { path: /v2/health/ready, port: 8000 }
    {{- else }}
    ports:
      - { name: http, containerPort: 8000 }
      - { name: grpc, containerPort: 8001 }
      - { name: metrics, containerPort: 8002 }
    startupProbe:
      httpGet: { path: /v2/health/ready, port: http }
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: {{ max 6 (ceil (divf (mulf $group.expectedLoadSeconds 1.5) 5)) | int }}
    readinessProbe:
      httpGet: { path: /v2/health/ready, port: http }
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    livenessProbe:
      httpGet: { path: /v2/health/live, port: http }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      capabilities: { drop: [ALL] }
    {{- $resources := deepCopy $group.resources }}
    {{- if gt (int $group.gpu.count) 0 }}
    {{- $limits := merge (dict $group.gpu.resource (int $group.gpu.count)) ($resources.limits | default dict) }}
    {{- $_ := set $resources "limits" $limits }}
    {{- end }}
    resources: {{- toYaml $resources | nindent 6 }}
    volumeMounts:
      {{- if not $group.repository.url }}
      - { name: models, mountPath: /models, readOnly: true }
      {{- end }}
      - { name: scratch, mountPath: /tmp, subPath: tmp }
      - { name: scratch, mountPath: /cache, subPath: cache }
      - { name: shm, mountPath: /dev/shm }
      {{- if $keys }}
      - { name: keys, mountPath: /run/trivet, readOnly: true }
      {{- end }}
volumes:
  {{- with $group.repository.image }}
  - name: models
    image: { reference: {{ . | quote }}, pullPolicy: IfNotPresent }
  {{- end }}
  {{- with $group.repository.pvc }}
  - name: models
    persistentVolumeClaim: { claimName: {{ . }}, readOnly: true }
  {{- end }}
  - name: scratch
    emptyDir: { sizeLimit: {{ $group.scratch }} }
  - name: shm
    emptyDir: { medium: Memory, sizeLimit: {{ $group.sharedMemory }} }
  {{- with $keys }}
  - name: keys
    secret: { secretName: {{ . }}, defaultMode: 0440 }
  {{- end }}
{{- end -}}
