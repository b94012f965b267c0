{{- /* kfault's image, with its tag. */ -}}
{{- define "kfault.image" -}}
{{ .Values.images.registry }}/{{ .Values.images.repository }}:{{ .Values.images.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The namespace that is served, where it is one. */ -}}
{{- define "kfault.target" -}}
{{ .Values.controllerManager.targetNamespace | default .Release.Namespace }}
{{- end }}

{{- /* The kind of the rights in what is served. */ -}}
{{- define "kfault.role" -}}
{{ if .Values.clusterScoped }}ClusterRole{{ else }}Role{{ end }}
{{- end }}

{{- /* Where those rights are, as a line of metadata. */ -}}
{{- define "kfault.in" -}}
{{ if not .Values.clusterScoped }}namespace: {{ include "kfault.target" . }}{{ end }}
{{- end }}
