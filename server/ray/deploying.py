"""Deploys a group on a running cluster."""

import ray
from ray import serve

from trivet.server.ray.application import application
from trivet.server.ray.config_file import serve_config
from trivet.server.ray.group import Group


class NoCluster(Exception):
    """There is no cluster, or it does not serve the group."""


def deploy_group(group: Group, address: str) -> None:
    """Returns when a replica is ready. Raises NoCluster."""
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise NoCluster(
            f"no Ray cluster at '{address}': {error}; begin one with `ray start --head`"
        ) from None
    serve.start(proxy_location=serve_config([group])["proxy_location"])
    try:
        serve.run(application(group.arguments()), name=group.name, route_prefix=None)
    except RuntimeError as error:
        raise NoCluster(f"Ray does not get group '{group.name}' to run: {error}") from None
    finally:
        ray.shutdown()
