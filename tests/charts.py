"""The Helm chart as it renders, and what has to be true of it: checks by name, each of which says what is wrong."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import delivery
import yaml
from chassis.config import ConfigurationError, Settings, load
from chassis.launch import DRAIN_SECONDS, STOP_SECONDS
from mesh.chart import rows
from mesh.site import SiteFile
from mesh.topology import EDGE, OPERATORS, SERVICES, TABLE, Edge, Row
from mesh.variables import of_policies
from pydantic import SecretStr, TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/backend"
# Values that people might have, each a file; the names of the files that tell them apart.
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "demo", "shop"
# The oldest and all newer versions of Kubernetes that the chart is for.
KUBERNETES = ("1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
# What Kubernetes' own schemas do not know: other projects' kinds.
FOREIGN = frozenset({"Certificate", "Issuer", "ExternalSecret", "ServiceMonitor", "PrometheusRule", "HTTPRoute"})
_COMPONENT = "app.kubernetes.io/component"
# Pods that are no rows: what they are for, and where they may go inside the release.
_JOBS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "migrations": (),
    "streams": (),
    "smoke": ((EDGE.name, EDGE.tls_port),),
}
# Long texts that are the same as files that are checked to be current.
_COPIES = ("PrometheusRule", "dashboard")

Document = dict[str, Any]


class RenderingError(Exception):
    """Helm has refused; the message is what it said."""


def render(*files: Path, values: Mapping[str, object] | None = None, chart: Path = CHART) -> str:
    """What Helm makes of the chart.

    Args:
        files: of values, the later over the earlier.
        values: over all of these.
        chart: the chart's directory.

    Raises:
        RenderingError: it refuses.
    """
    command = [str(delivery.BIN / "helm"), "template", RELEASE, str(chart), "--namespace", NAMESPACE]
    for file in files:
        command += ["--values", str(file)]
    done = subprocess.run(
        [*command, "--values", "-"],
        input=yaml.safe_dump(dict(values or {})),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise RenderingError(done.stderr)
    return done.stdout


def golden(text: str) -> str:
    """A rendering as it is kept for comparison: without the text of what is a copy of another file."""
    parts = []
    for document in text.split("\n---\n"):
        kept = document
        if any(f"kind: {copy}\n" in document or f"-{copy}-" in document for copy in _COPIES):
            digest = hashlib.sha256(document.encode()).hexdigest()
            kept = "\n".join([*document.splitlines()[:5], f"# … sha256 {digest}"])
        parts.append(kept)
    return "\n---\n".join(parts)


@dataclass(frozen=True)
class Rendering:
    """The objects of a rendering."""

    documents: tuple[Document, ...]

    @classmethod
    def of(cls, text: str) -> Rendering:
        return cls(tuple(found for found in yaml.load_all(text, yaml.CSafeLoader) if found))

    def kind(self, kind: str) -> dict[str, Document]:
        """All of a kind, by name."""
        return {found["metadata"]["name"]: found for found in self.documents if found["kind"] == kind}

    def of_row(self, kind: str, row: Row) -> Document:
        """A row's own.

        Raises:
            KeyError: it has none.
        """
        return self.kind(kind)[f"{RELEASE}-backend-{rows.host(row.name)}"]

    @cached_property
    def site_text(self) -> str:
        text: str = self.kind("ConfigMap")[f"{RELEASE}-backend-site"]["data"]["site.yaml"]
        return text

    @cached_property
    def site(self) -> SiteFile:
        return TypeAdapter(SiteFile).validate_python(yaml.safe_load(self.site_text))

    @cached_property
    def pods(self) -> dict[str, Document]:
        """The specification of every pod, by what makes it."""
        return {
            f"{found['kind']} {found['metadata']['name']}": found["spec"]
            if found["kind"] == "Pod"
            else found["spec"]["template"]["spec"]
            for found in self.documents
            if found["kind"] in ("Deployment", "Job", "Pod", "DaemonSet", "StatefulSet", "CronJob", "ReplicaSet")
        }

    def containers(self, row: Row) -> Document:
        """The one container of a row's pods."""
        (only,) = self.of_row("Deployment", row)["spec"]["template"]["spec"]["containers"]
        found: Document = only
        return found


Check = Callable[[Rendering], Iterator[str]]


def _rows(rendering: Rendering) -> Iterator[str]:
    expected = {f"{RELEASE}-backend-{rows.host(row.name)}" for row in TABLE}
    for kind in ("Deployment", "ServiceAccount", "PodDisruptionBudget"):
        found = set(rendering.kind(kind))
        yield from (f"{kind} {name} is missing" for name in sorted(expected - found))
        yield from (f"{kind} {name} is of no row" for name in sorted(found - expected))
    found = set(rendering.kind("Service"))
    yield from (f"Service {name} is missing" for name in sorted(expected - found))
    yield from (f"Service {n} is of no row" for n in sorted(found - expected - {f"{RELEASE}-backend-public"}))


