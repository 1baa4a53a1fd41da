"""Everything secret that a development stack needs: generated on first start, never committed, mode 600."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.private_files import write_private
from mesh.topology import SERVICES
from mesh.valkey import ADMINISTRATOR

# Those that people type, by the role of the demo account; and of the servers' administrators.
_DEMO = {role: f"{role}_password" for role in ("admin", "support", "customer")}
_ADMINISTRATORS = ("postgres_password", "valkey_admin_password")
# Of the people who operate the stack: by it, a request of theirs is traced.
_TRACE = "trace_secret"
# As a secret was called before its name began with its service's.
_CALLED_BEFORE = {"user_refresh_token_secret": "refresh_token_secret"}


def database_password(service: str) -> str:
    """What the password of a service's database role is called."""
    return f"{service}_database_password"


def valkey_password(user: str) -> str:
    """What the password of a Valkey user is called: a service's, or the administrator's."""
    return f"valkey_{user}_password" if user == ADMINISTRATOR else f"{user}_valkey_password"


# Of services, which they read from a file.
OF_SERVICES = (
    *(database_password(service.name) for service in SERVICES if service.database is not None),
    *(valkey_password(service.name) for service in SERVICES if service.valkey is not None),
)
# Of servers' users; what `backend secrets rotate` replaces.
OF_SERVERS = (*_ADMINISTRATORS, *OF_SERVICES)
_OWN = tuple(f"{service.name}_{secret}" for service in SERVICES for secret in service.secrets)
NAMES = (*OF_SERVERS, *_OWN, _TRACE, *_DEMO.values())


@dataclass(frozen=True, slots=True)
class Secrets:
    """Passwords and keys of one stack, each of `NAMES`."""

    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def own(self, service: str, secret: str) -> str:
        """A secret of a service's own."""
        return self.values[f"{service}_{secret}"]

    @property
    def trace_key(self) -> str:
        """The end of the header's name that has a request traced; in small letters, as header names are compared."""
        return hashlib.sha256(self.values[_TRACE].encode()).hexdigest()[:32]

    def valkey_of(self, user: str) -> str:
        """The password of a Valkey user: a service, or the administrator."""
        return self.values[valkey_password(user)]

    def hidden_in(self, text: str) -> str:
        """A text without any of them but those that people type."""
        for name, value in self.values.items():
            if name not in _DEMO.values():
                text = text.replace(value, "***")
        return text

    def demo_accounts(self) -> dict[str, dict[str, str]]:
        """The demo accounts by role."""
        return {role: {"email": f"{role}@example.com", "password": self.values[name]} for role, name in _DEMO.items()}

    def as_json(self) -> bytes:
        """For a file."""
        return json.dumps(dict(self.values), indent=2).encode()


def file(directory: Path) -> Path:
    """Where they are kept."""
    return directory / "secrets.json"


def load_or_create(directory: Path) -> Secrets:
    """The stack's secrets; made when they are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = file(directory)
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    made = of_json(known)
    if made.values != known:
        write_private(path, made.as_json())
    return made


def of_json(known: Mapping[str, str]) -> Secrets:
    """What a file has; a stack made by an older version lacks what has been added since, or calls it otherwise."""
    return Secrets({name: known.get(name) or known.get(_CALLED_BEFORE.get(name, "")) or _make(name) for name in NAMES})


def rotation_journal(directory: Path) -> Path:
    """The passwords of a rotation that has begun and not ended."""
    return directory / "rotation.json"


def made_anew(secrets: Secrets) -> Secrets:
    """The same with other passwords of the servers' users."""
    return Secrets({**secrets.values, **{name: _make(name) for name in OF_SERVERS}})


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
        write_password(directory, name, secrets[name])


def _make(name: str) -> str:
    return _memorable() if name in _DEMO.values() else secrets.token_urlsafe(32)


def _memorable() -> str:
    return "-".join(secrets.token_hex(2) for _ in range(4))
