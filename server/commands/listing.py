"""`trivet list`: what has been pulled, and what can be."""

from datetime import UTC, datetime

import click
import orjson
from rich.console import Console
from rich.table import Table

from trivet.server.commands.catalogue import name_for, short_names
from trivet.server.commands.stores import opened, remote_cache_option
from trivet.server.remote.progress import readable
from trivet.server.remote.pulled import Pulled


@click.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@remote_cache_option
def listing(output: str, remote_cache: str) -> None:
    """List the models that have been pulled, and the short names of others."""
    pulls = opened(remote_cache)
    found = pulls.all()
    if output == "json":
        rows = [_row(each) for each in found]
        document = {"folder": str(pulls.folder), "pulled": rows, "short_names": short_names()}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    console = Console()
    table = Table("model", "size", "last used", "address")
    for each in found:
        size = readable(each.num_bytes) + ("" if each.is_whole else " (not all here)")
        table.add_row(name_for(each.address), size, _date(each), each.address)
    console.print(table if found else f"nothing has been pulled to {pulls.folder}")
    here = {each.address for each in found}
    others = [name for name, address in short_names().items() if address not in here]
    console.print(f"in {pulls.folder}" if found else "", highlight=False)
    console.print(f"`trivet pull` also knows {', '.join(others) or 'no other short names'}")


def _row(pulled: Pulled) -> dict[str, object]:
    return {
        "name": name_for(pulled.address),
        "address": pulled.address,
        "num_files": len(pulled.files),
        "size_bytes": pulled.num_bytes,
        "is_whole": pulled.is_whole,
        "last_use_s": pulled.last_use_ns / 1e9,
    }


def _date(pulled: Pulled) -> str:
    if not pulled.last_use_ns:
        return "never"
    return datetime.fromtimestamp(pulled.last_use_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
