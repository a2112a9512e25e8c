"""`trivet rollout`: versions that take the traffic step by step, on a running server."""

import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson
from rich.console import Console
from rich.table import Table

from trivet.server.commands.client import LOAD_TIMEOUT_S, Client, api_key_option

_LOOK_S = 0.2


@click.group()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@api_key_option
@click.pass_context
def rollout(context: click.Context, url: str, api_key: str) -> None:
    """Roll versions of a running server's models out, and back."""
    context.obj = Client(url, api_key)


def _path(model: str, rest: str = "") -> str:
    return f"/v2/models/{quote(model, safe='')}/rollout{rest}"


@rollout.command()
@click.argument("model")
@click.option("--version", type=click.IntRange(1), help="version to roll out; default: the newest")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of steps, bake_s, min_samples, max_step_s, false_alarm and guards",
)
@click.pass_obj
def start(client: Client, model: str, version: int | None, policy: Path | None) -> None:
    """Begin to roll a version out; returns when it gets its first part, or does not load."""
    body: dict[str, Any] = {}
    if version is not None:
        body["version"] = version
    if policy is not None:
        body["policy"] = _table(policy)
    found = client.call("POST", _path(model, "/start"), body)
    ends_at_s = time.monotonic() + LOAD_TIMEOUT_S
    while found["phase"] == "waiting" and time.monotonic() < ends_at_s:
        time.sleep(_LOOK_S)
        found = client.call("GET", _path(model))
    _tell(found)


def _table(policy: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(policy.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{policy}: {error}") from None


@rollout.command()
@click.argument("model", required=False)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def status(client: Client, model: str | None, output: str) -> None:
    """Show a model's roll-out, or those of all models."""
    found = client.call("GET", _path(model) if model else "/v2/rollouts")
    if output == "json":
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    for each in found if isinstance(found, list) else [found]:
        _tell(each)
        _show_guards(each)


def _tell(found: dict[str, Any]) -> None:
    model, stable = found["model"], found["stable"]
    if "phase" not in found:
        click.echo(f"{model}: version {stable} is stable" if stable else f"{model}: no roll-out")
    elif found["reason"]:
        click.echo(f"{model}: version {found['candidate']} was {found['reason']}")
    else:
        click.echo(
            f"{model}: version {found['candidate']} is {found['phase']} at {found['percent']:g} % "
            f"(step {found['step'] + 1} of {len(found['steps'])}, {found['elapsed_s']:.0f} of "
            f"{found['bake_s']:g} s, {found['samples']} of {found['min_samples']} samples)"
        )
    for version, reason in found["refused"].items():
        if not (found.get("reason") and int(version) == found["candidate"]):
            click.echo(f"{model}: version {version} was {reason}")


def _show_guards(found: dict[str, Any]) -> None:
    if not found.get("guards"):
        return
    table = Table("guard", "candidate", "stable", "chance if no worse")
    for guard in found["guards"]:
        counted = (guard["candidate"], guard["stable"])
        told = (f"{each['events']} of {each['requests']}" for each in counted)
        table.add_row(guard["name"], *told, f"{guard['chance']:.2g}")
    Console().print(table)


@rollout.command()
@click.argument("model")
@click.pass_obj
def pause(client: Client, model: str) -> None:
    """Stay in this step, until `resume`; a version that is worse still goes back."""
    _tell(client.call("POST", _path(model, "/pause"), {}))


@rollout.command()
@click.argument("model")
@click.pass_obj
def resume(client: Client, model: str) -> None:
    """Go on after `pause`."""
    _tell(client.call("POST", _path(model, "/resume"), {}))


@rollout.command()
@click.argument("model")
@click.pass_obj
def promote(client: Client, model: str) -> None:
    """Give the version all requests at once."""
    _tell(client.call("POST", _path(model, "/promote"), {}))


@rollout.command()
@click.argument("model")
@click.option("--reason", default="", help="for the history")
@click.pass_obj
def abort(client: Client, model: str, reason: str) -> None:
    """Take the version back; it is not tried again until its files change."""
    _tell(client.call("POST", _path(model, "/abort"), {"reason": reason} if reason else {}))


@rollout.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def history(client: Client, model: str, output: str) -> None:
    """Show who did what, and when."""
    found = client.call("GET", _path(model, "/history"))
    if output == "json":
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    table = Table("time", "by", "event", "version", "reason")
    for record in found:
        version = record.get("candidate", record.get("version", ""))
        reason = record.get("reason", "")
        table.add_row(record["at"], record["by"], record["event"], str(version), reason)
    Console().print(table)
