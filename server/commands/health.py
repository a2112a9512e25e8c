"""`trivet health`: asks a running server how it does; what a container's health check runs."""

from urllib.parse import quote

import click

from trivet.server.commands.client import Client, api_key_option

TIMEOUT_S = 3.0
"""A server that cannot say how it does within this time does not do well."""


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@click.option("--live", is_flag=True, help="ask only whether it serves, not whether models do")
@click.option("--model", default="", help="ask about one model")
@api_key_option
def health(url: str, model: str, api_key: str, *, live: bool) -> None:
    """Tell whether a running server is ready; exit code 0 if it is, else 1."""
    if live and model:
        raise click.UsageError("--live is about the server, --model about one model; give one")
    path = f"/v2/models/{quote(model, safe='')}/ready" if model else "/v2/health/ready"
    good = "live" if live else "ready"
    try:
        status = Client(url, api_key, TIMEOUT_S).status("/v2/health/live" if live else path)
    except click.UsageError:
        raise
    except click.ClickException as error:
        # Docker takes 1 alone for what is not healthy.
        raise click.ClickException(error.message) from None
    if status != 200:
        raise click.ClickException(f"{model or 'the server'} is not {good} (status {status})")
    click.echo(good)
