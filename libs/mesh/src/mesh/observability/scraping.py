"""Prometheus's own configuration: whom it asks, and what it calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from mesh.observability.conditions import duration
from mesh.topology import TABLE, service_of


def targets() -> dict[str, str]:
    """Each process of a stack on this machine with the default ports and no replicas, and where it tells its metrics."""
    return {row.name: f"127.0.0.1:{row.ops_port}" for row in TABLE}


def prometheus(
    processes: Mapping[str, str],
    *,
    rules: str = "rules.yml",
    seconds: float = 15,
    alertmanagers: Sequence[str] = (),
) -> str:
    """The file, as YAML.

    Args:
        processes: by name, the address of each one's ops listener. The name is the label `instance`, and whose process it
            is the label `service`, which rules and dashboards go by, wherever the backend runs.
        rules: the file of the rules.
        seconds: how often each is asked.
        alertmanagers: the addresses of those that are told of alerts.
    """
    every = duration(seconds)
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [rules],
            **(
                {"alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]}}
                if alertmanagers
                else {}
            ),
            "scrape_configs": [
                {
                    "job_name": "backend",
                    "static_configs": [
                        {"targets": [address], "labels": {"service": service_of(name), "instance": name}}
                        for name, address in processes.items()
                    ],
                }
            ],
        },
        sort_keys=False,
    )
