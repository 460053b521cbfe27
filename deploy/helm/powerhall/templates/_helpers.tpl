{{- define "powerhall.labels" -}}
app.kubernetes.io/name: powerhall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "powerhall.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* What the containers of the optimizer have in common. */}}
{{- define "powerhall.optimizerContainer" -}}
image: {{ .Values.image.optimizer }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - { name: NUMBA_CACHE_DIR, value: /var/lib/powerhall-optimizer/numba }
securityContext: {{- include "powerhall.container" . | nindent 2 }}
resources: {{- toYaml .Values.optimizer.resources | nindent 2 }}
volumeMounts:
  - { name: state, mountPath: /var/lib/powerhall-optimizer }
  - { name: site, mountPath: /etc/powerhall, readOnly: true }
  - { name: scheduler, mountPath: /etc/powerhall-scheduler, readOnly: true }
  - { name: token, mountPath: /run/powerhall/store, readOnly: true }
  - { name: tmp, mountPath: /tmp }
{{- end }}

{{- define "powerhall.roundArguments" -}}
- round
- --site
- /etc/powerhall/site.toml
- --store
- {{ .Values.store.url | quote }}
- --horizon
- {{ .Values.optimizer.horizon | quote }}
- --out
- /var/lib/powerhall-optimizer/plan.json
{{- end }}
