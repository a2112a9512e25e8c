"""`trivet show`: what a model is, before anybody serves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.markup import escape

from trivet.backends.api import InvalidConfig
from trivet.backends.registry import choose_about
from trivet.server.commands.catalogue import address_of
from trivet.server.commands.stores import opened, remote_cache_option, told
from trivet.server.remote.progress import readable
from trivet.server.repository.config import config_of
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import scan


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@remote_cache_option
def show(model: str, output: str, remote_cache: str) -> None:
    """Show what a model is: its backend and whether that is installed, its versions and files.
    MODEL is a file, a folder, or what has been pulled, by its short name or address."""
    with _place_of(model, remote_cache) as place:
        snapshot = scan((place,))
        rows = [_row(folder) for folder in snapshot.models.values()]
        rows += [{"name": name, "problem": why} for name, why in snapshot.problems.items()]
    if not rows:
        raise click.ClickException(f"{model} holds no model")
    if output == "json":
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        for line in _lines(row):
            console.print(line)


@contextmanager
def _place_of(model: str, remote_cache: str) -> Iterator[Path]:
    path = Path(model).expanduser()
    if "://" not in model and path.exists():
        yield path
        return
    address = address_of(model)
    with told(), opened(remote_cache).opened(address) as place:
        yield place


def _row(folder: ModelFolder) -> dict[str, object]:
    row: dict[str, object] = {"name": folder.name}
    if folder.is_stranger:
        return {**row, "problem": folder.advice}
    files = {
        str(version): {stamp[0]: stamp[1] for stamp in stamps}
        for version, stamps in folder.versions.items()
    }
    try:
        newest = max(folder.versions, default=1)
        about = choose_about(config_of(folder), folder.files(newest))
    except InvalidConfig as error:
        return {**row, "problem": error.message, "versions": files}
    missing = [each for each in about.packages if find_spec(each) is None]
    row |= {"backend": about.word, "is_installed": not missing}
    if missing:
        row["mend"] = f"pip install '{about.install}'"
    return {**row, "versions": files}


def _lines(row: dict[str, object]) -> Iterator[str]:
    name = escape(str(row["name"]))
    if "problem" in row:
        yield f"[red]{name}[/red]: {escape(str(row['problem']))}"
        return
    mend = f", [yellow]which is not installed[/yellow]: {row['mend']}" if "mend" in row else ""
    yield f"[bold]{name}[/bold]: backend {row['backend']}{mend}"
    versions = row["versions"]
    assert isinstance(versions, dict)
    for version, files in versions.items():
        total = readable(sum(files.values()))
        yield f"  version {version}: {len(files)} file(s), {total}"
        for path, size in files.items():
            yield f"    {escape(path)}  {readable(size)}"
