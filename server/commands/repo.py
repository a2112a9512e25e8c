"""`trivet repo validate`: faults of a model repository, found without serving it."""

import dataclasses
import sys
from pathlib import Path

import click
import orjson
from rich.console import Console

_STYLES = {"error": "red", "warning": "yellow"}


@click.group()
def repo() -> None:
    """Look at a model repository."""


@repo.command()
@click.argument(
    "folders",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--model-namespacing",
    is_flag=True,
    help="each of several folders may have a model of the same name, as in `trivet serve`",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("--allow-pickle", multiple=True, metavar="MODEL", help="As of the server.")
@click.option("--allow-install", multiple=True, metavar="MODEL", help="The same.")
def validate(
    folders: tuple[Path, ...],
    output: str,
    allow_pickle: tuple[str, ...],
    allow_install: tuple[str, ...],
    *,
    model_namespacing: bool,
) -> None:
    """Check every model of the FOLDERs that one server is to serve; no model code is run. Exit code
    1 if there are errors."""
    from trivet.server.models.allowed import Allowed
    from trivet.server.models.validate import validate as find_faults

    allowed = Allowed(frozenset(allow_pickle), frozenset(allow_install))
    found = find_faults(folders, is_namespaced=model_namespacing, allowed=allowed)
    if output == "json":
        rows = [dataclasses.asdict(each) for each in found]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for each in found:
            style = _STYLES[each.severity]
            fix = f"; {each.fix}" if each.fix else ""
            console.print(
                f"{each.place}: [{style}]{each.severity}[/{style}] "
                f"\\[{each.code}] {each.message}{fix}"
            )
        errors = sum(each.severity == "error" for each in found)
        console.print(f"{errors} error(s), {len(found) - errors} warning(s)")
    sys.exit(any(each.severity == "error" for each in found))
