"""Where the mesh runs: what differs between one machine, Compose and Kubernetes. Read from a file, or made by devstack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, ClassVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mesh.policies import Policies, parse_origins, parse_without
from mesh.topology import TABLE

_STRICT = ConfigDict(extra="forbid")


class SiteError(Exception):
    """A site file cannot be rendered for; the message names everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a process listens, or all of a service's: a name that resolves to each of them."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    address: str
    port: Annotated[int, Field(ge=1, le=65535)]
    # How many there may be: the circuit in front of a service is as wide as all of its processes together.
    replicas: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, slots=True)
class Site:
    """Where the mesh runs."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    environment: str
    version: str
    trust_domain: str
    # What access tokens say, as the services are told, too (TOKEN_ISSUER, TOKEN_AUDIENCE).
    token_issuer: str
    token_audience: str
    # A directory for each service below it: tls.crt, tls.key and ca.crt, as cert-manager and SPIRE's helper write them.
    certificates: PurePath
    # tls.crt and tls.key of the public HTTPS listener, and the name that they are for: where plain HTTP is sent to.
    public_certificate: PurePath
    public_host: str
    # A directory for each service below it, with what `mesh.envoy.secret_files` gives.
    secret_files: PurePath
    # pyvoy's native module.
    python_module: PurePath
    # What the public and the traffic listeners are bound to; what the ops listeners are; who may read there (CIDR).
    address: str
    ops_address: str
    ops_networks: tuple[str, ...]
    # Every replica of a service, or one name that resolves to all of them.
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    # The port by which clients reach the public HTTPS listener, where something in front of it has another one; 0: its own.
    public_port: Annotated[int, Field(ge=0, le=65535)] = 0
    # Of the broker's streams, where it is one of ours (`nats/nats.conf`); one elsewhere includes `nats/accounts.conf` alone.
    broker_directory: PurePath = field(default=PurePath("/data/nats"))
    # Whether the applications open their pools when Envoy starts; not to have a rendering validated.
    lifespan: bool = True
    # The base URL of the OTLP/HTTP receiver that spans are sent to, a collector nearby: plain HTTP. Without, there are none.
    otlp_endpoint: Annotated[str, Field(pattern=r"^(http://[^/?#]+(/[^?#]*)?)?$")] = ""
    # Whoever knows it may have a request traced, by a `traceparent` in the header x-trace-KEY. A secret.
    trace_key: Annotated[str, Field(pattern="^([0-9a-f]{32,64})?$")] = ""


@dataclass(frozen=True, slots=True)
class SiteFile:
    """What `backend-mesh render` is told."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    site: Site
    policies: Policies = field(default_factory=Policies)


def read(path: Path, *, trace_key: str = "", processes: Iterable[str] = ()) -> SiteFile:
    """A site file (YAML): the fields of `Site` below `site`, those of `Policies` that differ below `policies`.

    Args:
        path: the file.
        trace_key: what `site.trace_key` is to be, when the file had better not have it.
        processes: rows that are asked for by name.

    Raises:
        SiteError: it cannot be read, or not rendered for.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        if trace_key and isinstance(said, dict) and isinstance(said.get("site"), dict):
            said["site"]["trace_key"] = trace_key
        found = TypeAdapter(SiteFile).validate_python(said)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SiteError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise SiteError(_all(path, faults)) from None
    faults = []
    for parse, texts in ((parse_without, found.policies.without), (parse_origins, found.policies.cors_origins)):
        try:
            parse(list(texts))
        except ValueError as error:
            faults.append(f"policies: {error}")
    names = {row.name for row in TABLE}
    faults += [f"{name} is no row; there are: {', '.join(sorted(names))}" for name in processes if name not in names]
    called = {name for row in TABLE for name in row.upstreams}
    faults += [
        f"site.endpoints: none of {name}, which is called"
        for name in sorted(called)
        if not found.site.endpoints.get(name)
    ]
    faults += [f"site.endpoints: {name} is no service" for name in sorted(found.site.endpoints.keys() - names)]
    if faults:
        raise SiteError(_all(path, faults))
    return found


def _all(path: Path, faults: list[str]) -> str:
    return "\n".join([f"{path}:", *(f"  {fault}" for fault in faults)])
