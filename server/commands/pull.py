"""`trivet pull`: brings models here before anybody serves them."""

import click

from trivet.server.commands.catalogue import address_of
from trivet.server.commands.stores import opened, remote_cache_option, told
from trivet.server.remote.progress import readable


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@remote_cache_option
def pull(models: tuple[str, ...], remote_cache: str) -> None:
    """Bring models here, to be run or served later, also without a network. MODEL is a short name
    such as smollm2 or an address such as hf://ORG/NAME. What was broken off goes on."""
    addresses = [address_of(model) for model in models]
    pulls = opened(remote_cache)
    for address in addresses:
        click.echo(f"pulling {address}", err=True)
        with told():
            found = pulls.pull(address)
        click.echo(f"{address}: {len(found.files)} file(s), {readable(found.num_bytes)}")
