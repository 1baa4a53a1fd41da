"""Our own certificate, its key and whom we trust: files that are replaced while we serve."""

from __future__ import annotations

import ssl
from pathlib import Path

_TRIES = 3


def client_context(directory: Path) -> ssl.SSLContext:
    """A client's TLS, with tls.crt, tls.key and ca.crt of a directory, all three of one moment.

    Whoever replaces them (mesh.certificates, cert-manager, Kubernetes' own volumes) does so in one rename of the link `..data`: read
    through it one by one, a certificate could come with another's key. Who is overtaken by the next replacement reads again.

    Raises:
        OSError: they cannot be read, or do not belong together (ssl.SSLError).
    """
    for tries in range(1, _TRIES + 1):
        link = directory / "..data"
        files = link.resolve() if link.exists() else directory
        try:
            context = ssl.create_default_context(cafile=str(files / "ca.crt"))
            context.load_cert_chain(files / "tls.crt", files / "tls.key")
        except OSError:
            if tries == _TRIES:
                raise
        else:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            return context
    raise AssertionError
