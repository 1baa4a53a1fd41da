"""What a service may not be configured with in production."""

from __future__ import annotations

import pytest
from chassis.config import ConfigurationError, Settings, load
from limiter.settings import Settings as LimiterSettings
from order.settings import Settings as OrderSettings

COMPLETE = {
    "VALKEY_URL": "unix:///nowhere",
    "CACHE_URL": "unix:///nowhere",
    "DATABASE_URL": "postgresql:///nowhere",
    "CURSOR_SECRET": "c" * 32,
    "JWKS_FILE": "/nowhere/jwks.json",
}


def started(monkeypatch: pytest.MonkeyPatch, settings: type[Settings], **variables: str) -> Settings:
    for name, value in {**COMPLETE, **variables}.items():
        monkeypatch.setenv(name, value)
    return load(settings)


def test_the_order_service_refuses_the_sandbox_and_everything_else_of_development_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JWKS_FILE", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        started(monkeypatch, OrderSettings, ENVIRONMENT="production", CURSOR_SECRET="short")
    named = {line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]}
    assert {"PAYMENT_PROVIDER", "TOKEN_ISSUER", "CURSOR_SECRET"} <= named
    assert "the sandbox moves no money" in str(caught.value)


@pytest.mark.parametrize("environment", ["development", "test", "staging"])
def test_elsewhere_it_starts_on_the_sandbox(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    assert started(monkeypatch, OrderSettings, ENVIRONMENT=environment).environment == environment


@pytest.mark.parametrize("environment", ["Production", "prod", "production ", ""])
def test_a_misspelt_environment_is_refused(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    with pytest.raises(ConfigurationError, match="ENVIRONMENT"):
        started(monkeypatch, OrderSettings, ENVIRONMENT=environment)


def test_limits_are_not_multiplied_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="RATE_LIMIT_SCALE"):
        started(monkeypatch, LimiterSettings, ENVIRONMENT="production", RATE_LIMIT_SCALE="2")
    assert started(monkeypatch, LimiterSettings, ENVIRONMENT="production", RATE_LIMIT_SCALE="1")
