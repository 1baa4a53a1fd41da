"""The chart's values: the one description that `values.yaml` and `values.schema.json` are made of.

Names are camelCase, as Helm's are. What Kubernetes defines itself (selectors, tolerations, resources) is taken as it is there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_DNS = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_URL_HOSTS = r"[^,/@?#\s]+(,[^,/@?#\s]+)*"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|[kMGT]i?)?$"
# As cert-manager and Prometheus' operator write spans of time.
_SPAN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"

# Objects of Kubernetes' own, which its API checks.
Labels = dict[str, str]
Peers = Annotated[
    list[dict[str, object]],
    Field(
        description="Peers of a network policy (ipBlock, namespaceSelector, podSelector); none: any address, at that port alone"
    ),
]


class Values(BaseModel):
    """Some of the values: no others are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Image(Values):
    """One of the two images."""

    repository: Annotated[str, Field(description="Below the registry", min_length=1)]
    tag: Annotated[str, Field(description="The chart's appVersion without")] = ""
    digest: Annotated[
        str,
        Field(
            description="sha256:…, instead of the tag: what was tested is what runs", pattern="^(sha256:[0-9a-f]{64})?$"
        ),
    ] = ""


class Images(Values):
    """Where the images come from."""

    registry: Annotated[
        str, Field(description="Like registry.example.com/team; without, the container runtime's default")
    ] = ""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: Annotated[list[str], Field(description="Names of Secrets")] = []
    services: Annotated[Image, Field(description="Envoy, Python and every service")] = Image(
        repository="backend-services"
    )
    operations: Annotated[Image, Field(description="backend-mesh: renders configurations, migrates databases")] = Image(
        repository="backend-operations"
    )
    python_module: Annotated[
        str, Field(description="Where the services' image has pyvoy's module, which Envoy loads", pattern="^/.+")
    ] = "/app/pyvoy.so"
    user: Annotated[int, Field(description="The number that both run as", ge=1, le=65535)] = 10001


class Tokens(Values):
    """Access tokens, and the keys that sign them (backend keys, docs/network.md)."""

    issuer: Annotated[str, Field(description="`iss`", pattern=r"^https://[^\s]+$", examples=["https://shop.example"])]
    audience: Annotated[str, Field(description="`aud`", min_length=1)] = "backend-api"
    signing_keys_secret: Annotated[
        str,
        Field(
            description="A Secret of ES256 private keys (PEM), each named by time: 20261231T235959.pem", min_length=1
        ),
    ] = "backend-signing-keys"
    jwks_config_map: Annotated[
        str, Field(description="A ConfigMap with jwks.json, the public keys of those", min_length=1)
    ] = "backend-jwks"


class PostgreSQL(Values):
    """The databases' server, which has a database and a role for each service that keeps something."""

    url: Annotated[
        str,
        Field(
            description="libpq URL without user and database; those are the rows' own",
            pattern=rf"^postgresql://{_URL_HOSTS}(\?[^\s]*)?$",
            examples=[
                "postgresql://postgres.example:5432?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"
            ],
        ),
    ]
    networks: Peers = []


class Valkey(Values):
    """A Valkey server, which has a user for each service that uses it."""

    url: Annotated[
        str,
        Field(
            description="Without user, rediss:// is TLS",
            pattern=rf"^rediss?://{_URL_HOSTS}(/[0-9]+)?$",
            examples=["rediss://valkey.example:6379/0"],
        ),
    ]
    networks: Peers = []


class Streams(Values):
    """The Job that declares the broker's streams and consumers after each install and upgrade."""

    enabled: bool = True
    replicas: Annotated[int, Field(description="Servers of a cluster that have each stream", ge=1, le=5)] = 1


class Nats(Values):
    """The broker of events."""

    url: Annotated[
        str,
        Field(
            description="The brokers, separated by commas",
            pattern=r"^tls://[^,/\s]+(,tls://[^,/\s]+)*$",
            examples=["tls://nats.example:4222"],
        ),
    ]
    networks: Peers = []
    streams: Streams = Streams()


class Mail(Values):
    """The mail server of those who send mail; its URL is a secret, SMTP_URL."""

    port: Annotated[int, Field(description="That of the URL: what network policies let through", ge=1, le=65535)] = 465
    networks: Peers = []


class Telemetry(Values):
    """Where spans are sent (docs/observability.md)."""

    otlp_endpoint: Annotated[
        str,
        Field(
            description="Base URL of an OTLP/HTTP receiver nearby; without, there are none",
            pattern="^(http://[^/?#]+(/[^?#]*)?)?$",
        ),
    ] = ""
    trace_key_secret: Annotated[
        str, Field(description="A Secret with TRACE_KEY: whoever knows it may have a request traced")
    ] = ""
    networks: Peers = []


