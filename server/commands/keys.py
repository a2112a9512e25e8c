"""`trivet keys`: makes keys for `--auth-keys-file` and shows whose there are."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from trivet.backends.api import InvalidConfig
from trivet.server.auth.keys import digest_of, new_secret, parse_keys, read_keys
from trivet.server.auth.scopes import GRANTABLE

_HEAD = (
    "# Keys of `trivet serve --auth-keys-file`: hashes, so that a key cannot be read from here.\n"
)
_SCOPES = [scope.value for scope in GRANTABLE]


@click.group()
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("keys.toml"),
    show_default=True,
    envvar="TRIVET_AUTH_KEYS_FILE",
    help="the file of --auth-keys-file",
)
@click.pass_context
def keys(context: click.Context, path: Path) -> None:
    """Make keys for clients; a running server sees the change."""
    context.obj = path


@keys.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", type=click.Choice(_SCOPES), multiple=True, required=True,
    help="what it allows; may be given several times",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, help="name or pattern of a model it may ask [all]"
)
@click.option("--expires", type=click.DateTime(), help="when it ends, in UTC")
@click.option("--requests-per-second", type=float, help="rate limit")
@click.option("--requests-burst", type=int, help="requests that may come at once")
@click.option("--requests-per-day", type=int, help="quota")
@click.option("--tokens-per-minute", type=int, help="of language models, read and written")
@click.pass_obj
def create(
    path: Path,
    /,
    name: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    expires: datetime | None,
    **limits: float | None,
) -> None:
    """Make a key named NAME: it is printed now and never again; the file gets its hash."""
    secret = new_secret()
    fields: dict[str, object] = {
        "name": name,
        "hash": f"sha256:{digest_of(secret).hex()}",
        "scopes": list(scopes),
    }
    if models:
        fields["models"] = list(models)
    fields |= {limit: value for limit, value in limits.items() if value is not None}
    lines = [f"{field} = {orjson.dumps(value).decode()}\n" for field, value in fields.items()]
    if expires is not None:
        lines.append(f"expires = {expires.replace(tzinfo=UTC).isoformat()}\n")
    before = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    after = "".join((before.rstrip("\n"), "\n\n[[keys]]\n", *lines))
    try:
        parse_keys(after, str(path))
    except InvalidConfig as error:
        raise click.ClickException(error.message) from None
    _replace(path, after)
    click.echo(secret)
    click.echo(
        f"The key of '{name}', written to {path} as a hash; it is not shown again.", err=True
    )


@keys.command("list")
@click.pass_obj
def list_keys(path: Path) -> None:
    """Show whose keys there are. To take one away, delete its table from the file."""
    try:
        found = read_keys(path)
    except InvalidConfig as error:
        raise click.ClickException(error.message) from None
    table = Table("name", "scopes", "models", "expires")
    for key in found.values():
        expires = key.expires_at_s
        table.add_row(
            key.name,
            ", ".join(sorted(key.scopes)),
            "all" if key.models is None else ", ".join(key.models),
            "" if expires is None else datetime.fromtimestamp(expires, UTC).isoformat(),
        )
    Console().print(table)


def _replace(path: Path, text: str) -> None:
    """Puts the file in place at once, so that a server never reads half of it."""
    target = path.resolve()
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            Path(name).chmod(target.stat().st_mode & 0o777)
        Path(name).replace(target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise click.ClickException(f"'{path}' was not changed: {error.strerror}") from None
