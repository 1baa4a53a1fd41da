from __future__ import annotations

import json
import shlex
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store
from devstack.options import parse_replicas
from mesh.certificates import PUBLIC, WORKLOADS, Certificates
from mesh.policies import parse_without

from conftest import BACKEND, backend


def load(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    certificates = Certificates(tmp_path / "pki", tmp_path / "certs")
    certificates.ensure()
    return certificates


def test_the_root_signs_the_intermediate_and_that_the_workloads(made: Certificates, tmp_path: Path) -> None:
    (root,) = load(tmp_path / "pki" / "root.crt")
    for name in (*WORKLOADS, PUBLIC):
        leaf, intermediate = load(tmp_path / "certs" / name / "tls.crt")
        leaf.verify_directly_issued_by(intermediate)
        intermediate.verify_directly_issued_by(root)
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if name != PUBLIC:
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://backend.local/{name}"]
            life = leaf.not_valid_after_utc - datetime.now(UTC)
            assert timedelta(hours=23) < life <= timedelta(hours=24)
    # The root can make no workload's certificate, the intermediate no further authority.
    for certificate, length in ((root, 1), (intermediate, 0)):
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (limits.ca, limits.path_length) == (True, length)


def test_a_client_that_knows_only_the_root_accepts_the_public_certificate(made: Certificates, tmp_path: Path) -> None:
    leaf, intermediate = load(tmp_path / "certs" / PUBLIC / "tls.crt")
    verifier = PolicyBuilder().store(Store(load(made.trust_bundle))).build_server_verifier(x509.DNSName("localhost"))
    assert len(verifier.verify(leaf, [intermediate])) == 3


def test_a_rotation_by_hand_keeps_how_long_they_live(tmp_path: Path) -> None:
    Certificates(tmp_path / "pki", tmp_path / "certs", timedelta(hours=2)).ensure()
    by_hand = Certificates(tmp_path / "pki", tmp_path / "certs")
    before = {issued.serial for issued in by_hand.issued()}
    by_hand.rotate()
    assert before.isdisjoint({issued.serial for issued in by_hand.issued()})
    assert {issued.not_after - issued.not_before for issued in by_hand.issued()} == {timedelta(hours=2)}


def test_keys_are_their_owners_only_and_twice_makes_nothing_new(made: Certificates, tmp_path: Path) -> None:
    for path in tmp_path.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = made.issued()
    made.ensure()
    assert made.issued() == before


def test_at_half_its_life_a_certificate_is_renewed_and_the_old_pair_goes(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "pki", tmp_path / "certs", timedelta(seconds=0))
    certificates.ensure()
    before = {issued.name: issued.serial for issued in certificates.issued()}
    certificates.ensure()
    after = {issued.name: issued.serial for issued in certificates.issued()}
    assert not set(before.values()) & set(after.values())
    for name in WORKLOADS:
        directory = tmp_path / "certs" / name
        assert {path.name for path in directory.iterdir() if not path.name.startswith("..")} == {
            "tls.crt", "tls.key", "ca.crt",
        }  # fmt: skip
        assert len([path for path in directory.iterdir() if path.is_dir() and not path.is_symlink()]) == 1


def test_a_rotation_of_the_authority_that_was_interrupted_leaves_both_roots_trusted(
    made: Certificates, tmp_path: Path
) -> None:
    old = (tmp_path / "pki" / "root.crt").read_bytes()
    made._make_authority()
    new = (tmp_path / "pki" / "root.crt").read_bytes()
    for name in (*WORKLOADS, PUBLIC):
        made._replace(name, roots=new + old)
    # Here it ended. What the supervisor renews is trusted by those who still have the old, and the other way round.
    made._issue("order")
    assert (tmp_path / "certs" / "order" / "ca.crt").read_bytes() == new + old


def test_a_certificate_that_cannot_be_read_is_made_again(made: Certificates, tmp_path: Path) -> None:
    data = tmp_path / "certs" / "order" / "..data"
    (data / "tls.crt").write_text("not a certificate", encoding="utf-8")
    made.ensure()
    assert len(load(data / "tls.crt")) == 2


def test_replicas_and_policies_are_checked_before_anything_starts(tmp_path: Path) -> None:
    assert parse_replicas(["order=2", "bff=3"]) == {"order": 2, "bff": 3}
    assert parse_without(["mtls"]) == ("mtls",)
    for arguments in (["--replicas", "edge=2"], ["--replicas", "order=0"], ["--replicas", "order"], ["--without", "x"]):
        command = [str(BACKEND), "up", "--data-dir", str(tmp_path / "stack"), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 2
        assert arguments[1] in done.stdout
        assert not (tmp_path / "stack").exists()
    for command in (["certs"], ["certs", "rotate"], ["certs", "trust"], ["keys"], ["keys", "rotate"]):
        done = subprocess.run(
            [str(BACKEND), *command, "--data-dir", str(tmp_path / "stack")],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode, "backend up" in done.stderr) == (3, True)


def test_what_is_said_of_trusting_the_certificate_can_be_typed_whatever_the_directory_is_called(tmp_path: Path) -> None:
    stack = tmp_path / "Ada's stack & co"
    certificates = Certificates(stack / "pki", stack / "certs")
    certificates.ensure()
    (stack / "state.json").write_text(
        json.dumps(
            {
                "supervisor_pid": 1,
                "supervisor_created": 0,
                "port_offset": 0,
                "processes": [],
                "endpoints": {"public_tls": "https://127.0.0.1:8143"},
            }
        ),
        encoding="utf-8",
    )
    shown = backend("certs", "trust", "--data-dir", str(stack)).stdout
    typed = [shlex.split(line) for line in shown.splitlines() if line.startswith(("  curl", "  Debian", "  macOS"))]
    assert [str(certificates.trust_bundle) in words for words in typed] == [True] * 3