class Issuer(Values):
    """Of cert-manager."""

    name: Annotated[
        str, Field(description="Without, the chart makes an authority of its own, whose root it keeps as a Secret")
    ] = ""
    kind: str = "Issuer"
    group: str = "cert-manager.io"


class PublicCertificate(Values):
    """Of the edge's HTTPS listener."""

    secret_name: Annotated[str, Field(description="An existing TLS Secret; without, cert-manager makes one")] = ""
    issuer: Annotated[Issuer, Field(description="Of one that clients trust; without a name, the workloads' own")] = (
        Issuer()
    )


class Certificates(Values):
    """Each process's identity, spiffe://TRUST_DOMAIN/NAME: a Secret with tls.crt, tls.key and ca.crt."""

    provider: Annotated[
        Literal["certManager", "existingSecrets"],
        Field(description="existingSecrets: FULLNAME-HOST-certificate, written by SPIRE or whoever issues them"),
    ] = "certManager"
    issuer: Issuer = Issuer()
    duration: Annotated[str, Field(pattern=_SPAN)] = "24h"
    renew_before: Annotated[str, Field(pattern=_SPAN)] = "12h"
    public: PublicCertificate = PublicCertificate()


class ExternalSecrets(Values):
    """Of External Secrets: each service's Secret is made of one entry of a store, REMOTE_PREFIX and the service's name."""

    enabled: bool = False
    store: Annotated[str, Field(description="Name of the store")] = ""
    store_kind: Literal["SecretStore", "ClusterSecretStore"] = "ClusterSecretStore"
    remote_prefix: str = "backend/"
    refresh_interval: Annotated[str, Field(pattern=_SPAN)] = "1h"


class Secrets(Values):
    """Each service reads one Secret, FULLNAME-HOST-secrets; which keys it has to have is in NOTES.txt."""

    external: ExternalSecrets = ExternalSecrets()


class EnvoyPolicies(Values):
    """How the mesh is run (mesh/policies.py)."""

    cors_origins: Annotated[list[str], Field(description="Of pages that may call the API besides its own")] = []
    trusted_proxies: Annotated[
        list[str], Field(description="Networks (CIDR) of proxies in front of the edge: needed with ingress and gateway")
    ] = []
    https_only: Annotated[bool, Field(description="Plain HTTP only redirects to HTTPS")] = False
    http3: Annotated[bool, Field(description="HTTP/3, over UDP")] = True
    connection_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    max_connections: Annotated[int, Field(description="To one Envoy", ge=1)] = 4096
    max_heap_mib: Annotated[
        int, Field(description="Of one Envoy, without Python's; the memory limit has both", ge=64)
    ] = 512
    trace_ratio: Annotated[float, Field(description="Share of the requests that are traced", ge=0, le=1)] = 0.1


class Network(Values):
    """Addresses."""

    address: Annotated[str, Field(description=":: where pods have IPv6 alone")] = "0.0.0.0"  # noqa: S104 - a pod's own
    ops_networks: Annotated[
        list[str], Field(description="Who may read probes and metrics (CIDR): nodes and Prometheus", min_length=1)
    ] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
    cluster_domain: Annotated[str, Field(pattern=_DNS)] = "cluster.local"


class Quantities(Values):
    """Of CPU and memory."""

    cpu: Annotated[str, Field(pattern=_QUANTITY)]
    memory: Annotated[str, Field(pattern=_QUANTITY)]


class Resources(Values):
    """Of a container."""

    requests: Quantities = Quantities(cpu="500m", memory="384Mi")
    limits: Quantities = Quantities(cpu="2", memory="1Gi")


class CustomMetric(Values):
    """A metric of pods that a metrics adapter serves."""

    enabled: bool = False
    name: str = "backend_admission_waiting"
    average_value: Annotated[str, Field(description="Of one pod", pattern=_QUANTITY)] = "4"


class Autoscaling(Values):
    """A process is one event loop and one worker of Envoy's: it uses one core, and more load needs more pods."""

    enabled: bool = True
    min_replicas: Annotated[int, Field(ge=1)] = 2
    max_replicas: Annotated[
        int, Field(description="The circuits in front of a service are as wide as this many", ge=1)
    ] = 8
    cpu: Annotated[str, Field(description="Of one pod, on the average: near the one core", pattern=_QUANTITY)] = "700m"
    custom_metric: CustomMetric = CustomMetric()


