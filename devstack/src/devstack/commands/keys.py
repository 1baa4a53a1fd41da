"""`backend keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from devstack.commands.stack import DataDir, console, identities_or_exit, is_running
from devstack.layout import DEFAULT_DATA_DIR
from devstack.typed import as_typed

app = typer.Typer(help="The keys that sign access tokens.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Which keys there are, and what each is for now."""
    if context.invoked_subcommand is not None:
        return
    from devstack import keys

    for key in keys.states(identities_or_exit(data_dir)):
        console.print(f"{key.state:<10} {key.kid}  made {key.created:%Y-%m-%d %H:%M:%S}Z")


@app.command("rotate")
def rotate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """A new signing key, while everything serves. The old one verifies until its last token has expired."""
    from chassis.audit.acts import operator

    from devstack import audit, keys

    layout = identities_or_exit(data_dir)
    begins = keys.rotate(layout)
    kid = keys.states(layout)[-1].kid
    audit.tell(layout, "key.rotated", f"key/{kid}", operator(), after={"signs_from": begins.isoformat()})
    how = "published" if is_running(layout) else "made, and published by the next start"
    console.print(f"the new key is {how}; it signs from {begins:%H:%M:%S}Z")


# One key's name in 64 begins like an option.
@app.command("revoke", context_settings={"ignore_unknown_options": True})
def revoke(
    kid: Annotated[
        str | None, typer.Argument(help="Which; the one that signs when left out, after a question.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End a stolen key, and every token that it has signed, at once."""
    from chassis.audit.acts import operator

    from devstack import audit, keys

    layout = identities_or_exit(data_dir)
    if kid is None and not yes:
        typer.confirm("Revoke the key that signs now, and end every access token that it has signed?", abort=True)
    try:
        (gone,) = keys.revoke(layout, kid)
    except KeyError:
        said = as_typed(f"there is no key {kid}; `backend keys` lists them", layout.data_dir)
        console.print(said, style="red")
        raise typer.Exit(2) from None
    audit.tell(layout, "key.revoked", f"key/{gone}", operator())
    when = (
        f"services refuse its tokens within a second, edges within {keys.EDGE_SECONDS} seconds"
        if is_running(layout)
        else "the stack does not run, and refuses its tokens from its next start on"
    )
    console.print(f"{gone} is revoked: {when}.\nClients get new ones with their refresh tokens.")
