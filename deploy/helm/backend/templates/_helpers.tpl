{{/*
Every helper is given a dict: `root` (what Helm calls $), and `row` (an entry of files/services.yaml) where it is about one.
*/}}

{{- define "backend.name" -}}
{{ .root.Values.nameOverride | default .root.Chart.Name }}
{{- end }}

{{- define "backend.fullname" -}}
{{- if .root.Values.fullnameOverride -}}
{{ .root.Values.fullnameOverride }}
{{- else if contains (include "backend.name" .) .root.Release.Name -}}
{{ .root.Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .root.Release.Name (include "backend.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* What the objects of a row are called. */}}
{{- define "backend.rowName" -}}
{{ include "backend.fullname" . }}-{{ .row.host }}
{{- end }}

{{/* What pods are selected by; `component` is a row's host, or what a job is for. */}}
{{- define "backend.selector" -}}
app.kubernetes.io/name: {{ include "backend.name" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "backend.labels" -}}
{{ include "backend.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: backend
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* `image`: services or operations. */}}
{{- define "backend.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := get $images .image -}}
{{- with $images.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The values of a row's pods, as JSON: the defaults, and over them its own. */}}
{{- define "backend.workload" -}}
{{- $own := get (.root.Values.services | default dict) .row.name | default dict -}}
{{ mustMergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) | toJson }}
{{- end }}

{{- define "backend.certificateSecret" -}}
{{ include "backend.fullname" . }}-{{ .component }}-certificate
{{- end }}

{{- define "backend.publicCertificateSecret" -}}
{{ .root.Values.certificates.public.secretName | default (printf "%s-public-certificate" (include "backend.fullname" .)) }}
{{- end }}

{{- define "backend.issuer" -}}
{{- $issuer := .root.Values.certificates.issuer -}}
{{- if .public }}{{ if .root.Values.certificates.public.issuer.name }}{{ $issuer = .root.Values.certificates.public.issuer }}{{ end }}{{ end -}}
name: {{ $issuer.name | default (printf "%s-authority" (include "backend.fullname" .)) }}
kind: {{ $issuer.kind }}
group: {{ $issuer.group }}
{{- end }}

{{/* The last port that a URL names, each host's being the same; `otherwise` when it names none. */}}
{{- define "backend.urlPort" -}}
{{- $host := (urlParse (first (splitList "," .url))).host -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $host) | default .otherwise -}}
{{- end }}

{{/* Of every pod: nothing that it could do on its node, or in the cluster's API. */}}
{{- define "backend.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .root.Values.images.user }}
  runAsGroup: {{ .root.Values.images.user }}
  fsGroup: {{ .root.Values.images.user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "backend.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* What a short-lived container of the operations' image may use. */}}
{{- define "backend.operationsResources" -}}
resources:
  requests: {cpu: 100m, memory: 128Mi}
  limits: {cpu: "1", memory: 512Mi}
{{- end }}

{{/* The value of a variable that tells a service how the mesh is run (mesh/variables.py); `name` is the variable. */}}
{{- define "backend.policyVariable" -}}
{{- $policies := .root.Values.policies -}}
{{- if eq .name "RATE_LIMIT_SCALE" }}1.0
{{- else if eq .name "CONNECTION_SECONDS" }}{{ int $policies.connectionSeconds }}
{{- else if eq .name "ALLOWED_ORIGINS" }}{{ join "," $policies.corsOrigins }}
{{- else if eq .name "ADMISSION" }}true
{{- else }}{{ fail (printf "the chart has no value for the variable %s (templates/_helpers.tpl)" .name) }}
{{- end }}
{{- end }}

{{- define "backend.databaseUrl" -}}
{{- $parts := urlParse .root.Values.postgresql.url -}}
{{ printf "postgresql://%s@%s/%s%s" .row.database.role $parts.host .row.database.name (empty $parts.query | ternary "" (printf "?%s" $parts.query)) }}
{{- end }}

{{- define "backend.valkeyUrl" -}}
{{- $parts := urlParse (get .root.Values .row.valkey).url -}}
{{ printf "%s://%s@%s%s" $parts.scheme .row.name $parts.host $parts.path }}
{{- end }}

{{/* A service's environment: what follows from its row, each a template (mesh/chart/rows.py), and its own settings. */}}
{{- define "backend.environment" -}}
{{- $context := . -}}
{{- $row := .row -}}
{{- $own := (include "backend.workload" . | fromJson).settings | default dict -}}
{{- range $name, $why := $row.notInProduction }}
{{- if and (eq $context.root.Values.environment "production") (not (hasKey $own $name)) }}
{{- fail (printf "services.%s.settings.%s has to be set in production: %s" $row.name $name $why) }}
{{- end }}
{{- end }}
{{- range $name, $template := $row.environment }}
- {name: {{ $name }}, value: {{ tpl $template (dict "Template" $context.root.Template "root" $context.root "row" $row) | trim | quote }}}
{{- end }}
{{- range $row.optionalSecrets }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ include "backend.rowName" $context }}-secrets, key: {{ . }}, optional: true}}}
{{- end }}
{{- range $name, $value := $own }}
- {name: {{ $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}
