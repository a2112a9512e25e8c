"""`trivet deploy`: servers on engines that place them. `ray`: on a Ray cluster."""

import os
from pathlib import Path
from typing import Any

import click

from trivet.backends.api import InvalidConfig
from trivet.server.ray.config_file import serve_config
from trivet.server.ray.group import Group


@click.group()
def deploy() -> None:
    """Run servers on a cluster."""


@deploy.command()
@click.argument("repositories", metavar="REPOSITORY...", nargs=-1, required=True)
@click.option("--flag", "flags", multiple=True, help="flag of `trivet serve`, as --NAME=VALUE")
@click.option("--name", default="models", show_default=True, help="of this group of models")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="where nodes listen: an address that each has, or `node` for its own",
)
@click.option("--http-port", default=8000, show_default=True, help="of HTTP, on each node")
@click.option("--grpc-port", default=8001, show_default=True, help="of gRPC, on each node")
@click.option("--min-replicas", default=1, show_default=True, help="fewest; 0: none while idle")
@click.option("--max-replicas", default=1, show_default=True, help="most")
@click.option("--queue", default=8.0, show_default=True, help="requests that may wait in a replica")
@click.option("--scale-up-after-s", default=10.0, show_default=True, help="of longer queues")
@click.option("--scale-down-after-s", default=300.0, show_default=True, help="of shorter ones")
@click.option("--cpus", default=1.0, show_default=True, help="of a replica")
@click.option("--gpus", default=0.0, show_default=True, help="of a replica; parts are shared")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=NUMBER",
    help="other resource of the cluster's that a replica takes, such as a slice of a GPU",
)
@click.option("--longest-load-s", default=600.0, show_default=True, help="of a replica's models")
@click.option("--longest-request-s", default=30.0, show_default=True, help="when a replica ends")
@click.option("--address", default="auto", show_default=True, help="of the cluster, as Ray has it")
@click.option(
    "--write-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write a Serve config file, for `serve deploy` and KubeRay, and deploy nothing",
)
def ray(
    repositories: tuple[str, ...],
    resources: tuple[str, ...],
    address: str,
    write_config: Path | None,
    **values: Any,
) -> None:
    """Serve the models of a repository on a Ray cluster. REPOSITORY is a folder that each node has,
    or an address. Each node answers at the same ports, without a proxy of Ray's in between."""
    places = tuple(each if "://" in each else os.path.abspath(each) for each in repositories)  # noqa: PTH100 - of a path that other machines have
    try:
        group = Group.of({**values, "repository": places, "resources": _numbers(resources)})
    except InvalidConfig as error:
        raise click.UsageError(str(error)) from None
    if write_config is not None:
        _write(write_config, group)
    else:
        _deploy(group, address)


def _numbers(pairs: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, number = pair.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise click.UsageError(f"--resource {pair}: give NAME=NUMBER") from None
    return found


def _write(path: Path, group: Group) -> None:
    """As JSON, which is YAML, too."""
    import orjson

    text = orjson.dumps(serve_config([group]), option=orjson.OPT_INDENT_2)
    path.write_bytes(text + b"\n")
    click.echo(f"{path}: deploy it with `serve deploy {path}`")


def _deploy(group: Group, address: str) -> None:
    try:
        from trivet.server.ray.deploying import NoCluster, deploy_group
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install 'trivet[ray]'") from None
    try:
        deploy_group(group, address)
    except NoCluster as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"'{group.name}' answers at {group.host}:{group.http_port} of each node that has a")
    click.echo(f"replica (HTTP), and at {group.grpc_port} (gRPC)")
