"""`backend certs`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from devstack import state
from devstack.commands.stack import DataDir, console, identities_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.typed import as_typed

if TYPE_CHECKING:
    # Imported by the commands that use it: cryptography takes most of the time in which others have long answered.
    from mesh.certificates import Certificates

app = typer.Typer(help="The certificates of the stack's processes.", no_args_is_help=False)


def _certificates(layout: Layout) -> Certificates:
    from mesh.certificates import Certificates

    return Certificates(layout.pki, layout.certificates)


@app.callback(invoke_without_command=True)
def show(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Who has a certificate, from whom and until when."""
    if context.invoked_subcommand is not None:
        return
    for issued in _certificates(identities_or_exit(data_dir)).issued():
        expiry, renewal = (f"{moment:%Y-%m-%d %H:%M:%S}Z" for moment in (issued.not_after, issued.renew_at))
        console.print(
            f"{issued.name:<8} {issued.identity:<30} expires {expiry}, renewed from {renewal}\n"
            f"{'':<8} serial {issued.serial}, issuer {issued.issuer}"
        )


@app.command("rotate")
def rotate(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    ca: Annotated[bool, typer.Option("--ca", help="A new authority as well: root, intermediate and all.")] = False,
) -> None:
    """New keys and certificates for every process, while they serve."""
    from chassis.audit.acts import operator

    from devstack import audit

    layout = identities_or_exit(data_dir)
    certificates, actor = _certificates(layout), operator()
    with audit.replacing_certificates(layout, certificates, actor):
        if ca:
            certificates.rotate_authority()
        else:
            certificates.rotate()
    if ca:
        audit.tell(layout, "authority.replaced", "authority/root", actor)
    console.print("rotated")


@app.command("trust")
def trust(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """How a browser or curl trusts the public HTTPS certificate."""
    layout = identities_or_exit(data_dir)
    bundle = _certificates(layout).trust_bundle
    quoted = shlex.quote(str(bundle))
    current = state.read(layout)
    url = current.endpoints["public_tls"] if current else layout.endpoints(())["public_tls"]
    text = f"""The root certificate is {bundle}

  curl      curl --cacert {quoted} {url}/v1/products
  Python    httpx.Client(verify=ssl.create_default_context(cafile={str(bundle)!r}))
  Firefox   Settings, Certificates, Authorities, Import
  Chrome    Settings, Security, Manage certificates, Authorities, Import
  Debian    cp {quoted} /usr/local/share/ca-certificates/backend.crt && update-ca-certificates
  macOS     security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {quoted}

It changes with `backend certs rotate --ca` and `backend reset`. Remove it again when you no longer need it."""
    console.print(as_typed(text, layout.data_dir))
