{{/* What every Pod of ours has in common. Meets the restricted Pod Security Standard. */}}
{{- define "moorage.pod" -}}
serviceAccountName: {{ include "moorage.serviceAccount" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "moorage.container" -}}
image: {{ include "moorage.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* Where the operator and its verbs find what is theirs. */}}
{{- define "moorage.environment" -}}
- name: LOGNAME
  value: moorage
- name: MOORAGE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: MOORAGE_LEASE
  value: {{ include "moorage.fullname" . }}-operator
- name: MOORAGE_SWARM_SECRET
  value: {{ include "moorage.fullname" . }}-swarm
{{- with .Values.watchNamespaces }}
- name: MOORAGE_WATCH_NAMESPACES
  value: {{ toJson . | quote }}
{{- end }}
- name: MOORAGE_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- end -}}
