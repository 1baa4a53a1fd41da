"""Everything secret that a development stack needs: generated on first start, never committed, mode 600."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_CERTIFICATE_LIFE = timedelta(days=397)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Passwords and keys of one stack."""

    postgres_password: str
    user_database_password: str
    order_database_password: str
    valkey_password: str
    user_cursor_secret: str
    order_cursor_secret: str
    admin_password: str
    support_password: str
    customer_password: str


@dataclass(frozen=True, slots=True)
class PublicCertificate:
    """The certificate of the public HTTPS listener."""

    certificate: Path
    private_key: Path


def load_or_create(directory: Path) -> Secrets:
    """The stack's secrets; made when they are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = directory / "secrets.json"
    if path.exists():
        return Secrets(**json.loads(path.read_text()))
    made = Secrets(*(secrets.token_urlsafe(32) for _ in range(6)), *(_memorable() for _ in range(3)))
    _write(path, json.dumps(asdict(made), indent=2).encode())
    return made


def _memorable() -> str:
    return "-".join(secrets.token_hex(2) for _ in range(4))


def signing_keys(directory: Path) -> Path:
    """A directory with at least one ES256 key for access tokens."""
    keys = directory / "signing-keys"
    keys.mkdir(parents=True, exist_ok=True)
    if not any(keys.glob("*.pem")):
        _write(keys / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
    return keys


def public_certificate(directory: Path) -> PublicCertificate:
    """A self-signed certificate for loopback; renewed a month before it ends."""
    paths = PublicCertificate(directory / "public.crt", directory / "public.key")
    if paths.certificate.exists():
        known = x509.load_pem_x509_certificate(paths.certificate.read_bytes())
        if known.not_valid_after_utc - _RENEW_BEFORE > datetime.now(UTC):
            return paths
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backend development edge")])
    now = datetime.now(UTC)
    alternatives = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _CERTIFICATE_LIFE)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(paths.private_key, _pem(key))
    _write(paths.certificate, certificate.public_bytes(Encoding.PEM))
    return paths


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """Write so that a crash leaves either nothing or all of it, readable by the owner only."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
