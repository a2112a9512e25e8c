"""`trivet rm`: forgets what has been pulled."""

import click

from trivet.server.commands.catalogue import address_of
from trivet.server.commands.stores import opened, remote_cache_option, told
from trivet.server.remote.progress import readable


@click.command("rm")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@remote_cache_option
def removal(models: tuple[str, ...], remote_cache: str) -> None:
    """Remove models that have been pulled. A server that serves one goes on; the disk has the room
    once it ends."""
    pulls = opened(remote_cache)
    for model in models:
        with told():
            gone = pulls.remove(address_of(model))
        click.echo(f"{model} is removed: {readable(gone.num_bytes_here)}")
