"""`trivet cost`: what requests have cost, by day and model."""

from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

_USUAL = "~/.local/state/trivet"


@click.command()
@click.option(
    "--state-dir",
    default=_USUAL,
    show_default=True,
    envvar="TRIVET_STATE_DIR",
    help="the server's",
)
@click.option("--day", default="", help="one day alone, as 2026-01-31 (UTC)")
@click.option("--model", default="", help="one model alone")
@click.option("--by-key", is_flag=True, help="a line for each key, too")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def cost(state_dir: str, day: str, model: str, output: str, *, by_key: bool) -> None:
    """Show what requests have cost, by day, model and version. A running server writes it down
    every ten seconds; it needs --prices."""
    from trivet.server.cost.ledger import COSTS, Spent, days

    folder = Path(state_dir).expanduser() / COSTS
    rows: dict[tuple[str, ...], Spent] = {}
    for name, accounts in days(folder):
        for account, spent in accounts.items():
            if (day and name != day) or (model and account.model != model):
                continue
            place = (name, account.model, str(account.version), *((account.key,) * by_key))
            rows.setdefault(place, Spent()).add(spent.compute_s, spent.cost, spent.requests)
    if not rows and not folder.is_dir():
        raise click.ClickException(
            f"no server has written down costs in {folder}; start one with --prices, or name "
            "another folder with --state-dir"
        )
    heads = ("day", "model", "version", *(("key",) * by_key))
    figures = ("requests", "compute_s", "cost")
    if output == "json":
        told = [
            dict(zip(heads, place, strict=True))
            | {"requests": s.requests, "compute_s": s.compute_s, "cost": s.cost}
            for place, s in sorted(rows.items())
        ]
        click.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        return
    table = Table(*heads, *figures)
    for place, spent in sorted(rows.items()):
        shown = (str(spent.requests), f"{spent.compute_s:.3f}", f"{spent.cost:.6f}")
        table.add_row(*place, *shown)
    Console().print(table)