class Workload(Values):
    """The pods of a row."""

    replicas: Annotated[int, Field(description="Without autoscaling", ge=1)] = 2
    autoscaling: Autoscaling = Autoscaling()
    resources: Resources = Resources()
    pre_stop_seconds: Annotated[
        int,
        Field(
            description="Between leaving the endpoints and the drain: until those who call have noticed", ge=1, le=300
        ),
    ] = 5
    max_unavailable: Annotated[int, Field(description="Pods that a node's drain may take at a time", ge=1)] = 1
    pod_annotations: Labels = {}
    node_selector: Labels = {}
    tolerations: list[dict[str, object]] = []
    affinity: dict[str, object] = {}
    egress: Annotated[
        list[dict[str, object]],
        Field(description="Rules of a network policy for what it calls outside (a payment provider, a mail server)"),
    ] = []


class PublicService(Values):
    """The Service that clients, an ingress or a gateway reach the edge by."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: Labels = {}
    http_port: Annotated[int, Field(ge=1, le=65535)] = 80
    https_port: Annotated[int, Field(ge=1, le=65535)] = 443
    source_ranges: Annotated[list[str], Field(description="Of a load balancer (CIDR)")] = []


class Ingress(Values):
    """An Ingress in front of the edge, which ends TLS."""

    enabled: bool = False
    class_name: str = ""
    annotations: Labels = {}
    tls_secret: str = ""


class Gateway(Values):
    """An HTTPRoute of the Gateway API in front of the edge."""

    enabled: bool = False
    parent_refs: Annotated[list[dict[str, object]], Field(description="Gateways")] = []


class Exposure(Values):
    """How clients reach the edge."""

    service: PublicService = PublicService()
    ingress: Ingress = Ingress()
    gateway: Gateway = Gateway()


class NetworkPolicies(Values):
    """Nothing in and out but what the table of services says."""

    enabled: bool = True
    dns: Annotated[
        list[dict[str, object]], Field(description="Peers of a network policy: where names are resolved", min_length=1)
    ] = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ]
    clients: Annotated[
        list[dict[str, object]], Field(description="Peers that may reach the edge; none: everybody")
    ] = []
    operators: Annotated[
        list[dict[str, object]],
        Field(description="Peers that may read metrics: Prometheus's namespace. Probes need none"),
    ] = []


class ServiceMonitor(Values):
    """Of Prometheus' operator."""

    enabled: bool = False
    interval: Annotated[str, Field(pattern=_SPAN)] = "15s"
    labels: Labels = {}


class PrometheusRule(Values):
    """The alerts and the rules of budgets."""

    enabled: bool = False
    labels: Labels = {}


class Dashboards(Values):
    """Grafana's, as ConfigMaps that its sidecar finds by their label."""

    enabled: bool = False
    labels: Labels = {"grafana_dashboard": "1"}


class Monitoring(Values):
    """What watches it."""

    service_monitor: ServiceMonitor = ServiceMonitor()
    prometheus_rule: PrometheusRule = PrometheusRule()
    dashboards: Dashboards = Dashboards()


class Migrations(Values):
    """The Job that runs the migrations before each install and upgrade."""

    enabled: bool = True
    database_secret: Annotated[
        str, Field(description="A Secret with DATABASE_URL: of the server, as the owner of the databases", min_length=1)
    ] = "backend-migrations"
    deadline_seconds: Annotated[int, Field(description="After which the upgrade has failed", ge=1)] = 1800


class Chart(Values):
    """All values but those of the single services."""

    environment: Annotated[
        Literal["development", "test", "staging", "production"],
        Field(description="Production refuses what is for development only"),
    ] = "production"
    name_override: Annotated[str, Field(max_length=40)] = ""
    fullname_override: Annotated[str, Field(max_length=40)] = ""
    public_host: Annotated[
        str, Field(description="What clients call it by", pattern=_DNS, examples=["api.shop.example"])
    ]
    trust_domain: Annotated[
        str, Field(description="Of the processes' identities", pattern=_DNS, examples=["shop.example"])
    ]
    images: Images = Images()
    tokens: Tokens
    postgresql: PostgreSQL
    valkey: Annotated[Valkey, Field(description="Of sessions and counts: evicts nothing")]
    valkey_cache: Annotated[Valkey, Field(description="Of copies: may drop them at any time")]
    nats: Nats
    mail: Mail = Mail()
    telemetry: Telemetry = Telemetry()
    certificates: Certificates = Certificates()
    secrets: Secrets = Secrets()
    policies: EnvoyPolicies = EnvoyPolicies()
    network: Network = Network()
    defaults: Annotated[Workload, Field(description="Of every row; each has its own below services")] = Workload()
    exposure: Exposure = Exposure()
    network_policies: NetworkPolicies = NetworkPolicies()
    monitoring: Monitoring = Monitoring()
    migrations: Migrations = Migrations()
