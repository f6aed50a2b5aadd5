{{- define "moorage.policy.changed" -}}
- name: spec-changed
  expression: oldObject == null || object.spec != oldObject.spec
{{- end -}}

{{- define "moorage.policy.service" -}}
{{ include "moorage.policy.findings" (dict "root" . "services" "[object.spec]" "at" "'spec'") }}
{{- end -}}

{{- define "moorage.policy.stack" -}}
{{ include "moorage.policy.findings" (dict "root" . "services" "object.spec.services" "at" "'spec.services[' + s.name + ']'") }}
{{- end -}}

{{- define "moorage.policy.image" -}}
- name: findings
  expression: "has(object.spec.archive) && has(object.spec.archive.nodePath) ? ['spec.archive.nodePath'] : []"
{{- end -}}

{{/* `findings`: every field that reaches into the host, in CEL; `services` is a list of them, `at` the path of one, `s`. */}}
{{- define "moorage.policy.findings" -}}
{{- $each := "variables.services.map(s" -}}
{{- $some := "filter(field, !field.endsWith('[]'))" -}}
{{- $at := .at -}}
- name: services
  expression: {{ .services | quote }}
- name: findings
  expression: >-
    {{ $each }}, s.task.?security.?privileged.orValue(false), {{ $at }} + '.task.security.privileged')
    {{- if not .root.Values.admissionPolicy.baseline.hostNetwork }}
    + {{ $each }}, s.?network.?mode.orValue('') == 'Host', {{ $at }} + '.network.mode: Host')
    {{- end }}
    {{- range list "pid" "ipc" }}
    + {{ $each }}, s.task.?security.?{{ . }}.orValue('') == 'Host', {{ $at }} + '.task.security.{{ . }}: Host')
    {{- end }}
    {{- range list "seccomp" "appArmor" }}
    + {{ $each }}, s.task.?security.?{{ . }}.orValue('') == 'Unconfined', {{ $at }} + '.task.security.{{ . }}: Unconfined')
    {{- end }}
    + {{ $each }}, {{ $at }} + '.task.security.capAdd [' + s.task.?security.?capAdd.orValue([])
      .filter(name, !(name in {{ include "moorage.policy.capabilities" . }})).join(', ') + ']').{{ $some }}
    + {{ $each }}, {{ $at }} + '.task.security.sysctls [' + s.task.?security.?sysctls.orValue([])
      .map(each, !each.name.replace('/', '.').matches('{{ include "moorage.policy.sysctls" . }}'), each.name).join(', ') + ']').{{ $some }}
    + {{ $each }}, {{ $at }} + '.task.security.devices [' + s.task.?security.?devices.orValue([])
      .map(each, each.path).join(', ') + ']').{{ $some }}
    + {{ $each }}, {{ $at }} + '.task.mounts [' + s.task.?mounts.orValue([])
      .map(each, has(each.bind), each.target + ': bind').join(', ') + ']').{{ $some }}
{{- end -}}

{{/* Docker's fourteen. The runtime's own default is a subset. */}}
{{- define "moorage.policy.capabilities" -}}
['AUDIT_WRITE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'MKNOD', 'NET_BIND_SERVICE', 'NET_RAW', 'SETFCAP', 'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT']
{{- end -}}

{{/* What belongs to a namespace of the container's own (sysctl(7), ipc_namespaces(7)); hosts refuse the others too. */}}
{{- define "moorage.policy.sysctls" -}}
^(net[.]|fs[.]mqueue[.]|kernel[.]shm|kernel[.](msgmax|msgmnb|msgmni|sem)$)
{{- end -}}
