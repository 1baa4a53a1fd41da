"""The first command on a machine: whose Python, whose index, whose certificates."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bootstrap
import pip_settings
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mesh.topology import SERVICES

UV = Path(sys.executable).parent / "uv"


def settings(
    pip: dict[str, str], environment: dict[str, str] | None = None, toml: str = "", *, system: bool = False
) -> dict[str, str]:
    return pip_settings.for_uv(pip, environment or {}, toml, system_certificates=system)


class TestPipSettings:
    def test_the_environment_goes_before_files_and_install_before_global(self) -> None:
        listing = """\
:env:.cert='/env.pem'
global.cert='/global.pem'
global.index-url='https://a/simple'
global.find-links='\\n/opt/one two\\n/opt/b'
install.index-url='https://b/simple'
download.index-url='https://c/simple'
noise
global.broken=__import__('os')
"""
        found = pip_settings.parse(listing)
        assert found == {
            "cert": "/env.pem", "index-url": "https://b/simple", "find-links": "\n/opt/one two\n/opt/b",
        }  # fmt: skip

    def test_all_that_pip_was_told_is_told_to_uv(self) -> None:
        pip = {
            "index-url": "https://mirror/simple", "extra-index-url": "https://a/simple\nhttps://b/simple",
            "find-links": "/opt/a\nhttps://c/wheels", "trusted-host": "mirror other:8443", "cert": "/etc/company.pem",
            "client-cert": "/etc/me.pem", "proxy": "user:word@proxy:3128", "timeout": "180",
        }  # fmt: skip
        assert settings(pip, system=True) == {
            "UV_DEFAULT_INDEX": "https://mirror/simple", "UV_INDEX": "https://a/simple https://b/simple",
            "UV_INDEX_STRATEGY": "unsafe-best-match", "UV_FIND_LINKS": "/opt/a,https://c/wheels",
            "UV_INSECURE_HOST": "mirror other:8443", "UV_SYSTEM_CERTS": "true", "SSL_CERT_FILE": "/etc/company.pem",
            "SSL_CLIENT_CERT": "/etc/me.pem", "UV_HTTP_TIMEOUT": "180",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://user:word@proxy:3128"),
        }  # fmt: skip
        assert pip_settings.arguments({"no-index": "true"}) == ["--no-index"]
        assert settings({}) == {}
        assert pip_settings.arguments({}) == []

    @pytest.mark.parametrize(
        ("environment", "toml"),
        [
            ({"UV_DEFAULT_INDEX": "x", "UV_INDEX": "x", "UV_FIND_LINKS": "x", "UV_SYSTEM_CERTS": "false"}, ""),
            ({"UV_INDEX_URL": "x", "UV_EXTRA_INDEX_URL": "x", "UV_FIND_LINKS": "x", "UV_NATIVE_TLS": "0"}, ""),
            ({}, '[[index]]\nurl = "x"\ndefault = true\n[pip]\nfind-links = ["x"]\nsystem-certs = false\n'),
            ({}, 'native-tls = false\nindex-url = "x"\npip.extra-index-url = ["x"]\n  find-links=[]'),
        ],
    )
    def test_what_uv_was_told_itself_stays(self, environment: dict[str, str], toml: str) -> None:
        pip = {"index-url": "a", "extra-index-url": "b", "find-links": "c"}
        assert settings(pip, environment, toml, system=True) == {}

    def test_a_comment_in_uvs_file_sets_nothing(self) -> None:
        assert settings({"index-url": "a"}, toml='# index-url = "x"\nindex-strategy = "y"') == {"UV_DEFAULT_INDEX": "a"}

    def test_certificates_that_are_chosen_already_stay(self) -> None:
        assert settings({"cert": "/a"}, {"SSL_CERT_FILE": "/b"}) == {}
        assert settings({}, {"REQUESTS_CA_BUNDLE": "/c"}) == {"SSL_CERT_FILE": "/c"}

    def test_pip_itself_is_asked(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        configuration = tmp_path / "pip.conf"
        configuration.write_text("[global]\nindex-url = https://mirror/simple\ncert = /company.pem\n", encoding="utf-8")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
        monkeypatch.setenv("PIP_CERT", "/other.pem")
        found = pip_settings.read(sys.executable)
        assert (found["index-url"], found["cert"]) == ("https://mirror/simple", "/other.pem")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A company's index of one package, over TLS by an authority nobody else knows: its URL, the authority."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("company", "mirror"))
    life = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))
    serials = x509.random_serial_number(), x509.random_serial_number()
    root = (
        x509.CertificateBuilder(root_name, root_name, root_key.public_key(), serials[0], *life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    certificate = (
        x509.CertificateBuilder(root_name, name, key.public_key(), serials[1], *life)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    authority, chain = tmp_path / "company.pem", tmp_path / "mirror.pem"
    authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    pages = tmp_path / "index" / "simple" / "onlyhere"
    pages.mkdir(parents=True)
    wheel = pages / "onlyhere-1.0-py3-none-any.whl"
    files = {
        "onlyhere.py": b"",
        "onlyhere-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: onlyhere\nVersion: 1.0\n",
        "onlyhere-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files["onlyhere-1.0.dist-info/RECORD"] = "\n".join([*rows, "onlyhere-1.0.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (pages / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>', encoding="utf-8")

    class Quiet(SimpleHTTPRequestHandler):
        def handle(self) -> None:
            # A client that trusts nobody hangs up in the middle of the handshake.
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                super().handle()

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "index")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/simple", authority
    server.shutdown()
    server.server_close()


def uv_installs(target: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(UV), "pip", "install", "--no-cache", "--no-deps", "--target", str(target), "onlyhere"],
        env=environment, capture_output=True, encoding="utf-8", check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["cert", "trusted-host"])
def test_behind_a_companys_authority_and_mirror_uv_works_as_pip_does(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    url, authority = mirror
    for variable in [v for v in os.environ if v.startswith(("PIP_", "UV_", "SSL_", "REQUESTS_", "CURL_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    untold = uv_installs(tmp_path / "a", {**os.environ, "UV_DEFAULT_INDEX": url, "UV_HTTP_RETRIES": "0"})
    assert untold.returncode != 0
    monkeypatch.setenv("PIP_CERT", str(authority)) if way == "cert" else monkeypatch.setenv(
        "PIP_TRUSTED_HOST", url.split("/")[2]
    )
    told = uv_installs(tmp_path / "b", bootstrap.uv_environment(pip_settings.read(sys.executable)))
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "b" / "onlyhere.py").exists()


class TestInterpreter:
    def fake(self, tmp_path: Path, answer: str) -> str:
        path = tmp_path / "a python"
        path.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ('[[3, 9], true, "/x", "/x"]', "is Python 3.9; 3.11 to 3.14 are supported"),
            ('[[3, 12], false, "/x", "/x"]', "has no shared libpython"),
            ("hello", "is no working Python"),
        ],
    )
    def test_a_python_that_cannot_be_used_is_refused_with_the_reason(
        self, tmp_path: Path, answer: str, reason: str
    ) -> None:
        with pytest.raises(bootstrap.BootstrapError, match=reason):
            bootstrap.chosen_interpreter(self.fake(tmp_path, answer))

    def test_the_command_refuses_it_and_touches_nothing(self, tmp_path: Path) -> None:
        before = (bootstrap.VENV / "bin").stat()
        for name, reason in (("/bin/true", "is no working Python"), ("python-nope", "there is no such program")):
            done = subprocess.run(
                [sys.executable, str(bootstrap.ROOT / "tools" / "bootstrap.py")],
                env={**os.environ, "PYTHON": name}, capture_output=True, encoding="utf-8", check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (1, "")
            assert reason in done.stderr
        assert (bootstrap.VENV / "bin").stat().st_mtime_ns == before.st_mtime_ns


class TestCurrent:
    @pytest.fixture
    def environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        venv = tmp_path / "a venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        monkeypatch.setattr(bootstrap, "VENV", venv)
        monkeypatch.setattr(bootstrap, "STAMP", venv / "bootstrap.json")
        own = bootstrap.probe(str(venv / "bin" / "python"))
        assert own is not None
        bootstrap.STAMP.write_text(json.dumps(bootstrap.stamp_of(own)), encoding="utf-8")
        return venv

    def test_a_finished_environment_is_left_alone(self, environment: Path) -> None:
        assert bootstrap.is_current(None)
        assert bootstrap.is_current(bootstrap.probe(sys.executable))

    def test_one_of_another_python_is_not(self, environment: Path) -> None:
        own = bootstrap.probe(sys.executable)
        assert own is not None
        assert not bootstrap.is_current(own._replace(base="/usr/bin/another"))

    @pytest.mark.parametrize(
        "change", [{"version": [3, 10]}, {"python": "/usr/bin/another"}, {"locks": "other"}, {"locks": None}]
    )
    def test_nor_one_whose_python_or_locks_have_changed_since(
        self, environment: Path, change: dict[str, object]
    ) -> None:
        stamp = json.loads(bootstrap.STAMP.read_text(encoding="utf-8"))
        bootstrap.STAMP.write_text(json.dumps(stamp | change), encoding="utf-8")
        assert not bootstrap.is_current(None)

    def test_one_without_our_latest_services_is_usable_and_not_current(self, environment: Path) -> None:
        stamp = json.loads(bootstrap.STAMP.read_text(encoding="utf-8"))
        bootstrap.STAMP.write_text(json.dumps(stamp | {"own": "other"}), encoding="utf-8")
        assert bootstrap.is_usable(None)
        assert not bootstrap.is_current(None)

    def test_our_own_are_installed_and_what_is_ours_no_more_is_not(
        self, environment: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, ...]] = []
        monkeypatch.setattr(bootstrap, "uv_pip", lambda *arguments, remedy: asked.append(arguments))
        stamp = json.loads(bootstrap.STAMP.read_text(encoding="utf-8")) | {"own": "other"}
        gone = {"distributions": [*bootstrap.distributions(), "services/stock_alerts"]}
        bootstrap.STAMP.write_text(json.dumps(stamp | gone), encoding="utf-8")
        bootstrap.prepare()
        assert [command for command, *_ in asked] == ["install", "uninstall"]
        assert [str(bootstrap.ROOT / s.folder) in asked[0] for s in SERVICES] == [True] * len(SERVICES)
        assert asked[1] == ("uninstall", "backend-stock_alerts")
        assert bootstrap.is_current(None)
        bootstrap.prepare()
        assert len(asked) == 2

    def test_a_path_with_other_letters_than_the_locales_is_one_that_its_python_starts_from(
        self, environment: Path
    ) -> None:
        """LC_ALL=C in a directory named Größe."""
        clone = environment.parent / "Größe & Räume"
        source = clone / "libs" / "ours"
        source.mkdir(parents=True)
        (source / "ours.py").touch()
        venv = environment.rename(clone / ".venv")
        pth = next(venv.glob("lib/python*/site-packages")) / "_editable_impl_backend_ours.pth"
        pth.write_text(f"{source}\n{clone}", encoding="utf-8")
        bootstrap.make_readable(pth)
        for locale in ("C", "C.UTF-8"):
            subprocess.run([str(venv / "bin" / "python"), "-c", "import ours"], check=True, env={"LC_ALL": locale})

    def test_nor_one_that_was_not_finished_or_whose_python_is_gone(self, environment: Path) -> None:
        (environment / "bin" / "python").unlink()
        assert not bootstrap.is_current(None)
        bootstrap.STAMP.unlink()
        assert not bootstrap.is_current(None)
