"""Writes what the Envoys and the broker of a site are started with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePath

from mesh import broker
from mesh.envoy import Process, configuration, secret_files
from mesh.site import Site, SiteFile
from mesh.topology import BROKER, BROKER_OPS_PORT, BROKER_PORT, TABLE, Edge


def write(site_file: SiteFile, out: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Write NAME.yaml and, below sds/NAME, what is mounted as the site's `secret_files`, and the broker's below nats.

    Of the rows that are named alone, without the broker's; of all when none is.

    Each path once it is written.

    Every process listens on its row's ports: where each has an address of its own, replicas need no others.
    """
    site, policies = site_file.site, site_file.policies
    for row in TABLE:
        if names and row.name not in names:
            continue
        tls_port = row.tls_port if isinstance(row, Edge) else 0
        process = Process(row.name, row.port, row.ops_port, socket_prefix=f"run/{row.name}", tls_port=tls_port)
        yield _written(out / f"{row.name}.yaml", configuration(process, site, policies))
        for name, text in secret_files(row.name, site).items():
            yield _written(out / "sds" / row.name / name, text)
    if names:
        return
    yield _written(out / BROKER / "accounts.conf", broker.accounts(site.trust_domain))
    yield _written(out / BROKER / f"{BROKER}.conf", broker.configuration(_broker(site)))


def _broker(site: Site) -> broker.Server:
    return broker.Server(
        address=site.address,
        port=BROKER_PORT,
        monitor=f"{site.ops_address}:{BROKER_OPS_PORT}",
        certificates=site.certificates / BROKER,
        directory=site.broker_directory,
        # Relative to the file that includes it.
        accounts=PurePath("accounts.conf"),
    )


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