def _ports(rendering: Rendering) -> Iterator[str]:
    http3 = "http3" not in rendering.site.policies.without
    for row in TABLE:
        allowed = {(port, "TCP") for port in _table_ports(row)}
        if isinstance(row, Edge) and http3:
            allowed.add((row.tls_port, "UDP"))
        container = rendering.containers(row)
        opened = {(port["containerPort"], port["protocol"]) for port in container["ports"]}
        yield from _difference(f"container {row.name}", opened, allowed)
        names = {port["name"]: (port["containerPort"], port["protocol"]) for port in container["ports"]}
        for name, service in rendering.kind("Service").items():
            if service["spec"]["selector"].get(_COMPONENT) != rows.host(row.name):
                continue
            for port in service["spec"]["ports"]:
                target = names.get(port["targetPort"])
                if target is None or target[1] != port["protocol"]:
                    yield f"Service {name} has port {port['name']}, which the container of {row.name} has not"
        own = rendering.of_row("Service", row)["spec"]["ports"]
        yield from _difference(f"Service {row.name}", {(port["port"], port["protocol"]) for port in own}, allowed)


def _difference(what: str, found: set[tuple[int, str]], allowed: set[tuple[int, str]]) -> Iterator[str]:
    yield from (
        f"{what} opens {port}/{protocol}, which the table does not know" for port, protocol in sorted(found - allowed)
    )
    yield from (f"{what} does not open {port}/{protocol}" for port, protocol in sorted(allowed - found))


def _table_ports(row: Row) -> tuple[int, ...]:
    return (row.port, row.tls_port, row.ops_port) if isinstance(row, Edge) else (row.port, row.ops_port)


def _calls(rendering: Rendering) -> Iterator[str]:
    """Both ends of every call are open, and nothing else between the pods of the release."""
    policies = rendering.kind("NetworkPolicy")
    everything = [p for p in policies.values() if _COMPONENT not in p["spec"]["podSelector"]["matchLabels"]]
    denies = [
        p
        for p in everything
        if p["spec"]["policyTypes"] == ["Ingress", "Egress"] and p["spec"].keys() <= {"podSelector", "policyTypes"}
    ]
    if len(denies) != 1 or len(everything) != 1:
        yield "there is not one policy that denies everything to all pods"
    allowed = {(rows.host(a), rows.host(b), port) for a, b, port in rows.calls()}
    allowed |= {(job, rows.host(called), port) for job, to in _JOBS.items() for called, port in to}
    into: set[tuple[str, str, int]] = set()
    out: set[tuple[str, str, int]] = set()
    for policy in policies.values():
        own = policy["spec"]["podSelector"]["matchLabels"].get(_COMPONENT, "every pod")
        spec = policy["spec"]
        for rule in spec.get("ingress", []):
            ports = [port["port"] for port in rule.get("ports", [])]
            if not ports:
                yield f"{own} may be reached at any port"
            yield from _strangers(rendering, own, rule, ports)
            into |= {
                (peer, own, port) for peer in _components(rule.get("from", [])) for port in ports if peer != "smoke"
            }
        for rule in spec.get("egress", []):
            ports = [port["port"] for port in rule.get("ports", [])]
            if not ports:
                yield f"{own} may reach any port"
            out |= {(own, peer, port) for peer in _components(rule.get("to", [])) for port in ports}
    into |= {call for call in allowed if call[0] == "smoke"}
    for side, found in (("into", into), ("out of", out)):
        yield from (f"{a} may not get {side} reach of {b} at {port}" for a, b, port in sorted(allowed - found))
        yield from (
            f"{a} may reach {b} at {port} ({side}), which no row says" for a, b, port in sorted(found - allowed)
        )


def _components(peers: Sequence[Document]) -> Iterator[str]:
    """Of the release's own pods among the peers of a rule."""
    for peer in peers:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        if _COMPONENT in labels and "namespaceSelector" not in peer:
            yield labels[_COMPONENT]


def _strangers(rendering: Rendering, own: str, rule: Document, ports: Sequence[int]) -> Iterator[str]:
    """Whoever is no pod of the release may reach the edge's public ports and, as an operator, the ops ports."""
    public = {EDGE.port, EDGE.tls_port} if own == rows.host(EDGE.name) else set()
    if "from" not in rule:
        yield from (f"anybody may reach {own} at {port}" for port in ports if port not in public)
        return
    operators = {row.ops_port for row in TABLE if rows.host(row.name) == own}
    if any("podSelector" not in peer or "namespaceSelector" in peer for peer in rule["from"]):
        yield from (f"strangers may reach {own} at {port}" for port in ports if port not in public | operators)


