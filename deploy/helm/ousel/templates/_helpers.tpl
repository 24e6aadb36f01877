{{- define "ousel.name" -}}
{{- printf "%s" (ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name)) | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "ousel.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: ousel
{{ include "ousel.selector" . }}
{{- end -}}

{{- define "ousel.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ousel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The settings that the chart decides, over those of the values. */}}
{{- define "ousel.decided" -}}
serving:
  host: {{ .Values.listen | quote }}
  insecure: {{ .Values.security.insecure }}
  port: 50051
  metrics_host: {{ .Values.listen | quote }}
  metrics_port: 9464
  health_host: {{ .Values.listen | quote }}
  health_port: 50052
snapshot:
  dir: /var/lib/ousel/snapshots
registry:
{{- if .Values.registry.address }}
  dir: {{ .Values.registry.address | quote }}
{{- else if .Values.registry.claim }}
  dir: /var/lib/ousel-registry
{{- else if gt (int .Values.engine.replicas) 1 }}
{{- fail "registry.address or registry.claim must say where several engines keep their models" }}
{{- else }}
  dir: /var/lib/ousel/registry
{{- end }}
{{- $security := .Values.security }}
{{- if $security.tokensSecret }}
security:
  tokens_file: /etc/ousel-tokens/tokens
{{- else if not (or $security.insecure $security.mutualTls) }}
{{- fail "security.tokensSecret must name a Secret with the tokens of clients, or security.insecure must be true" }}
{{- end }}
{{- if $security.tlsSecret }}
tls:
  certificate: /etc/ousel-tls/tls.crt
  key: /etc/ousel-tls/tls.key
{{- if $security.mutualTls }}
  client_authorities: /etc/ousel-tls/ca.crt
{{- end }}
{{- else if $security.mutualTls }}
{{- fail "security.tlsSecret must name a Secret with the engines' certificate where security.mutualTls is true" }}
{{- end }}
trainer:
  engine: {{ include "ousel.name" . }}:50051
  metrics_host: {{ .Values.listen | quote }}
  metrics_port: 9465
{{- if $security.trainerTokenSecret }}
  token_file: /etc/ousel-token/token
{{- else if and .Values.trainer.enabled $security.tokensSecret }}
{{- fail "security.trainerTokenSecret must name a Secret with the trainer's token, since engines ask for one" }}
{{- end }}
{{- if $security.tlsSecret }}
{{- if and .Values.trainer.enabled (not $security.trainerTlsSecret) }}
{{- fail "security.trainerTlsSecret must name a Secret with the authorities by which the trainer checks the engines" }}
{{- end }}
  tls_authorities: /etc/ousel-trainer-tls/ca.crt
{{- if $security.mutualTls }}
  tls_certificate: /etc/ousel-trainer-tls/tls.crt
  tls_key: /etc/ousel-trainer-tls/tls.key
{{- end }}
{{- else }}
  # Its token does not leave the cluster's network.
  insecure: {{ not (empty $security.trainerTokenSecret) }}
{{- end }}
  archive_dir: /var/lib/ousel/archive
  models_dir: /var/lib/ousel/models
{{- end -}}

{{/* Sections as TOML. Numbers, texts and lists are written as in JSON, which TOML reads alike; tables become sections. */}}
{{- define "ousel.toml" -}}
{{- $settings := mergeOverwrite (deepCopy .Values.config) (include "ousel.decided" . | fromYaml) -}}
{{- range $name, $value := $settings }}{{ if not (kindIs "map" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}{{ end }}
{{- range $section, $values := $settings }}{{ if kindIs "map" $values }}

[{{ $section }}]
{{- range $name, $value := $values }}{{ if not (kindIs "map" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}{{ end }}
{{- range $name, $table := $values }}{{ if kindIs "map" $table }}

[{{ $section }}.{{ $name }}]
{{- range $key, $value := $table }}
{{ toJson $key }} = {{ toJson $value }}
{{- end }}
{{- end }}{{ end }}
{{- end }}{{ end }}
{{- with .Values.configText }}

{{ . }}
{{- end }}
{{- end -}}

{{/* What both kinds of pods share. Called with a dict of root and part. */}}
{{- define "ousel.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "ousel.name" $root }}
automountServiceAccountToken: false
# The variables that Kubernetes makes of a service's name would begin with OUSEL_, as settings do.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .part.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ousel.container" -}}
image: {{ include "ousel.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources: {{- toYaml .part.resources | nindent 2 }}
{{- with .root.Values.variablesSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
volumeMounts:
  - { name: state, mountPath: /var/lib/ousel }
  - { name: temporary, mountPath: /tmp }
  - { name: settings, mountPath: /etc/ousel, readOnly: true }
{{- range $name, $secret := .secrets }}
{{- if $secret }}
  - { name: {{ $name }}, mountPath: /etc/{{ $name }}, readOnly: true }
{{- end }}
{{- end }}
{{- with .claim }}
  - { name: registry, mountPath: /var/lib/ousel-registry }
{{- end }}
{{- range .root.Values.files }}
  - { name: {{ .name }}, mountPath: {{ .mountPath }}, readOnly: true }
{{- end }}
{{- end -}}

{{/* Called as the container is: with a dict of root, part and secrets, whose names are those of their folders. */}}
{{- define "ousel.volumes" -}}
- name: temporary
  emptyDir: { sizeLimit: 256Mi }
- name: settings
  configMap:
    name: {{ include "ousel.name" .root }}
{{- range $name, $secret := .secrets }}
{{- if $secret }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .claim }}
- name: registry
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- range .root.Values.files }}
- name: {{ .name }}
{{- if .secret }}
  secret:
    secretName: {{ .secret }}
{{- else }}
  configMap:
    name: {{ .configMap }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The claim of a StatefulSet. Called with the part's storage. */}}
{{- define "ousel.claim" -}}
- metadata:
    name: state
  spec:
    accessModes: [ReadWriteOnce]
{{- with .className }}
    storageClassName: {{ . }}
{{- end }}
    resources:
      requests:
        storage: {{ .size }}
{{- end -}}
