"""`trivet traffic`: labels and splits of a running server's models."""

from typing import Any
from urllib.parse import quote

import click
import orjson

from trivet.server.commands.client import Client, api_key_option


@click.group()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@api_key_option
@click.pass_context
def traffic(context: click.Context, url: str, api_key: str) -> None:
    """Say which requests get which version of a model."""
    context.obj = Client(url, api_key)


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/traffic"


@traffic.command()
@click.argument("model")
@click.pass_obj
def show(client: Client, model: str) -> None:
    """Show labels, split, and what came of the requests of each arm, as JSON."""
    _print(client.call("GET", _path(model)))


@traffic.command("set")
@click.argument("model")
@click.option("--label", multiple=True, metavar="LABEL=VERSION", help="name of a loaded version")
@click.option("--split", multiple=True, metavar="ARM=PERCENT", help="part of a label or version")
@click.option("--sticky", multiple=True, metavar="SOURCE", help="header:NAME, cookie:NAME, user")
@click.pass_obj
def set_traffic(
    client: Client,
    model: str,
    label: tuple[str, ...],
    split: tuple[str, ...],
    sticky: tuple[str, ...],
) -> None:
    """Set all of them in the place of the model's traffic.toml, until `reset`."""
    body = {
        "labels": dict(_pair("--label", each, int) for each in label),
        "split": dict(_pair("--split", each, float) for each in split),
        "sticky": list(sticky),
    }
    _print(client.call("PUT", _path(model), body))


@traffic.command()
@click.argument("model")
@click.pass_obj
def reset(client: Client, model: str) -> None:
    """Let the model's traffic.toml count again."""
    _print(client.call("DELETE", _path(model)))


def _pair(option: str, text: str, kind: type[int] | type[float]) -> tuple[str, Any]:
    name, _, number = text.partition("=")
    try:
        return name, kind(number)
    except ValueError:
        raise click.BadParameter(f"'{text}' is not NAME=NUMBER", param_hint=option) from None


def _print(document: Any) -> None:
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
