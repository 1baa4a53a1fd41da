"""Everything secret that a development stack needs: generated on first start, never committed, mode 600."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_TYPED_BY_PEOPLE = ("admin_password", "support_password", "customer_password")
# Of servers' users; what `backend secrets rotate` replaces.
OF_SERVERS = (
    "postgres_password", "user_database_password", "order_database_password", "valkey_admin_password",
    "bff_valkey_password", "user_valkey_password", "order_valkey_password", "limiter_valkey_password",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Secrets:
    """Passwords and keys of one stack."""

    postgres_password: str
    user_database_password: str
    order_database_password: str
    valkey_admin_password: str
    bff_valkey_password: str
    user_valkey_password: str
    order_valkey_password: str
    limiter_valkey_password: str
    user_cursor_secret: str
    order_cursor_secret: str
    refresh_token_secret: str
    admin_password: str
    support_password: str
    customer_password: str

    def valkey_of(self, user: str) -> str:
        """The password of a Valkey user: a service, or admin."""
        password: str = getattr(self, "valkey_admin_password" if user == "admin" else f"{user}_valkey_password")
        return password

    def hidden_in(self, text: str) -> str:
        """A text without any of them but those that people type."""
        for name, value in asdict(self).items():
            if name not in _TYPED_BY_PEOPLE:
                text = text.replace(value, "***")
        return text

    def demo_accounts(self) -> dict[str, dict[str, str]]:
        """The demo accounts by role."""
        return {
            "admin": {"email": "admin@example.com", "password": self.admin_password},
            "support": {"email": "support@example.com", "password": self.support_password},
            "customer": {"email": "customer@example.com", "password": self.customer_password},
        }


def file(directory: Path) -> Path:
    """Where they are kept."""
    return directory / "secrets.json"


def load_or_create(directory: Path) -> Secrets:
    """The stack's secrets; made when they are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = file(directory)
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # A stack made by an older version lacks what has been added since.
    made = Secrets(**{f.name: known.get(f.name) or _make(f.name) for f in fields(Secrets)})
    if asdict(made) != known:
        write_private(path, json.dumps(asdict(made), indent=2).encode())
    return made


# Those that a service reads from a file.
OF_SERVICES = tuple(name for name in OF_SERVERS if name not in ("postgres_password", "valkey_admin_password"))


def rotation_journal(directory: Path) -> Path:
    """The passwords of a rotation that has begun and not ended."""
    return directory / "rotation.json"


def made_anew(secrets: Secrets) -> Secrets:
    """The same with other passwords of the servers' users."""
    return replace(secrets, **{name: _make(name) for name in OF_SERVERS})


def password_file(directory: Path, name: str) -> Path:
    """Where a service reads a password of `Secrets`, again whenever it changes."""
    return directory / "passwords" / name.removesuffix("_password").replace("_", "-")


def write_password(directory: Path, name: str, *accepted: str) -> None:
    """Let a service know its password, or both while its server goes from one to the next."""
    path = password_file(directory, name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    content = "".join(f"{password}\n" for password in accepted).encode()
    # Written again, it would have every connection renewed.
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


def write_passwords(directory: Path, secrets: Secrets) -> None:
    """Let every service know its password."""
    for name in OF_SERVICES:
        write_password(directory, name, getattr(secrets, name))


def _make(name: str) -> str:
    return _memorable() if name in _TYPED_BY_PEOPLE else secrets.token_urlsafe(32)


def _memorable() -> str:
    return "-".join(secrets.token_hex(2) for _ in range(4))


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, not encrypted: the file's mode protects it."""
    # Not at the top: who has a key has loaded it already, and a start reads passwords before it makes keys.
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Write so that a crash leaves either nothing or all of it, readable by the owner only."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
