"""A Serve config file of groups: what `serve deploy` and KubeRay take. Needs no Ray."""

from collections.abc import Sequence
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.server.ray.group import Group

IMPORT_PATH = "trivet.server.ray.application:application"


def serve_config(groups: Sequence[Group]) -> dict[str, Any]:
    """The file's value. Serve's own proxies are left out: the ways in answer their health path.
    Raises InvalidConfig for groups that want the same."""
    for what in ("name", "http_port", "grpc_port"):
        values = [getattr(group, what) for group in groups]
        if len(set(values)) != len(values):
            raise InvalidConfig(f"two groups have the same {what}: {', '.join(map(str, values))}")
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": group.name,
                "import_path": IMPORT_PATH,
                "route_prefix": None,
                "args": group.arguments(),
            }
            for group in groups
        ],
    }
