{{/* What the operator does with what it serves: every verb here is one it calls. */}}
{{- define "moorage.rules" -}}
- apiGroups: [moorage.dev]
  resources: [swarmstacks]
  verbs: [get, list, watch]
- apiGroups: [moorage.dev]
  resources: [swarmservices, swarmtasks]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [moorage.dev]
  resources: [swarmimages]
  verbs: [get, list, watch, create, delete]
- apiGroups: [moorage.dev]
  resources: [swarmstacks/status, swarmservices/status, swarmimages/status, swarmtasks/status]
  verbs: [patch]
# Owner references that hold up the owner's deletion need this where OwnerReferencesPermissionEnforcement is on (OpenShift).
- apiGroups: [moorage.dev]
  resources: [swarmstacks/finalizers, swarmservices/finalizers]
  verbs: [update]
# Watched by their metadata alone, read one by one when a host needs a value. RBAC knows no verb for metadata: list allows both.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
{{ include "moorage.rules.events" . }}
{{- end -}}

{{- define "moorage.rules.events" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Nodes have no namespace: whoever commands a swarm commands all of it. */}}
{{- define "moorage.rules.nodes" -}}
- apiGroups: [moorage.dev]
  resources: [swarmnodes]
  verbs: [get, list, watch, patch]
- apiGroups: [moorage.dev]
  resources: [swarmnodes/status]
  verbs: [patch]
{{- end -}}

{{- define "moorage.subject" -}}
- kind: ServiceAccount
  name: {{ include "moorage.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* A Role and its binding: (dict "root" $ "name" ... "namespace" ... "rules" ...). */}}
{{- define "moorage.role" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- include "moorage.labels" .root | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- include "moorage.labels" .root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}}
subjects: {{- include "moorage.subject" .root | nindent 2 }}
{{- end -}}
