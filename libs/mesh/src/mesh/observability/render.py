"""Every file of deploy/observability, as Prometheus and Grafana read them."""

from __future__ import annotations

from pathlib import PurePosixPath

from mesh.observability.dashboards import dashboards
from mesh.observability.rules import rules
from mesh.observability.scraping import prometheus, targets

FOLDER = PurePosixPath("deploy/observability")
_BANNER = "# Generated from libs/mesh/src/mesh/observability. Do not edit; run `make generate`.\n"
# Where a container of Grafana's finds what is mounted below /etc/grafana.
_DASHBOARDS = "/etc/grafana/dashboards"
_PROVIDERS = f"""\
apiVersion: 1
providers:
  - name: backend
    folder: Backend
    type: file
    options: {{path: {_DASHBOARDS}}}
"""
_SOURCES = """\
apiVersion: 1
datasources:
  - {name: Prometheus, type: prometheus, access: proxy, url: "${PROMETHEUS_URL}", isDefault: true}
"""


def files() -> dict[str, str]:
    """Their texts, by path from the root of the repository."""
    found = {
        "prometheus.yml": _BANNER + prometheus(targets()),
        "rules.yml": _BANNER + rules(),
        "grafana/provisioning/dashboards/backend.yml": _BANNER + _PROVIDERS,
        "grafana/provisioning/datasources/prometheus.yml": _BANNER + _SOURCES,
    }
    found |= {f"grafana/dashboards/{dashboard.uid}.json": dashboard.text() for dashboard in dashboards()}
    return {str(FOLDER / path): text for path, text in found.items()}
