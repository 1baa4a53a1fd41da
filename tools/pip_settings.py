"""What pip was told about the network, told to uv: a company's index, its certificates, its proxy. Standard library.

Whoever has configured uv itself (its variables, a uv.toml) has the last word: nothing that is set there is passed.
"""

from __future__ import annotations

import ast
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# pip's later section overrides the earlier (pip documentation, "Configuration"); environment variables come last.
_SECTIONS = ("global", "install", ":env:")
# By pip's name: uv's variables for it, and how uv.toml says the same.
_LISTS = {
    "extra-index-url": ("UV_INDEX", ("UV_INDEX", "UV_EXTRA_INDEX_URL"), r"extra-index-url|index"),
    "find-links": ("UV_FIND_LINKS", ("UV_FIND_LINKS",), r"find-links"),
    "trusted-host": ("UV_INSECURE_HOST", ("UV_INSECURE_HOST",), r"allow-insecure-host"),
}
_SEPARATORS = {"UV_FIND_LINKS": ","}
# Where distributions keep the certificates that they and their administrator trust.
_SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def read(python: str) -> dict[str, str]:
    """The settings of this interpreter's pip, from its files and the environment, by their long names."""
    listed = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        capture_output=True, check=False, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    return parse(listed.stdout)


def parse(listing: str) -> dict[str, str]:
    """What `pip config list` says: `section.name='value'`, a line each."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.*)", line)
        if match is None:
            continue
        try:
            value = ast.literal_eval(match[3])
        except (ValueError, SyntaxError):
            continue
        found[match[1]][match[2]] = str(value)
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def for_uv(
    pip: Mapping[str, str], environment: Mapping[str, str], uv_toml: str, *, system_certificates: bool
) -> dict[str, str]:
    """The variables to add to uv's environment.

    Args:
        pip: pip's settings.
        environment: what uv gets anyway.
        uv_toml: the text of the uv.toml files that uv reads.
        system_certificates: whether the machine has a store of certificates.
    """
    added: dict[str, str] = {}

    def free(variables: Iterable[str], option: str) -> bool:
        return not any(environment.get(v) for v in variables) and not re.search(
            rf"^[ \t]*\[*(pip\.)?({option})(?![\w-])", uv_toml, re.MULTILINE
        )

    if pip.get("index-url") and free(("UV_DEFAULT_INDEX", "UV_INDEX_URL"), "index-url|index"):
        added["UV_DEFAULT_INDEX"] = pip["index-url"]
    for name, (variable, variables, option) in _LISTS.items():
        if (values := pip.get(name, "").split()) and free(variables, option):
            added[variable] = _SEPARATORS.get(variable, " ").join(values)
    # pip takes a package from whichever index has it. uv would stop at the first that knows its name; every file is
    # checked against the lock's hashes, so taking it from another is no risk.
    if "UV_INDEX" in added and free(("UV_INDEX_STRATEGY",), "index-strategy"):
        added["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if (timeout := pip.get("timeout") or pip.get("default-timeout")) and free(("UV_HTTP_TIMEOUT",), "http-timeout"):
        added["UV_HTTP_TIMEOUT"] = str(max(1, round(float(timeout)))) if _is_number(timeout) else "30"
    return added | _certificates(pip, environment, system=system_certificates and free(
        ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"), "system-certs|native-tls"
    )) | _proxy(pip)  # fmt: skip


def arguments(pip: Mapping[str, str]) -> list[str]:
    """For what uv has no variable."""
    return ["--no-index"] if pip.get("no-index", "").lower() in {"1", "y", "yes", "true", "t", "on"} else []


def _certificates(pip: Mapping[str, str], environment: Mapping[str, str], *, system: bool) -> dict[str, str]:
    """Tell uv, which brings roots of its own of the system's certificates and of pip's."""
    added = {"UV_SYSTEM_CERTS": "true"} if system else {}
    # What requests, and so pip, reads.
    bundle = pip.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    if bundle and not environment.get("SSL_CERT_FILE") and not environment.get("SSL_CERT_DIR"):
        added["SSL_CERT_DIR" if os.path.isdir(bundle) else "SSL_CERT_FILE"] = bundle  # noqa: PTH112
    if pip.get("client-cert") and not environment.get("SSL_CLIENT_CERT"):
        added["SSL_CLIENT_CERT"] = pip["client-cert"]
    return added


def _proxy(pip: Mapping[str, str]) -> dict[str, str]:
    """That of pip goes before the environment's; it takes one without a scheme for HTTP."""
    proxy = pip.get("proxy")
    if not proxy:
        return {}
    url = proxy if "://" in proxy else f"http://{proxy}"
    return dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def has_system_certificates() -> bool:
    """Whether the machine has a store of certificates that uv can read."""
    paths = ssl.get_default_verify_paths()
    return (
        sys.platform == "darwin"
        or any(map(os.path.isfile, _SYSTEM_CERTIFICATES))
        or bool(paths.cafile)
        or bool(paths.capath and any(Path(paths.capath).iterdir()))
    )


def uv_toml(environment: Mapping[str, str], root: Path) -> str:
    """The text of every uv.toml that uv reads in this directory (uv documentation, "Configuration files")."""
    if environment.get("UV_NO_CONFIG"):
        return ""
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - a user without a home is no error
    chosen = environment.get("UV_CONFIG_FILE")
    paths = [Path(chosen)] if chosen else [Path("/etc/uv/uv.toml"), Path(home) / "uv" / "uv.toml"]
    paths += [] if chosen else [directory / "uv.toml" for directory in (root, *root.parents)]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file())
