"""An authority of our own, which gives every process of one machine its identity: of `backend up`, and of Compose.

    pki/root.{crt,key}            signs intermediates only
    pki/intermediate.{crt,key}    signs workload certificates
    certs/<name>/tls.crt, tls.key, ca.crt     what a process reads

A directory of `certs` has the layout of a mounted Kubernetes secret: the files are links through `..data`, which is
replaced in one rename, so a reader sees the old pair or the new one, never a certificate with another's key. Envoy
watches for that rename (SDS from files). cert-manager's CSI driver and SPIRE's helper write the same three files; in
a cluster they take the place of this module.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chassis.audit import acts
from chassis.audit.acts import Act
from chassis.private_files import private_pem, write_private
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.topology import BROKER, OPERATORS, TABLE

TRUST_DOMAIN = "backend.local"
WORKLOADS = (*(row.name for row in TABLE), BROKER, OPERATORS)
# The certificate of the public HTTPS listener: a server's only, with names instead of a SPIFFE id.
PUBLIC = "public"
# Of those whose clients know them by where they are: the names and addresses in their certificates.
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
LOCAL: Mapping[str, tuple[str, ...]] = {PUBLIC: _LOCAL_HOSTS, BROKER: _LOCAL_HOSTS}
LIFE = timedelta(hours=24)
_CA_LIFE = timedelta(days=3650)
# Certificates begin to be valid this long before they are made, for readers whose clocks are behind.
_BACKDATE = timedelta(minutes=5)
# By then every Envoy is certain to have read a changed file: the kernel tells it of the change at once.
SETTLE_SECONDS = 2.0


def spiffe_id(name: str) -> str:
    """The identity of a process, as https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/ defines it."""
    return f"spiffe://{TRUST_DOMAIN}/{name}"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as the command line shows it."""

    name: str
    identity: str
    serial: str
    issuer: str
    not_before: datetime
    not_after: datetime

    @property
    def renew_at(self) -> datetime:
        """When half of its life is over: it is replaced then."""
        return self.not_before + (self.not_after - self.not_before) / 2


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Certificates:
    """The authority and the certificates of one stack.

    Args:
        pki: the authority's own directory.
        directory: one directory below it for each certificate.
        life: how long workload certificates are valid; None: as long as those that they replace, and a day at first.
        hosts: where clients find those whom they know by it.
    """

    def __init__(
        self,
        pki: Path,
        directory: Path,
        life: timedelta | None = None,
        hosts: Mapping[str, tuple[str, ...]] = LOCAL,
    ) -> None:
        self._pki = pki
        self._directory = directory
        self._life = life
        self._hosts = hosts

    @property
    def trust_bundle(self) -> Path:
        """The roots that a client of the public listener trusts."""
        return self._directory / PUBLIC / "ca.crt"

    def ensure(self) -> None:
        """Make the authority and every certificate that is missing, unreadable, or at half its life."""
        with self._locked():
            if not (self._pki / "intermediate.crt").exists():
                self._make_authority()
            for name in (*WORKLOADS, PUBLIC):
                found = self._read(name)
                if found is None or datetime.now(UTC) >= found.renew_at:
                    self._issue(name)

    def next_renewal(self) -> datetime:
        """When the next certificate has to be replaced."""
        return min(issued.renew_at for issued in self.issued())

    def issued(self) -> list[Issued]:
        """The certificates that are in use now."""
        return [found for name in (*WORKLOADS, PUBLIC) if (found := self._read(name)) is not None]

    def replaced(self, before: Sequence[Issued], actor: str) -> list[Act]:
        """What the audit trail is to say of those that were in use before and are not any more.

        Args:
            before: what `issued` said then.
            actor: who has replaced them.
        """
        now, old = datetime.now(UTC), {issued.name: issued.serial for issued in before}
        return [
            acts.act(
                "certificate.replaced",
                f"certificate/{issued.name}",
                now,
                actor=actor,
                before={"serial": old[issued.name]},
                after={"serial": issued.serial, "expires": issued.not_after.isoformat()},
            )
            for issued in self.issued()
            if issued.name in old and old[issued.name] != issued.serial
        ]

    def rotate(self) -> None:
        """Give every process a new key and certificate, from the same authority."""
        with self._locked():
            for name in (*WORKLOADS, PUBLIC):
                self._issue(name)

    def rotate_authority(self) -> None:
        """Replace root and intermediate, and let no process at any moment refuse a certificate that another one uses.

        First every process trusts both roots, then each gets a certificate from the new one, then the old root is removed.
        """
        with self._locked():
            old = self._roots()
            self._make_authority()
            new = (self._pki / "root.crt").read_bytes()
            for name in (*WORKLOADS, PUBLIC):
                self._replace(name, roots=new + old)
            time.sleep(SETTLE_SECONDS)
            for name in (*WORKLOADS, PUBLIC):
                self._issue(name, roots=new + old)
            time.sleep(SETTLE_SECONDS)
            for name in (*WORKLOADS, PUBLIC):
                self._replace(name, roots=new)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The supervisor may renew certificates while somebody rotates them.
        self._pki.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._pki / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_authority(self) -> None:
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _authority_certificate("backend development root", root_key, None, path_length=1)
        key = ec.generate_private_key(ec.SECP256R1())
        signer = _Authority(root, root_key)
        intermediate = _authority_certificate("backend development intermediate", key, signer, path_length=0)
        write_private(self._pki / "root.key", private_pem(root_key))
        write_private(self._pki / "root.crt", root.public_bytes(Encoding.PEM))
        write_private(self._pki / "intermediate.key", private_pem(key))
        # Written last: where it is there, `ensure` takes the authority to be complete.
        write_private(self._pki / "intermediate.crt", intermediate.public_bytes(Encoding.PEM))

    def _intermediate(self) -> _Authority:
        certificate = x509.load_pem_x509_certificate((self._pki / "intermediate.crt").read_bytes())
        key = load_pem_private_key((self._pki / "intermediate.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the intermediate's key is not an elliptic curve key")
        return _Authority(certificate, key)

    def _roots(self) -> bytes:
        return (self._pki / "root.crt").read_bytes()

    def _bundle(self, name: str) -> bytes:
        """What is trusted now: both roots, when a rotation of the authority was interrupted and is not finished."""
        root, current = self._roots(), self._directory / name / "ca.crt"
        bundle = current.read_bytes() if current.exists() else b""
        return bundle if root in bundle else root

    def _issue(self, name: str, roots: bytes | None = None) -> None:
        authority = self._intermediate()
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = workload_certificate(
            name,
            key.public_key(),
            authority.certificate,
            authority.key,
            self._life_of(name),
            hosts=self._hosts.get(name, ()),
        )
        chain = certificate.public_bytes(Encoding.PEM) + authority.certificate.public_bytes(Encoding.PEM)
        self._write(name, {"tls.crt": chain, "tls.key": private_pem(key), "ca.crt": roots or self._bundle(name)})

    def _life_of(self, name: str) -> timedelta:
        if self._life is not None:
            return self._life
        before = self._read(name)
        return LIFE if before is None else before.not_after - before.not_before

    def _replace(self, name: str, roots: bytes) -> None:
        current = self._directory / name
        files = {file: (current / file).read_bytes() for file in ("tls.crt", "tls.key")}
        self._write(name, {**files, "ca.crt": roots})

    def _write(self, name: str, files: dict[str, bytes]) -> None:
        directory = self._directory / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = directory / "..data"
        before = data.resolve() if data.exists() else None
        version = directory / f"..{time.time_ns()}"
        version.mkdir(mode=0o700)
        for file, content in files.items():
            write_private(version / file, content)
        new_link = directory / "..data_new"
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(version.name)
        new_link.replace(data)
        for file in files:
            link = directory / file
            if not link.is_symlink():
                link.symlink_to(Path("..data") / file)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def _read(self, name: str) -> Issued | None:
        try:
            certificate = x509.load_pem_x509_certificate((self._directory / name / "tls.crt").read_bytes())
        except (OSError, ValueError):
            return None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        identities = names.get_values_for_type(x509.UniformResourceIdentifier)
        return Issued(
            name=name,
            identity=identities[0] if identities else ", ".join(names.get_values_for_type(x509.DNSName)),
            serial=f"{certificate.serial_number:x}",
            issuer=certificate.issuer.rfc4514_string().removeprefix("CN="),
            not_before=certificate.not_valid_before_utc + _BACKDATE,
            not_after=certificate.not_valid_after_utc,
        )


def _authority_certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: _Authority | None, *, path_length: int
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {os.urandom(3).hex()}")])
    now = datetime.now(UTC)
    issuer_key = signer.key if signer else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def workload_certificate(
    name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    life: timedelta,
    *,
    begins: datetime | None = None,
    hosts: tuple[str, ...] | None = None,
) -> x509.Certificate:
    """A certificate for a process, or for the public listener; valid from `begins` (now) for `life`.

    Args:
        name: whose it is.
        key: its public key.
        issuer: who signs it.
        issuer_key: the issuer's private key.
        life: how long it is valid.
        begins: since when.
        hosts: names and addresses that a client may know it by; None: those of this machine, where it has any.
    """
    begins = begins or datetime.now(UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    names = [_general_name(host) for host in (LOCAL.get(name, ()) if hosts is None else hosts)]
    if name != PUBLIC:
        names.insert(0, x509.UniformResourceIdentifier(spiffe_id(name)))
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - _BACKDATE)
        .not_valid_after(begins + life)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