def _restricted(rendering: Rendering) -> Iterator[str]:
    """The profile "restricted" of Kubernetes' Pod Security Standards, a root nobody writes to, and no token."""
    for name, pod in rendering.pods.items():
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            yield f"{name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name} has a token of the API"
        yield from (f"{name} has {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        yield from (
            f"{name} mounts a {kind}" for kind in sorted(kinds - {"configMap", "secret", "emptyDir", "projected"})
        )
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            whose = f"{name}, {container['name']}"
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if container.get("securityContext") != wanted:
                yield f"{whose} may do more than {wanted}: {container.get('securityContext')}"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{whose} has a port of its node"
            limits = container.get("resources", {})
            if {"cpu", "memory"} - limits.get("limits", {}).keys() or {"cpu", "memory"} - limits.get(
                "requests", {}
            ).keys():
                yield f"{whose} has no bounds"


# Secrets that are read as URLs when a service starts.
_URLS = {"SMTP_URL": "smtps://shop@mail.example"}


def _environment(rendering: Rendering) -> Iterator[str]:
    """Every service starts with what the chart tells it: as its own Settings class says, and nothing that it does not know."""
    for service in SERVICES:
        settings: type[Settings] = __import__(f"{service.name}.settings", fromlist=["Settings"]).Settings
        secrets = {name.upper() for name, field in settings.model_fields.items() if field.annotation is SecretStr}
        told = rendering.containers(service)["env"]
        variables = {}
        for one in told:
            of_file = one["name"].removesuffix("_FILE")
            # A secret itself is not here, nor its file: long enough for any, and a URL where it is one.
            if of_file in secrets:
                variables[of_file] = _URLS.get(of_file, "x" * 40)
            else:
                variables[one["name"]] = one.get("value", "x" * 40)
        if len(variables) != len(told):
            yield f"{service.name} is told something twice"
        yield from (
            f"{service.name} knows no {name}"
            for name in sorted(variables.keys() - {name.upper() for name in settings.model_fields})
        )
        # Of a URL that is a secret, too.
        variables |= {one["name"]: one["value"] for one in told if one["name"] in secrets and "value" in one}
        try:
            load(settings, variables)
        except ConfigurationError as error:
            yield from (f"{service.name}: {problem}" for problem in error.problems)
        for name, value in of_policies(service, rendering.site.policies).items():
            if variables.get(name) != value:
                yield f"{service.name} is told {name}={variables.get(name)}, and the mesh is rendered for {value}"


