"""What a service may be configured with, and what not in production."""

from __future__ import annotations

from pathlib import Path

import pytest
from chassis.config import ConfigurationError, CursorSettings, DatabaseSettings, Settings, load
from limiter.settings import Settings as LimiterSettings
from order.settings import Settings as OrderSettings

COMPLETE = {
    "VALKEY_URL": "unix:///nowhere",
    "CACHE_URL": "unix:///nowhere",
    "DATABASE_URL": "postgresql:///nowhere",
    "CURSOR_SECRET": "c" * 32,
    "JWKS_FILE": "/nowhere/jwks.json",
    "NATS_URL": "tls://nowhere:4222",
    "NATS_CERTIFICATES": "/nowhere",
}


class Paged(DatabaseSettings, CursorSettings):
    """Of a service with a database, of which lists are read page by page."""


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


def test_a_wrong_start_names_every_bad_variable_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_POOL_MAX", "0")
    monkeypatch.setenv("CURSOR_SECRET", "hunter2")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        load(Paged)
    message = str(caught.value)
    for expected in (
        "DATABASE_URL: Field required",
        "DATABASE_POOL_MAX: Input should be greater",
        "CURSOR_SECRET:",
    ):
        assert expected in message
    assert "hunter2" not in message


def test_a_secret_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"DATABASE_URL": "hunter2", "CURSOR_SECRET": "hunter2" * 5}
    for name, value in {**secrets, "JWKS_FILE": "jwks.json"}.items():
        monkeypatch.setenv(name, value)
    settings = load(Paged)
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    with pytest.raises(ValueError, match="frozen"):
        settings.environment = "x"


class TestSecretsInFiles:
    def test_a_secret_may_be_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "cursor").write_text("c" * 32 + "\n", encoding="utf-8")
        variables = COMPLETE | {"CURSOR_SECRET_FILE": str(tmp_path / "cursor")}
        del variables["CURSOR_SECRET"]
        assert load(Paged, variables).cursor_secret.get_secret_value() == "c" * 32

    def test_what_is_wrong_with_files_is_said_with_all_else_and_shows_no_value(self, tmp_path: Path) -> None:
        (tmp_path / "cursor").write_text("hunter2\n", encoding="utf-8")
        variables = {
            "CURSOR_SECRET_FILE": str(tmp_path / "cursor"),
            "DATABASE_URL_FILE": str(tmp_path / "none"),
            "DATABASE_POOL_MAX": "0",
        }
        with pytest.raises(ConfigurationError) as caught:
            load(Paged, variables)
        named = [problem.partition(":")[0] for problem in caught.value.problems]
        assert sorted(named) == ["CURSOR_SECRET", "DATABASE_POOL_MAX", "DATABASE_URL_FILE", "JWKS_FILE"]
        assert "hunter2" not in str(caught.value)

    def test_a_secret_is_said_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="CURSOR_SECRET is given as well"):
            load(Paged, COMPLETE | {"CURSOR_SECRET_FILE": str(tmp_path / "cursor")})

    def test_what_is_no_secret_is_in_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "level").write_text("debug", encoding="utf-8")
        assert load(Paged, COMPLETE | {"LOG_LEVEL_FILE": str(tmp_path / "level")}).log_level == "info"
