"""Configuration from the environment: typed, frozen, complete or not at all. A field is the variable of its name in capitals.

A service declares a `Settings` subclass; docs/configuration.md is generated from those classes. Secrets are
`pydantic.SecretStr`, a type that prints as asterisks. A secret NAME may be in a file instead, which NAME_FILE names: a file
is in no list of processes and in no description of a container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from chassis.version import __version__

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, slots=True)
class DevelopmentOnly:
    """Marks a setting some of whose values are for development: with ENVIRONMENT=production the start is refused.

    The mark on the field is the one place that says so; the check, its message and docs/configuration.md follow.

    Args:
        why: what production would need instead.
        values: those that are for development only.
        above: so is every number larger than this.
    """

    why: str
    values: tuple[object, ...] = ()
    above: float | None = None

    def forbids(self, value: object) -> bool:
        """Whether production may not have this value."""
        if self.above is not None and isinstance(value, int | float) and value > self.above:
            return True
        return value in self.values

    def __str__(self) -> str:
        """For docs/configuration.md."""
        over = [] if self.above is None else [f"more than {self.above:g}"]
        return "not in production: " + ", ".join([*(f"`{value}`" for value in self.values), *over])


# The default, which the edge's configuration is rendered with as well.
ACCESS_TOKEN_SECONDS = 300
# The defaults of who issues tokens, and for whom: a development's.
DEFAULT_TOKEN_ISSUER = "https://backend.local"
DEFAULT_TOKEN_AUDIENCE = "backend-api"
# The server of what must not disappear (sessions, counts), and the one that may drop its copies at any time.
ValkeyUrl = Annotated[SecretStr, Field(description="URL of the Valkey that evicts nothing, credentials included")]
CacheUrl = Annotated[SecretStr, Field(description="URL of the Valkey that keeps copies, credentials included")]
# Of the URL's user, when the URL has none.
PasswordFile = Annotated[
    Path | None,
    Field(
        description="File with the password that the URL leaves out; connections are renewed when it changes (two lines: "
        "the first that is taken counts)"
    ),
]


class ConfigurationError(Exception):
    """The environment is not a valid configuration; the message names every bad variable, and `problems` has them."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n  ".join(("these environment variables are missing or invalid:", *problems)))
        self.problems = problems


class Settings(BaseModel):
    """What every service is configured with."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, validate_default=True)

    # The first field: what the others may be depends on it. A closed list, so that a misspelt production is none.
    environment: Annotated[
        str,
        Field(
            description="Where it runs; appears in every log line",
            pattern="^(development|test|staging|production)$",
        ),
    ] = "development"
    version: Annotated[str, Field(description="Version of the deployment; appears in every log line")] = __version__
    log_level: Annotated[
        str, Field(description="Lowest level that is logged", pattern="^(debug|info|warning|error)$")
    ] = "info"
    admission: Annotated[
        bool,
        Field(
            description="Whether calls over their class's slots wait and are refused; without, they are only counted"
        ),
    ] = True

    otel_exporter_otlp_endpoint: Annotated[
        str,
        Field(
            description="Where spans are sent: base URL of an OTLP/HTTP receiver, below which it takes `/v1/traces`; "
            "without, none are made",
            pattern="^(https?://.+)?$",
        ),
    ] = ""
    otel_exporter_otlp_compression: Annotated[
        str, Field(description="Of what is sent there", pattern="^(gzip|none)$")
    ] = "gzip"
    tracer: Annotated[
        str,
        Field(description="Who sends spans: the chassis, or OpenTelemetry's SDK (dearer)", pattern="^(lean|sdk)$"),
    ] = "lean"
    trace_slow_seconds: Annotated[
        float, Field(description="A request that takes longer is kept although it was not sampled", gt=0, le=3600)
    ] = 1.0

    @field_validator("*", mode="after")
    @classmethod
    def _not_in_production(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("environment") == "production" and info.field_name is not None:
            for mark in cls.model_fields[info.field_name].metadata:
                if isinstance(mark, DevelopmentOnly) and mark.forbids(value):
                    raise ValueError(f"is for development only: {mark.why}")
        return value


class TokenSettings(Settings):
    """What everybody agrees on who issues or verifies access tokens, and the keys that verify them."""

    token_issuer: Annotated[
        str,
        Field(description="`iss` of the access tokens", min_length=1),
        DevelopmentOnly("name the issuer after the deployment", values=(DEFAULT_TOKEN_ISSUER,)),
    ] = DEFAULT_TOKEN_ISSUER
    token_audience: Annotated[str, Field(description="`aud` of the access tokens", min_length=1)] = (
        DEFAULT_TOKEN_AUDIENCE
    )
    access_token_seconds: Annotated[
        int, Field(description="Life of an access token; verifiers refuse one that lives longer", ge=1, le=3600)
    ] = ACCESS_TOKEN_SECONDS
    jwks_file: Annotated[
        Path,
        Field(description="The public keys that verify access tokens (a JSON Web Key Set); read again when it changes"),
    ]


class EventSettings(Settings):
    """What a service that publishes or consumes events is configured with as well."""

    nats_url: Annotated[
        str,
        Field(
            description="The brokers of events, separated by commas: `tls://HOST:PORT`",
            pattern=r"^tls://[^,/\s]+(,tls://[^,/\s]+)*$",
        ),
    ]
    nats_certificates: Annotated[
        Path,
        Field(
            description="Directory of the certificate that the broker knows the service by: tls.crt, tls.key, ca.crt"
        ),
    ]


class DatabaseSettings(TokenSettings):
    """What a service with a database is configured with as well."""

    database_url: Annotated[SecretStr, Field(description="libpq URL of the service's own database and role")]
    database_password_file: PasswordFile = None
    database_pool_min: Annotated[int, Field(description="Connections kept open", ge=0, le=500)] = 2
    database_pool_max: Annotated[
        int, Field(description="Most connections; callers wait for a free one until their deadline", ge=1, le=500)
    ] = 10


class CursorSettings(Settings):
    """What a service that answers lists page by page is configured with as well."""

    cursor_secret: Annotated[
        SecretStr, Field(description="Signs list cursors; shared by all replicas of the service", min_length=32)
    ]


def load(settings: type[S], variables: Mapping[str, str] = os.environ) -> S:
    """Read `settings` from the environment, or from other variables.

    Raises:
        ConfigurationError: naming every missing or invalid variable and its constraint, never a value.
    """
    found = {name: variables[name.upper()] for name in settings.model_fields if name.upper() in variables}
    problems = []
    for name in _in_files(settings, variables):
        variable = f"{name.upper()}_FILE"
        if name in found:
            problems.append(f"{variable}: {name.upper()} is given as well")
            continue
        try:
            found[name] = Path(variables[variable]).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{variable}: the file cannot be read: {error}")
            # Not missing as well.
            found[name] = ""
    try:
        made = settings.model_validate(found)
    except ValidationError as error:
        unreadable = {problem.partition("_FILE:")[0] for problem in problems}
        problems += [
            f"{variable}: {e['msg']}"
            for e in error.errors()
            if (variable := str(e["loc"][0]).upper() if e["loc"] else "?") not in unreadable
        ]
    if problems:
        raise ConfigurationError(*problems) from None
    return made


def _in_files(settings: type[Settings], variables: Mapping[str, str]) -> list[str]:
    """The secrets of which a variable names the file."""
    return [
        name
        for name, field in settings.model_fields.items()
        if field.annotation is SecretStr and f"{name.upper()}_FILE" in variables
    ]
