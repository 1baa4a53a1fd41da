"""The Helm chart: that it renders for whatever values it takes, refuses all others, and that each of its checks finds its fault."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import charts
import delivery
import golden_chart
import goldens
import pytest
import yaml
from charts import CHART, CHECKS, FOREIGN, KUBERNETES, ROOT, VALUES, Rendering, RenderingError, render
from chassis.launch import environment, envoy_command
from mesh import rendering as mesh_rendering
from mesh import site as mesh_site
from mesh.certificates import Certificates
from mesh.chart.values import Chart
from mesh.topology import SERVICES, TABLE

from devstack import proxies

MINIMAL, COMPLETE = VALUES["minimal"], VALUES["complete"]
_PEERS = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
# What differs from the smallest set of values, one way after the other.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "an ingress": {
        "policies": {"trustedProxies": ["10.2.0.0/16"]},
        "exposure": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "shop-tls"}},
        "networkPolicies": {"clients": _PEERS},
    },
    "a gateway": {
        "policies": {"trustedProxies": ["10.2.0.0/16"]},
        "exposure": {"gateway": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]}},
    },
    "node ports": {"exposure": {"service": {"type": "NodePort"}}},
    "certificates of SPIRE": {
        "certificates": {"provider": "existingSecrets", "public": {"secretName": "shop-public"}},
    },
    "without HTTP/3": {"policies": {"http3": False}},
    "without policies of the network": {"networkPolicies": {"enabled": False}},
    "without autoscaling": {"defaults": {"autoscaling": {"enabled": False}, "replicas": 3}},
    "one service without autoscaling": {"services": {"bff": {"autoscaling": {"enabled": False}, "replicas": 1}}},
    "without jobs": {"migrations": {"enabled": False}, "nats": {"streams": {"enabled": False}}},
    "addresses of IPv6": {"network": {"address": "::", "opsNetworks": ["fd00::/8"]}},
    "another name": {"fullnameOverride": "demo-backend", "nameOverride": "shop"},
    "large numbers": {"services": {"order": {"settings": {"MAX_UNPAID_PIECES": 1000000, "ORDER_CACHE_SECONDS": 0.5}}}},
    "pods somewhere": {
        "defaults": {
            "nodeSelector": {"pool": "backend"},
            "tolerations": [{"key": "backend", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
        },
    },
}
# Each is a value that is wrong, and what has to be said of it.
REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "a name that nobody knows": ({"enviroment": "staging"}, "'enviroment' not allowed"),
    "a service that is no row": ({"services": {"shop": {}}}, "'shop' not allowed"),
    "a setting that the service has not": (
        {"services": {"order": {"settings": {"ORDER_CASH_SECONDS": 1}}}},
        "'ORDER_CASH_SECONDS' not allowed",
    ),
    "a setting out of its bounds": (
        {"services": {"order": {"settings": {"PAYMENT_TIMEOUT_SECONDS": 11}}}},
        "/services/order/settings/PAYMENT_TIMEOUT_SECONDS': maximum",
    ),
    "a setting that the chart decides": (
        {"services": {"order": {"settings": {"DATABASE_URL": "postgresql://x"}}}},
        "'DATABASE_URL' not allowed",
    ),
    "a secret as a value": (
        {"services": {"user": {"settings": {"CURSOR_SECRET": "x" * 32}}}},
        "'CURSOR_SECRET' not allowed",
    ),
    "a URL with a password": ({"valkey": {"url": "rediss://me:secret@valkey:6379"}}, "/valkey/url'"),
    "another environment": ({"environment": "prod"}, "value must be one of 'development', 'test'"),
    "a word for a number": ({"defaults": {"replicas": "three"}}, "/defaults/replicas': got string, want integer"),
    "a digest that is none": ({"images": {"services": {"digest": "latest"}}}, "/images/services/digest'"),
    "production with what is for development": (
        {"environment": "production"},
        "services.order.settings.PAYMENT_PROVIDER has to be set in production",
    ),
    "an ingress that is nobody's proxy": (
        {"exposure": {"ingress": {"enabled": True}}},
        "policies.trustedProxies has to name",
    ),
    "a gateway without one": (
        {"policies": {"trustedProxies": ["10.0.0.0/8"]}, "exposure": {"gateway": {"enabled": True}}},
        "exposure.gateway.parentRefs has to name",
    ),
    "a store without a name": ({"secrets": {"external": {"enabled": True}}}, "secrets.external.store has to be set"),
    "SPIRE without a public certificate": (
        {"certificates": {"provider": "existingSecrets"}},
        "certificates.public.secretName has to be set",
    ),
}
# A change of a file of the chart, and the check that has to find it.
MUTANTS: Mapping[str, tuple[str, str, str, str]] = {
    "a service missing": (
        "files/services.yaml",
        "- name: order\n  host: order",
        "- name: order\n  host: orders",
        "every row of the table has its objects",
    ),
    "a port that the table does not know": (
        "templates/deployments.yaml",
        "          ports:\n",
        "          ports:\n            - {name: debug, containerPort: 5678, protocol: TCP}\n",
        "ports are those of the table",
    ),
    "a port of a Service that the table does not know": (
        "templates/services.yaml",
        "  ports:\n",
        "  ports:\n    - {name: debug, port: 5678, targetPort: ops, protocol: TCP}\n",
        "ports are those of the table",
    ),
    "a caller that the table does not know": (
        "templates/networkpolicies.yaml",
        "{{- if has $row.name .upstreams }}",
        "{{- if true }}",
        "network policies let through the calls of the table",
    ),
    "a call that is not let through": (
        "templates/networkpolicies.yaml",
        "{{- if has $called.name $row.upstreams }}",
        "{{- if false }}",
        "network policies let through the calls of the table",
    ),
    "no default": (
        "templates/networkpolicies.yaml",
        "      app.kubernetes.io/instance: {{ .Release.Name }}\n  policyTypes: [Ingress, Egress]",
        "      app.kubernetes.io/instance: {{ .Release.Name }}\n  policyTypes: [Ingress]",
        "network policies let through the calls of the table",
    ),
    "a privileged container": (
        "templates/_helpers.tpl",
        "  allowPrivilegeEscalation: false\n",
        "  privileged: true\n",
        "pods are restricted",
    ),
    "a root that can be written to": (
        "templates/_helpers.tpl",
        "  readOnlyRootFilesystem: true\n",
        "  readOnlyRootFilesystem: false\n",
        "pods are restricted",
    ),
    "a token of the API": (
        "templates/_helpers.tpl",
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
        "pods are restricted",
    ),
    "a directory of the node": (
        "templates/deployments.yaml",
        "          emptyDir: {sizeLimit: 64Mi}",
        "          hostPath: {path: /tmp}",
        "pods are restricted",
    ),
    "a variable that is missing": (
        "files/services.yaml",
        "    JWKS_FILE: ",
        "    JWKS: ",
        "services are told what they need",
    ),
    "a policy that services and mesh see differently": (
        "templates/_helpers.tpl",
        "{{ int $policies.connectionSeconds }}",
        "60",
        "services are told what they need",
    ),
    "a secret that is nowhere": (
        "templates/deployments.yaml",
        "mountPath: /run/backend/secrets,",
        "mountPath: /run/secrets,",
        "what is named is mounted",
    ),
    "an identity of another": (
        "templates/certificates.yaml",
        "spiffe://{{ $.Values.trustDomain }}/{{ .name }}",
        "spiffe://{{ $.Values.trustDomain }}/order",
        "certificates name the rows' identities",
    ),
    "a liveness probe that asks the database": (
        "templates/deployments.yaml",
        "httpGet: {path: /healthz/live,",
        "httpGet: {path: /healthz/ready,",
        "probes ask what they are for",
    ),
    "no time to drain": (
        "templates/deployments.yaml",
        "{{ add $workload.preStopSeconds $services.shutdownSeconds 5 }}",
        "15",
        "there is time to drain",
    ),
    "pods that stay when the site changes": (
        "templates/deployments.yaml",
        'include "backend.site" $ | sha256sum',
        "$.Release.Name | sha256sum",
        "another site is another pod",
    ),
    "a Service of other pods": (
        "templates/services.yaml",
        '  selector:\n    {{- include "backend.selector" $of | nindent 4 }}',
        "  selector:\n    app.kubernetes.io/name: backend",
        "selectors select the row's own pods",
    ),
    "a service that is looked for elsewhere": (
        "templates/configmap.yaml",
        "port: {{ $row.port }}",
        "port: {{ $row.opsPort }}",
        "the mesh looks where the services are",
    ),
}
# What checkov finds and we keep, each with its reason.
EXCEPTIONS = {
    "CKV_K8S_35": "what runs once, before or beside a process, reads a variable; whoever serves reads files",
    "CKV_K8S_8": "the pod of `helm test` sends one request and ends",
    "CKV_K8S_9": "the same",
}


@pytest.fixture(scope="module")
def renderings() -> dict[str, str]:
    """Of every value set and variant, by its name."""
    return {name: render(path) for name, path in VALUES.items()} | {
        name: render(MINIMAL, values=values) for name, values in VARIANTS.items()
    }


@pytest.mark.parametrize("name", VALUES)
def test_helm_has_nothing_to_say_of_it(name: str) -> None:
    command = [str(delivery.BIN / "helm"), "lint", "--strict", "--values", str(VALUES[name]), str(CHART)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("name", [*VALUES, *VARIANTS])
def test_every_check_passes(renderings: dict[str, str], name: str) -> None:
    found = charts.faults(Rendering.of(renderings[name]))
    if name == "without policies of the network":
        assert set(found) == {"network policies let through the calls of the table"}
    else:
        assert found == {}


def test_without_what_has_no_default_nothing_is_rendered() -> None:
    with pytest.raises(RenderingError) as refused:
        render()
    for name in ("publicHost", "trustDomain", "tokens", "postgresql", "valkey", "valkeyCache", "nats"):
        assert name in str(refused.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_value_is_refused_and_named(name: str) -> None:
    values, said = REFUSED[name]
    with pytest.raises(RenderingError) as refused:
        render(MINIMAL, values=values)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", VALUES)
def test_it_renders_as_it_did(renderings: dict[str, str], name: str) -> None:
    """`make chart` shows what has changed and writes it."""
    path = golden_chart.GOLDEN / f"{name}.yaml"
    assert goldens.differences(path.read_text(encoding="utf-8"), charts.golden(renderings[name]), path) == ""


def test_a_tampered_rendering_is_none_of_ours(renderings: dict[str, str]) -> None:
    path = golden_chart.GOLDEN / "minimal.yaml"
    tampered = renderings["minimal"].replace("runAsNonRoot: true", "runAsNonRoot: false", 1)
    patch = goldens.differences(path.read_text(encoding="utf-8"), charts.golden(tampered), path)
    assert "-        runAsNonRoot: true\n+        runAsNonRoot: false" in patch
    # What is only known by its digest as well.
    whole = renderings["complete"]
    path = golden_chart.GOLDEN / "complete.yaml"
    tampered = whole.replace("severity: page", "severity: none", 1)
    assert tampered != whole
    assert goldens.differences(path.read_text(encoding="utf-8"), charts.golden(tampered), path)


@pytest.mark.parametrize("name", MUTANTS)
def test_each_fault_is_found_by_its_check(name: str, tmp_path: Path) -> None:
    file, old, new, check = MUTANTS[name]
    chart = tmp_path / "backend"
    shutil.copytree(CHART, chart)
    text = (chart / file).read_text(encoding="utf-8")
    assert old in text
    (chart / file).write_text(text.replace(old, new), encoding="utf-8")
    found = charts.faults(Rendering.of(render(MINIMAL, chart=chart)))
    assert check in found


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {check for *_, check in MUTANTS.values()} == set(CHECKS)


def test_kubernetes_takes_every_object(renderings: dict[str, str], tmp_path: Path) -> None:
    """Every version those of the value sets, the newest what differs from them in the variants."""
    sets = {name: renderings[name] for name in VALUES}
    assert _refused(sets, KUBERNETES, tmp_path) == ""
    known = {document for text in sets.values() for document in text.split("\n---\n")}
    others = [document for name in VARIANTS for document in renderings[name].split("\n---\n") if document not in known]
    assert _refused({"variants": "\n---\n".join(others)}, KUBERNETES[-1:], tmp_path) == ""


def _refused(texts: Mapping[str, str], versions: Sequence[str], directory: Path) -> str:
    command = [str(delivery.BIN / "python"), str(Path(__file__).parent / "validate_chart.py"), ",".join(versions)]
    done = subprocess.run(
        [*command, ",".join(sorted(FOREIGN)), *_written(texts, directory)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_object_that_kubernetes_does_not_take_is_named(renderings: dict[str, str], tmp_path: Path) -> None:
    tampered = renderings["minimal"].replace("maxUnavailable: 1\n", "maxUnavaliable: 1\n", 1)
    said = _refused({"tampered": tampered}, KUBERNETES[-1:], tmp_path)
    assert "PodDisruptionBudget demo-backend-limiter" in said
    assert "maxUnavaliable" in said


def _written(texts: Mapping[str, str], directory: Path) -> list[str]:
    files = []
    for number, (name, text) in enumerate(texts.items()):
        path = directory / f"{number}-{name.replace(' ', '-').replace('/', '-')}.yaml"
        path.write_text(text, encoding="utf-8")
        files.append(str(path))
    return files


def test_checkov_finds_nothing_that_has_no_reason(renderings: dict[str, str], tmp_path: Path) -> None:
    (file,) = _written({"complete": renderings["complete"]}, tmp_path)
    command = [str(delivery.BIN / "checkov"), "--skip-download", "--quiet", "--compact", "--output", "json"]
    done = subprocess.run(
        [*command, "--framework", "kubernetes", "--file", file], capture_output=True, encoding="utf-8", check=False
    )
    found = json.loads(done.stdout)
    results = found["results"]["failed_checks"] if "results" in found else []
    assert found["summary"]["passed"] > 100
    said = {f"{result['check_id']} {result['resource']}: {result['check_name']}" for result in results}
    assert {one for one in said if one.partition(" ")[0] not in EXCEPTIONS} == set()
    assert {result["check_id"] for result in results} == set(EXCEPTIONS), "an exception is of nothing any more"
    probes = {result["resource"] for result in results if result["check_id"] in ("CKV_K8S_8", "CKV_K8S_9")}
    assert probes == {"Pod.shop.demo-backend-smoke"}


def test_envoy_takes_what_is_rendered_of_the_site(renderings: dict[str, str], tmp_path: Path) -> None:
    """The site in the ConfigMap, with this machine's paths. Services are of one template: one that calls, one that is called."""
    place = tmp_path / "run-backend"
    Certificates(tmp_path / "pki", place / "certificates").ensure()
    (place / "run").mkdir()
    for config in _of_site(renderings["complete"], tmp_path, place):
        if config.stem not in ("edge", "bff", "order"):
            continue
        command = [envoy_command(config)[0], "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
        valid = subprocess.run(
            command, env=environment(), cwd=place, capture_output=True, encoding="utf-8", check=False
        )
        assert valid.returncode == 0, valid.stdout + valid.stderr


@pytest.mark.parametrize("name", ["minimal", "addresses of IPv6", "without HTTP/3"])
def test_every_configuration_can_be_rendered_of_the_site(renderings: dict[str, str], name: str, tmp_path: Path) -> None:
    names = {config.stem for config in _of_site(renderings[name], tmp_path, Path("/run/backend"))}
    assert names == {row.name for row in TABLE}


def _of_site(rendered: str, directory: Path, place: Path) -> list[Path]:
    said = yaml.safe_load(Rendering.of(rendered).site_text.replace("/run/backend", str(place)))
    said["site"] |= {"python_module": str(proxies.python_module()), "lifespan": False}
    site, out = directory / "site.yaml", directory / "run-backend" / "envoy"
    site.write_text(yaml.safe_dump(said), encoding="utf-8")
    return [path for path in mesh_rendering.write(mesh_site.read(site), out) if path.parent == out]


def test_a_service_needs_as_many_circuits_as_it_may_have_pods(renderings: dict[str, str]) -> None:
    site = Rendering.of(renderings["complete"]).site.site
    assert {name: endpoint.replicas for name, (endpoint,) in site.endpoints.items()} == {
        service.name: 20 if service.name == "order" else 8 for service in SERVICES
    }
    fixed = Rendering.of(renderings["without autoscaling"]).site.site
    assert {endpoint.replicas for (endpoint,) in fixed.endpoints.values()} == {3}


def test_the_images_are_as_their_files_make_them() -> None:
    """The numbers and places that the chart says of them."""
    images = Chart.model_fields["images"].default
    for name in ("services", "operations"):
        text = (ROOT / f"deploy/docker/{name}.Dockerfile").read_text(encoding="utf-8")
        assert f"USER {images.user}:{images.user}\n" in text
    services = (ROOT / "deploy/docker/services.Dockerfile").read_text(encoding="utf-8")
    module = PurePosixPath(images.python_module)
    assert f"cd {module.parent} && ln -s" in services
    assert f"_pyvoy.abi3.so {module.name}\n" in services
    assert '"-m", "chassis.launch"]' in services


def test_secrets_are_references(renderings: dict[str, str]) -> None:
    for text in renderings.values():
        assert Rendering.of(text).kind("Secret") == {}
    stored = Rendering.of(renderings["complete"]).kind("ExternalSecret")
    wanted = {
        f"demo-backend-{service.name.replace('_', '-')}-secrets": bool(
            service.secrets or service.database or service.valkey
        )
        for service in SERVICES
    }
    assert set(stored) == {name for name, has in wanted.items() if has}


def test_metrics_are_labelled_as_rules_and_dashboards_want_them(renderings: dict[str, str]) -> None:
    (monitor,) = Rendering.of(renderings["complete"]).kind("ServiceMonitor").values()
    (endpoint,) = monitor["spec"]["endpoints"]
    labels = [one["targetLabel"] for one in endpoint["relabelings"]]
    assert labels == ["service"] * len(TABLE) + ["instance"]
    assert [one["replacement"] for one in endpoint["relabelings"][:-1]] == [row.name for row in TABLE]
    (rule,) = Rendering.of(renderings["complete"]).kind("PrometheusRule").values()
    rules = Path(CHART / "files/rules.yml").read_text(encoding="utf-8")
    assert rule["spec"] == yaml.safe_load(rules)