def _places(rendering: Rendering) -> Iterator[str]:
    """What a configuration and a variable name is mounted, from volumes that are there."""
    site = rendering.site.site
    for name, pod in rendering.pods.items():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        mounted = {
            mount["name"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            for mount in container.get("volumeMounts", [])
        }
        yield from (f"{name} mounts {volume}, which it has not" for volume in sorted(mounted - volumes))
        yield from (f"{name} has {volume}, and mounts it nowhere" for volume in sorted(volumes - mounted))
    for row in TABLE:
        container = rendering.containers(row)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        wanted = {str(site.certificates / row.name), str(site.secret_files.parent), "/run/backend/run"}
        if isinstance(row, Edge):
            wanted.add(str(site.public_certificate))
        files = [one["value"] for one in container.get("env", []) if str(one.get("value", "")).startswith("/")]
        yield from (f"{row.name} has no {path}" for path in sorted(wanted - mounts))
        yield from (
            f"{row.name} is told of {path}, where nothing is"
            for path in files
            if path not in mounts and str(Path(path).parent) not in mounts
        )
        config = container["args"][0]
        (render,) = rendering.of_row("Deployment", row)["spec"]["template"]["spec"]["initContainers"]
        if config != f"{render['args'][render['args'].index('--out') + 1]}/{row.name}.yaml":
            yield f"{row.name} is started with {config}, which nobody renders"


def _identities(rendering: Rendering) -> Iterator[str]:
    """Who has which certificate, where cert-manager makes them; and that each mounts its own."""
    issued = {
        found["spec"]["secretName"]: found["spec"]["uris"]
        for found in rendering.kind("Certificate").values()
        if "uris" in found["spec"]
    }
    names = {rows.host(row.name): row.name for row in TABLE} | {OPERATORS: OPERATORS}
    domain = rendering.site.site.trust_domain
    wanted = {f"{RELEASE}-backend-{host}-certificate": [f"spiffe://{domain}/{name}"] for host, name in names.items()}
    if issued and issued != wanted:
        yield f"certificates are for {issued}, and not for {wanted}"
    for row in TABLE:
        volumes = rendering.of_row("Deployment", row)["spec"]["template"]["spec"]["volumes"]
        (own,) = (volume for volume in volumes if volume["name"] == "certificate")
        if own["secret"]["secretName"] not in wanted or rows.host(row.name) not in own["secret"]["secretName"]:
            yield f"{row.name} has the certificate {own['secret']['secretName']}"


def _probes(rendering: Rendering) -> Iterator[str]:
    for row in TABLE:
        container = rendering.containers(row)
        for probe, path in (("startup", "startup"), ("liveness", "live"), ("readiness", "ready")):
            asks = container.get(f"{probe}Probe", {}).get("httpGet")
            if asks != {"path": f"/healthz/{path}", "port": "ops"}:
                yield f"the {probe} probe of {row.name} asks {asks}"


def _shutdown(rendering: Rendering) -> Iterator[str]:
    for row in TABLE:
        pod = rendering.of_row("Deployment", row)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        sleeps = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = sleeps + DRAIN_SECONDS + STOP_SECONDS
        if not sleeps:
            yield f"{row.name} drains before it has left the endpoints"
        if pod["terminationGracePeriodSeconds"] < needed:
            yield f"{row.name} is killed after {pod['terminationGracePeriodSeconds']} s, and may need {needed:g} s"


def _checksums(rendering: Rendering) -> Iterator[str]:
    digest = hashlib.sha256(rendering.site_text.rstrip("\n").encode()).hexdigest()
    for row in TABLE:
        annotations = rendering.of_row("Deployment", row)["spec"]["template"]["metadata"].get("annotations", {})
        if annotations.get("checksum/site") != digest:
            yield f"{row.name} is not begun anew when the site changes"


def _selectors(rendering: Rendering) -> Iterator[str]:
    """Whatever selects pods selects those of its row."""
    pods = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"]
        for found in rendering.kind("Deployment").values()
    }
    for row in TABLE:
        name = f"{RELEASE}-backend-{rows.host(row.name)}"
        for kind, path in (("Deployment", "selector"), ("PodDisruptionBudget", "selector")):
            selector = rendering.of_row(kind, row)["spec"][path]["matchLabels"]
            yield from _selected(f"{kind} {name}", selector, pods, name)
        yield from _selected(f"Service {name}", rendering.of_row("Service", row)["spec"]["selector"], pods, name)
        if "replicas" not in rendering.of_row("Deployment", row)["spec"]:
            target = rendering.kind("HorizontalPodAutoscaler").get(name, {}).get("spec", {}).get("scaleTargetRef", {})
            if target.get("name") != name:
                yield f"nothing says how many {name} there are"


def _selected(what: str, selector: Mapping[str, str], pods: Mapping[str, Mapping[str, str]], own: str) -> Iterator[str]:
    found = {name for name, labels in pods.items() if selector.items() <= labels.items()}
    if found != {own}:
        yield f"{what} selects the pods of {sorted(found)}"


def _endpoints(rendering: Rendering) -> Iterator[str]:
    """Where the mesh looks for a service is a Service of that name and port, with every pod's address."""
    for service in SERVICES:
        (endpoint,) = rendering.site.site.endpoints[service.name]
        name = endpoint.address.partition(".")[0]
        found = rendering.kind("Service").get(name)
        if found is None or not endpoint.address.startswith(f"{name}.{NAMESPACE}.svc."):
            yield f"{service.name} is looked for at {endpoint.address}, which is no Service"
        elif found["spec"].get("clusterIP") != "None" or endpoint.port != service.port:
            yield f"{service.name} at {endpoint.address}:{endpoint.port} is not every pod's own address"


CHECKS: Mapping[str, Check] = {
    "every row of the table has its objects": _rows,
    "ports are those of the table": _ports,
    "network policies let through the calls of the table": _calls,
    "pods are restricted": _restricted,
    "services are told what they need": _environment,
    "what is named is mounted": _places,
    "certificates name the rows' identities": _identities,
    "probes ask what they are for": _probes,
    "there is time to drain": _shutdown,
    "another site is another pod": _checksums,
    "selectors select the row's own pods": _selectors,
    "the mesh looks where the services are": _endpoints,
}


def faults(rendering: Rendering) -> dict[str, list[str]]:
    """What each check finds, by its name; those that find nothing are not in it."""
    found = {}
    for name, check in CHECKS.items():
        try:
            said = list(check(rendering))
        except (KeyError, ValueError, TypeError) as error:
            # An object that another check misses as well, or one of another form.
            said = [f"{type(error).__name__}: {error}"]
        if said:
            found[name] = said
    return found
