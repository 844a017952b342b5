{{/*
For a sidecar, your chart depends on this chart with `deployment.enabled: false`, and has:

  spec:
    template:
      metadata:
        labels:
          closewatch: sidecar
        annotations:
          checksum/closewatch: {{ include "closewatch.configChecksum" $closewatch }}
      spec:
        terminationGracePeriodSeconds: 60
        initContainers:
          {{- include "closewatch.sidecar" $closewatch | nindent 10 }}
        volumes:
          {{- include "closewatch.volume" $closewatch | nindent 10 }}

with {{- $closewatch := dict "Values" .Values.closewatch "Release" .Release }}; `targetPort: closewatch` in your Service;
and `lifecycle: {preStop: {sleep: {seconds: 28}}}` in your own container: it must outlive the drain of its sessions.
*/}}

{{- define "closewatch.fullname" -}}
{{ if eq .Release.Name "closewatch" }}closewatch{{ else }}{{ printf "%s-closewatch" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "closewatch.labels" -}}
{{ include "closewatch.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
{{- end }}

{{- define "closewatch.selectorLabels" -}}
app.kubernetes.io/name: closewatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "closewatch.config" -}}
{{- $own := dict
  "listen" (printf "0.0.0.0:%v" .Values.port)
  "admin" (dict "listen" "127.0.0.1:9917" "control" true)
  "metrics" (dict "listen" (printf "0.0.0.0:%v" .Values.metricsPort)) -}}
{{- $config := mergeOverwrite $own (deepCopy .Values.config) -}}
{{- if not (or $config.upstream $config.routes) -}}
{{- fail "config.upstream is missing: the address of the server behind closewatch, such as ws://chat.default.svc:80" -}}
{{- end -}}
{{ toYaml $config }}
{{- end }}

{{- define "closewatch.configChecksum" -}}
{{ include "closewatch.config" . | sha256sum }}
{{- end }}

{{- define "closewatch.container" -}}
name: closewatch
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, --config, /etc/closewatch/config.yaml]
ports:
  - {name: closewatch, containerPort: {{ .Values.port }}}
  - {name: cw-metrics, containerPort: {{ .Values.metricsPort }}}
startupProbe:
  httpGet: {path: /-/ready, port: cw-metrics}
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet: {path: /-/ready, port: cw-metrics}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /-/healthy, port: cw-metrics}
  periodSeconds: 10
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: closewatch, mountPath: /etc/closewatch, readOnly: true}
{{- end }}

{{- define "closewatch.sidecar" -}}
- {{ include "closewatch.container" . | nindent 2 | trim }}
  restartPolicy: Always
  lifecycle:
    preStop:
      exec:
        command: [/closewatch, drain, --wait, --timeout, {{ .Values.sidecar.drainSeconds }}s]
{{- end }}

{{- define "closewatch.volume" -}}
- name: closewatch
  configMap: {name: {{ include "closewatch.fullname" . }}}
{{- end }}
