"""What is watched of a running backend, as data: objectives, alerts, and the dashboards and rules that are made of them.

`render` has every file of `deploy/observability`; `alerts.ALERTS` and `alerts.firing` are for whoever shows alerts without a
Prometheus.
"""
