"""`trivet models`: what a running server serves, and loading and unloading."""

from pathlib import Path
from urllib.parse import quote

import click
import orjson
from rich.console import Console
from rich.table import Table

from trivet.backends.api.naming import key_of
from trivet.server.commands.client import Client, api_key_option


@click.group()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@api_key_option
@click.pass_context
def models(context: click.Context, url: str, api_key: str) -> None:
    """List, load and unload the models of a running server."""
    context.obj = Client(url, api_key)


@models.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def list_models(client: Client, output: str) -> None:
    """Show every model with the state of its versions."""
    entries = client.call("POST", "/v2/repository/index", {})
    if output == "json":
        click.echo(orjson.dumps(entries, option=orjson.OPT_INDENT_2))
        return
    table = Table("model", "version", "state", "reason")
    for entry in entries:
        model = key_of(entry.get("namespace", ""), entry["name"])
        table.add_row(model, *(entry.get(key, "") for key in ("version", "state", "reason")))
    Console().print(table)


@models.command()
@click.argument("name")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON config that replaces the model's own for this load",
)
@click.pass_obj
def load(client: Client, name: str, config: Path | None) -> None:
    """Load or reload a model (control mode explicit); returns when it serves."""
    body = {"parameters": {"config": config.read_text()}} if config is not None else {}
    client.call("POST", f"/v2/repository/models/{quote(name, safe='')}/load", body)
    click.echo(f"{name} is loaded")


@models.command()
@click.argument("name")
@click.pass_obj
def unload(client: Client, name: str) -> None:
    """Take a model out of service (control mode explicit)."""
    client.call("POST", f"/v2/repository/models/{quote(name, safe='')}/unload", {})
    click.echo(f"{name} accepts no more requests")
