"""`trivet doctor`: says of this installation what is there, what is missing and what mends it."""

import dataclasses
import sys
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.markup import escape

_MARKS = {"green": "ok", "yellow": "--", "red": "!!"}


@click.command()
@click.argument(
    "repositories", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def doctor(repositories: tuple[Path, ...], output: str) -> None:
    """Say what is there, what is missing and what mends it, of this installation and of
    REPOSITORIES: green is well, yellow could be better, red is wrong, and then so is the exit code.
    """
    from trivet.server.commands.examination import State, examine

    found = examine(repositories)
    if output == "json":
        rows = [{**dataclasses.asdict(each), "state": each.state.name.lower()} for each in found]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for each in found:
            colour = each.state.value
            mend = f" [dim]->[/dim] {escape(each.mend)}" if each.mend else ""
            console.print(
                f"[{colour}]{_MARKS[colour]}[/{colour}] {escape(each.about)}: "
                f"{escape(each.text)}{mend}"
            )
    sys.exit(any(each.state is State.WRONG for each in found))
